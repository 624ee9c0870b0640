"""Manual pages, made of what ``--help`` is made of."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from imagedbd import __version__
from imagedbd.cli import output
from imagedbd.cli.completion import one_of
from imagedbd.cli.entry import command_of, examples
from imagedbd.errors import UsageError

if TYPE_CHECKING:
    from typer.core import TyperGroup

app = typer.Typer()

PAGES: Final = ("imagedb", "imagedbd")
_EXIT_CODES: Final = (
    ("0", "Done."),
    ("1", "Nothing matched."),
    ("2", "Bad usage or a bad expression."),
    ("69", "The daemon is not running."),
    ("70", "Failed."),
    ("75", "Another daemon holds the lock."),
    ("78", "Bad configuration, or a store that needs `imagedbd repair`."),
    ("124", "Timed out."),
)
_VARIABLES: Final = (
    ("IMAGEDBD_CONFIG, IMAGEDBD_DATA_DIR, IMAGEDBD_SOCKET", "Where settings, index and socket are."),
    ("IMAGEDBD_…", "Any other setting, over what the settings file says; see docs/configuration.md."),
    ("NO_COLOR", "No colours, whatever it is set to."),
    ("IMAGEDBD_DEBUG", "With 1, errors come with their traceback."),
)


@app.command(
    epilog=examples("imagedb man > ~/.local/share/man/man1/imagedb.1", "imagedb man imagedbd | man -l -")
)
def man(
    page: Annotated[
        str,
        typer.Argument(metavar="|".join(PAGES), help="Of which program.", autocompletion=one_of(*PAGES)),
    ] = "imagedb",
) -> None:
    """Print a manual page, for man to show."""
    if page not in PAGES:
        raise UsageError(f"There are pages of {' and '.join(PAGES)}; not of {output.printable(page)}.")
    from imagedbd.cli import daemon, main

    application = main.application() if page == "imagedb" else daemon.app
    output.write(manual(command_of(application), page))


def manual(command: TyperGroup, name: str) -> str:
    """The page of a program, in the man macros of roff."""
    lines = [
        f'.TH {name.upper()} 1 "" "imagedbd {__version__}" "User Commands"',
        ".ad l",  # no line is stretched to the margin, that of the name least of all
        *_section("NAME"),
        f"{_text(name)} \\- {_text(_summary(command))}",
        *_section("SYNOPSIS"),
        f".B {_text(name)}",
        r"[\fIOPTIONS\fR] \fICOMMAND\fR [\fIARGS\fR]",
        *_section("DESCRIPTION"),
        *_paragraphs(command.help or ""),
        *_section("OPTIONS"),
        *_options(command, name),
        *_section("COMMANDS"),
        *_commands(command, name),
        *_section("EXIT STATUS"),
        *_listed(_EXIT_CODES),
        *_section("ENVIRONMENT"),
        *_listed(_VARIABLES),
        *_section("EXAMPLES"),
        *list(_examples(command))[1:],
        *_section("SEE ALSO"),
        *(f".BR {other} (1)" for other in PAGES if other != name),
    ]
    return "\n".join(lines) + "\n"


def _commands(group: Any, path: str) -> Iterator[str]:
    for name, command in group.commands.items():
        whole = f"{path} {name}"
        if hasattr(command, "commands"):
            yield from _commands(command, whole)
            continue
        context = _context(command, whole)
        yield f".SS {_text(' '.join([whole, *command.collect_usage_pieces(context)]))}"
        yield from _paragraphs(command.help or "")
        yield from _options(command, whole)
        yield from _examples(command)


def _options(command: Any, path: str) -> Iterator[str]:
    context = _context(command, path)
    for parameter in command.get_params(context):
        if (record := _help_of(parameter, context)) is None:
            continue
        names, words = record
        yield ".TP"
        yield rf"\fB{_text(names)}\fR"
        yield _text(words or " ")


def _context(command: Any, path: str) -> typer.Context:
    return typer.Context(command, info_name=path, help_option_names=["-h", "--help"])


def _help_of(parameter: Any, context: typer.Context) -> tuple[str, str] | None:
    """What ``--help`` says of it: its names, and what it does."""
    if parameter.param_type_name == "argument":
        return str(parameter.display_name_raw), str(parameter.help or "")
    record: tuple[str, str] | None = parameter.get_help_record(context)
    return record


def _examples(command: Any) -> Iterator[str]:
    lines = [line.strip() for line in (command.epilog or "").splitlines() if line.startswith("  ")]
    if lines:
        yield from (".PP", ".nf", ".RS 4", *(_text(line) for line in lines), ".RE", ".fi")


def _listed(pairs: tuple[tuple[str, str], ...]) -> Iterator[str]:
    for name, words in pairs:
        yield from (".TP", rf"\fB{_text(name)}\fR", _text(words))


def _section(title: str) -> list[str]:
    return [f".SH {title}"]


def _summary(command: Any) -> str:
    """The first sentence, without its stop."""
    return re.split(r"\.(\s|$)", str(command.help or ""), maxsplit=1)[0]


def _paragraphs(text: str) -> Iterator[str]:
    for number, paragraph in enumerate(re.split(r"\n\s*\n", text.strip())):
        if number:
            yield ".PP"
        yield _text(" ".join(paragraph.split()))


def _text(text: str) -> str:
    """Plain text, with nothing that roff would act on."""
    escaped = text.replace("\\", r"\e").replace("-", r"\-")
    escaped = re.sub(r"[^\x00-\x7f]", lambda found: rf"\[u{ord(found[0]):04X}]", escaped)
    return rf"\&{escaped}" if escaped.startswith((".", "'")) else escaped
