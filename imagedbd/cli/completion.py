"""Completion for shells: of commands and options by typer, of values by what the daemon has.

A shell asks at every press of a key: whatever goes wrong there means no proposals, and no words.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from imagedbd.cli import output
from imagedbd.cli.entry import examples
from imagedbd.cli.target import target_of
from imagedbd.errors import DaemonNotRunningError, ImagedbError, UsageError

if TYPE_CHECKING:
    from imagedbd.cli.target import Target
    from imagedbd.client import Client

app = typer.Typer()

PATIENCE_S: Final = 3.0
"""How long a press of a key may take. What the daemon gathers longer for is there at the next one."""
SHELLS: Final = ("bash", "zsh", "fish")
PROGRAMS: Final = ("imagedb", "imagedbd")


@app.command(
    epilog=examples(
        "imagedb completion bash > ~/.local/share/bash-completion/completions/imagedb",
        "imagedb completion bash imagedbd > ~/.local/share/bash-completion/completions/imagedbd",
        "imagedb completion zsh > ~/.zfunc/_imagedb",
        "imagedb completion fish > ~/.config/fish/completions/imagedb.fish",
    )
)
def completion(
    shell: Annotated[
        str,
        typer.Argument(metavar="|".join(SHELLS), help="Which shell.", autocompletion=lambda: list(SHELLS)),
    ],
    program: Annotated[
        str,
        typer.Argument(
            metavar="|".join(PROGRAMS), help="Of which program.", autocompletion=lambda: list(PROGRAMS)
        ),
    ] = "imagedb",
) -> None:
    """Print the completion script of a shell.

    It completes commands and options, and what the running daemon knows: roots, models, fields and cameras.
    """
    from typer.completion import get_completion_script  # type: ignore[attr-defined] # not in its __all__

    from imagedbd.cli import zsh

    if shell not in SHELLS:
        raise UsageError(f"There is completion for {', '.join(SHELLS)}; not for {output.printable(shell)}.")
    if program not in PROGRAMS:
        raise UsageError(
            f"There is completion of {' and '.join(PROGRAMS)}; not of {output.printable(program)}."
        )
    variable = f"_{program.upper()}_COMPLETE"
    if shell == "zsh":
        output.write(zsh.script(program, variable))
        return
    script = get_completion_script(prog_name=program, complete_var=variable, shell=shell)
    output.write(script + "\n")


def one_of(*words: str) -> Callable[[str], list[str]]:
    """Completes from words that are known."""

    def complete(incomplete: str) -> list[str]:
        return _beginning(words, incomplete)

    return complete


def fields(incomplete: str) -> list[str]:
    """Completes the names that a condition knows, as long as it is one word."""
    from imagedbd.datatypes import RECORD_FIELDS

    return _beginning(RECORD_FIELDS, incomplete)


def roots(context: typer.Context, incomplete: str) -> list[str]:
    """Completes the folders that are watched, or will be when a daemon runs."""
    try:
        return _beginning(_roots(target_of(context)), incomplete)
    except ImagedbError:
        return []


def cameras(context: typer.Context, incomplete: str) -> list[str]:
    """Completes cameras of the pictures in the index, and their makes."""

    def names(client: Client) -> Iterable[str]:
        said = client.names()
        return dict.fromkeys([*said.get("makes", ()), *said["cameras"]])

    return _asked(context, incomplete, names, any_case=True)


def models(context: typer.Context, incomplete: str) -> list[str]:
    """Completes models that OpenCLIP offers."""
    return _asked(context, incomplete, lambda client: client.names()["models"])


def _roots(target: Target) -> Iterable[str]:
    try:
        return [str(root["path"]) for root in target.connect(PATIENCE_S).status()["roots"]]
    except DaemonNotRunningError:
        return target.settings.roots


def _asked(
    context: typer.Context,
    incomplete: str,
    ask: Callable[[Client], Iterable[Any]],
    *,
    any_case: bool = False,
) -> list[str]:
    try:
        return _beginning(ask(target_of(context).connect(PATIENCE_S)), incomplete, any_case=any_case)
    except ImagedbError:
        return []


def _as_begun(words: Iterable[str], incomplete: str) -> Iterator[str]:
    """Those that begin so in any case, with the beginning as it was typed: shells refuse another one."""
    size = len(incomplete)
    for word in words:
        yield incomplete + word[size:] if word[:size].casefold() == incomplete.casefold() else word


def _beginning(words: Iterable[str], incomplete: str, *, any_case: bool = False) -> list[str]:
    # What a terminal would act on cannot be typed back either.
    if any_case:
        words = _as_begun(words, incomplete)
    found = [word for word in words if word.startswith(incomplete) and word.isprintable()]
    # bash puts a proposal into the line as it is; the other shells quote.
    in_bash = "complete_bash" in {os.environ.get(f"_{program.upper()}_COMPLETE") for program in PROGRAMS}
    return [re.sub(r"([^\w@%+=:,./-])", r"\\\1", word) for word in found] if in_bash else found
