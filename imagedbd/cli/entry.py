"""Running a typer application the way both programs run theirs: errors as one line, and exit codes.

A traceback never reaches a user who did not ask for one with ``IMAGEDBD_DEBUG=1``.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import textwrap
import traceback
from typing import TYPE_CHECKING, Any, Final

import typer

from imagedbd import __version__
from imagedbd.cli import output
from imagedbd.cli.plain import without_pydantic
from imagedbd.cli.target import Target
from imagedbd.errors import ConfigError, ExpressionError, ImagedbError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from typer.core import TyperGroup

INTERRUPTED: Final = 130
"""128 and SIGINT, as shells report it."""
BROKEN_PIPE: Final = 141
"""128 and SIGPIPE: the reader had enough."""
BUG: Final = 70


class ExplainedUsageError(UsageError):
    """A bad request with lines of its own to follow the message."""

    def __init__(self, message: str, lines: str) -> None:
        super().__init__(message)
        self.lines = lines


def examples(*lines: str) -> str:
    """An epilog that shows commands as they are typed, one a line."""
    # typer folds paragraphs, except those that begin with a backspace.
    return "\b\n" + "\n".join(["Examples:", *(f"  {line}" for line in lines)])


def command_of(app: typer.Typer) -> TyperGroup:
    """The application, ready to run."""
    from typer.main import get_command

    command: Any = get_command(app)
    without_pydantic(command)
    group: TyperGroup = command
    # `imagedb completion` prints what a shell reads; its settings are for its owner to write.
    group.params = [p for p in group.params if p.name not in {"install_completion", "show_completion"}]
    return group


def run(command: TyperGroup, name: str, arguments: Sequence[str] | None = None) -> int:
    """Run one command line.

    :param name: the program, as usage lines and errors name it.
    :param arguments: without the program's name; ``sys.argv`` where it is ``None``.
    :returns: the exit code.
    """
    output.show_anything()
    if f"_{name.upper()}_COMPLETE" in os.environ:  # a shell asks for completions; typer knows how
        from imagedbd.cli import zsh

        zsh.register()
        command.main(prog_name=name)
    target = Target()
    code = _guarded(name, lambda: _invoke(command, name, arguments, target))
    if (version := target.other_version()) is not None:
        output.say(
            f"{name}: The daemon is version {version}, this command {__version__}. "
            "Restart the daemon, so that they agree."
        )
    return code


def _invoke(command: TyperGroup, name: str, arguments: Sequence[str] | None, target: Target) -> int:
    words = list(sys.argv[1:] if arguments is None else arguments)
    # typer would never go below 50 columns by itself.
    columns = min(shutil.get_terminal_size().columns, 90) - 2
    with command.make_context(name, words, obj=target, terminal_width=columns) as context:
        try:
            code = command.invoke(context)
        finally:  # data before the words about it, and a closed pipe while it can still be told
            sys.stdout.flush()
    return code if isinstance(code, int) else 0


def _guarded(name: str, action: Callable[[], int]) -> int:
    """An action's exit code, whichever way it ends."""
    try:
        return _explained(name, action)
    except typer.Exit as end:
        return end.exit_code
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except BrokenPipeError:
        _close_stdout()
        return BROKEN_PIPE


def _explained(name: str, action: Callable[[], int]) -> int:
    """An action's exit code; an error is told in words first."""
    try:
        return action()
    except (typer.Exit, typer.Abort, BrokenPipeError):
        raise
    except typer.TyperException as error:
        return _report_usage(name, error)
    except ImagedbError as error:
        return _report(name, error)
    except OSError as error:
        return _report_os_error(name, error)
    # Whatever else goes wrong is a mistake of ours; the user gets a line that is worth reporting.
    except Exception as error:  # noqa: BLE001 - see above
        return _report_bug(name, error)


def _close_stdout() -> None:
    # The interpreter flushes once more on its way out, and would complain of the same fault.
    with contextlib.suppress(OSError, ValueError):  # not every stream is a file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _report_usage(name: str, error: typer.TyperException) -> int:
    if error.message.startswith("Usage:"):  # a group without a command: the message is its help
        output.say(error.message)
        return error.exit_code
    # Which option it was is told only by its parameter, and typer calls that by its metavar.
    parameter = getattr(error, "param", None)
    place = f"{_name_of(parameter)}: " if parameter is not None else ""
    output.say(f"{name}: Bad usage: {place}{output.printable(error.message)}")
    context = getattr(error, "ctx", None)
    if context is not None:
        output.say(
            f"{context.get_usage()}\nTry `{context.command_path} --help`.{_behind_dashes(error, context)}"
        )
    return error.exit_code


def _behind_dashes(error: typer.TyperException, context: Any) -> str:
    """How to give what begins with a minus and is no option, to a command that takes such things."""
    option = getattr(error, "option_name", None)
    takes = any(p.param_type_name == "argument" for p in context.command.params)
    if option is None or not takes:
        return ""
    return f"\nWhat begins with a minus and is no option goes behind --: `{context.command_path} -- …`."


def _name_of(parameter: Any) -> str:
    """The option as it is typed, or the argument as the usage line names it."""
    is_option = parameter.param_type_name == "option"
    return ", ".join(sorted(parameter.opts, key=len)) if is_option else str(parameter.display_name_raw)


def _report(name: str, error: ImagedbError) -> int:
    _traceback_if_wanted()
    for message in error.faults if isinstance(error, ConfigError) else (error.message,):
        output.say(f"{name}: {error.title}: {output.printable(message)}")
    if isinstance(error, ExpressionError):
        output.say(_pointed_at(error))
    if isinstance(error, ExplainedUsageError):
        output.say(error.lines)
    return error.exit_code


def _pointed_at(error: ExpressionError) -> str:
    """The expression with a caret under the fault, and the fields that it may use."""
    from rich.cells import cell_len

    from imagedbd.datatypes import RECORD_FIELDS

    width = output.columns_of_errors()
    # Of a long expression, the part around the fault.
    start = max(0, error.position - width // 2) if len(error.expression) > width - 4 else 0
    shown = output.printable(error.expression[start : start + width - 4])
    before = output.printable(error.expression[start : error.position])
    pointed = f"  {shown}\n  {' ' * cell_len(before)}^"
    fields = ", ".join(RECORD_FIELDS)
    if fields in error.message:
        return pointed
    return f"{pointed}\n{textwrap.fill(f'Fields: {fields}.', width=min(width, 100), subsequent_indent='  ')}"


def _report_os_error(name: str, error: OSError) -> int:
    _traceback_if_wanted()
    reason = error.strerror or str(error) or type(error).__name__
    place = f"{output.printable(os.fsdecode(error.filename))}: " if error.filename else ""
    output.say(f"{name}: Failed: {place}{reason}.")
    _close_stdout()
    return BUG


def _report_bug(name: str, error: Exception) -> int:
    _traceback_if_wanted()
    what = output.printable(f"{type(error).__name__}: {error}")
    output.say(
        f"{name}: This is a bug in imagedbd {__version__}: {what}. "
        f"Run it again with IMAGEDBD_DEBUG=1 for the traceback, and please report both."
    )
    return BUG


def _traceback_if_wanted() -> None:
    if os.environ.get("IMAGEDBD_DEBUG", "0") not in {"", "0"}:
        traceback.print_exc()
