"""The two programs, each of which knows the commands of the other: a hand takes one for the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from typer.core import TyperGroup

if TYPE_CHECKING:
    from collections.abc import Iterable


class Program(TyperGroup):
    """The commands of one program; for those of the other, the error says whose they are."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """:raises typer.TyperException: there is no such command, here or at all."""
        if args and not ctx.resilient_parsing and self.get_command(ctx, args[0]) is None:
            other = "imagedb" if self.name == "imagedbd" else "imagedbd"
            if args[0] in _commands_of(other):
                ctx.fail(f"No such command {args[0]!r}: it is `{other} {args[0]}`.")
        return super().resolve_command(ctx, args)


def _commands_of(program: str) -> Iterable[str]:
    from imagedbd.cli import daemon, entry, main

    app = main.application() if program == "imagedb" else daemon.app
    return entry.command_of(app).commands
