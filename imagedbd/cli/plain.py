"""typer's commands with values converted by a few lines of our own.

typer converts every value, a plain string included, through pydantic, whose import takes longer than the
whole of ``imagedb status``. The types that our options have need nothing of the kind.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, get_args

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Parameter = TyperArgument | TyperOption


def without_pydantic(command: Any) -> None:
    """Have a command, and all below it, convert their own values."""
    # Through the one method that every parameter passes: typer makes the option --help only there.
    command.get_params = partial(_plain_parameters, command.get_params)
    for subcommand in command.commands.values() if isinstance(command, TyperGroup) else ():
        without_pydantic(subcommand)


class MinusIsNoOption(TyperCommand):
    """A command of which some arguments that begin with a minus are words: ``'- snow'``, ``'-5 degrees'``.

    They have a space, and what is between is the beginning of no option.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, list(self._shielded(args)))

    def _shielded(self, args: list[str]) -> Iterator[str]:
        """The same, with a space before such an argument: it means the same, and no option has one."""
        takes_value = {
            name
            for parameter in self.params
            if isinstance(parameter, TyperOption) and not parameter.is_flag
            for name in (*parameter.opts, *parameter.secondary_opts)
        }
        letters = {name[1] for option in self.params for name in option.opts if name[1:2] not in {"-", ""}}
        before = ""
        for index, argument in enumerate(args):
            if argument == "--" and before not in takes_value:
                yield from args[index:]  # behind it, nothing is an option in any case
                return
            is_worded = argument.startswith("-") and " " in argument and argument[1] not in {"-", *letters}
            is_query = is_worded and before not in takes_value
            yield f" {argument}" if is_query else argument
            before = argument


def _plain_parameters(parameters_of: Callable[[Any], list[Any]], context: Any) -> list[Any]:
    parameters = parameters_of(context)
    for parameter in parameters:
        parameter.process_value = partial(_process_value, parameter)
    return parameters


def _process_value(parameter: Parameter, context: typer.Context, value: Any) -> Any:
    # The steps of typer's own method, in its order.
    value = _converted(parameter, context, value)
    if parameter.required and parameter.value_is_missing(value):
        # Its name is all that the user needs: what else it takes stands in the help.
        message = f"Missing {parameter.param_type_name} {parameter.get_error_hint()}."
        raise typer.BadParameter(message, ctx=context)
    return parameter.callback(context, parameter, value) if parameter.callback else value


def _converted(parameter: Parameter, context: typer.Context, value: Any) -> Any:
    several = parameter.nargs == -1 or bool(getattr(parameter, "multiple", False))
    if value is None:
        return () if several else None
    convert = _converter(parameter.type_descriptor.annotation, several=several)
    try:
        converted = tuple(convert(item) for item in value) if several else convert(value)
    except ValueError as error:
        raise typer.BadParameter(str(error), ctx=context, param=parameter) from error
    _check_bounds(parameter, context, converted)
    return converted


def _converter(annotation: Any, *, several: bool) -> Callable[[Any], Any]:
    item = get_args(annotation)[0] if several else annotation
    return {int: _whole_number, float: _number}.get(item, _as_it_is)


def _as_it_is(value: Any) -> Any:
    return value


def _whole_number(value: Any) -> int:
    try:
        return int(value)
    except ValueError:
        raise ValueError(f"{value!r} is not a whole number.") from None


def _number(value: Any) -> float:
    try:
        number = float(value)
    except ValueError:
        number = float("nan")
    if number != number or number in {float("inf"), float("-inf")}:  # noqa: PLR0124 - NaN alone differs from itself
        raise ValueError(f"{value!r} is not a number.")
    return number


def _check_bounds(parameter: Parameter, context: typer.Context, value: Any) -> None:
    low, high = parameter.type_descriptor.parameter_info.min, parameter.type_descriptor.parameter_info.max
    if (low is not None and value < low) or (high is not None and value > high):
        bounds = f"at least {low:g}" if high is None else f"between {low:g} and {high:g}"
        message = f"{value} is not {bounds}."
        raise typer.BadParameter(message, ctx=context, param=parameter)
