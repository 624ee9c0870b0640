"""``imagedb doctor``: every link of the chain, and the fix beside each finding."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from imagedbd.cli import flags, output
from imagedbd.cli.entry import examples
from imagedbd.cli.target import target_of

if TYPE_CHECKING:
    from imagedbd.cli.checkup import Finding

app = typer.Typer()

_SIGNS = {"ok": ("ok     ", "green"), "note": ("note   ", "yellow"), "problem": ("problem", "red")}
UNHEALTHY = 70


@app.command(epilog=examples("imagedb doctor", "imagedb doctor --json"))
def doctor(context: typer.Context, as_json: flags.RowsAsJson = False) -> None:
    """Check all that indexing needs, and name the fixes.

    The exit code is 0 if nothing is wrong, and 70 otherwise.
    """
    from imagedbd.cli import checkup

    findings = list(checkup.examine(target_of(context)))
    if as_json:
        output.write_rows([finding.public() for finding in findings], output.Form.JSON)
    else:
        _print(findings)
    problems = sum(finding.level == "problem" for finding in findings)
    if problems:
        output.say(f"{output.count(problems, 'problem')} found.")
        raise typer.Exit(UNHEALTHY)
    output.say("All is well.")


def _print(findings: list[Finding]) -> None:
    from rich.text import Text

    from imagedbd.cli import tables

    table = tables.grid([tables.Column(""), tables.Column("", style="bold"), tables.Column("")])
    for finding in findings:
        sign, style = _SIGNS[finding.level]
        text = Text(output.printable(finding.finding))
        if finding.fix:
            text.append(f"\n→ {output.printable(finding.fix)}", style="cyan")
        table.add_row(Text(sign, style=style), finding.check, text)
    output.show(table)
