"""Which daemon a command talks to, and the options that say so."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Final

import typer

from imagedbd import __version__

if TYPE_CHECKING:
    from imagedbd.client import Client
    from imagedbd.config import Settings

PATIENCE_S: Final = 900.0
"""Seconds without a byte after which a command gives up: a prompt may wait for a large model to load."""


class Target:
    """The settings and the daemon of one command; both are looked at only when a command needs them."""

    def __init__(self) -> None:
        self.flags: dict[str, str] = {}
        """``config_file``, ``data_dir`` and ``socket``, where an option named them."""
        self._clients: list[Client] = []

    @cached_property
    def settings(self) -> Settings:
        from imagedbd.config import load_settings

        return load_settings(self.flags)

    @cached_property
    def client(self) -> Client:
        """A connection for ordinary requests."""
        return self.connect(PATIENCE_S)

    def connect(self, patience: float | None) -> Client:
        """Another connection; ``None`` waits for ever."""
        from imagedbd.client import Client

        client = Client(self.settings.socket, timeout=patience)
        self._clients.append(client)
        return client

    def other_version(self) -> str | None:
        """The daemon's version, if it answered and is not of this command's version."""
        versions = {client.daemon_version for client in self._clients} - {None, __version__}
        return next(iter(versions), None)


def target_of(context: typer.Context) -> Target:
    target = context.find_object(Target)
    return Target() if target is None else target


def _keep(name: str, context: typer.Context, value: str | None) -> None:
    if value is not None:
        target_of(context).flags[name] = value


def _keep_config(context: typer.Context, value: str | None) -> None:
    _keep("config_file", context, value)


def _keep_data_dir(context: typer.Context, value: str | None) -> None:
    _keep("data_dir", context, value)


def _keep_socket(context: typer.Context, value: str | None) -> None:
    _keep("socket", context, value)


# Each stands before or after the command's name and goes to the target, not into the command's function.
ConfigOption = Annotated[
    str | None,
    typer.Option(
        "--config", metavar="FILE", callback=_keep_config, expose_value=False,
        help="Settings file. Also IMAGEDBD_CONFIG.",
    ),
]  # fmt: skip
DataDirOption = Annotated[
    str | None,
    typer.Option(
        "--data-dir", metavar="DIR", callback=_keep_data_dir, expose_value=False,
        help="Folder of the index. Also IMAGEDBD_DATA_DIR.",
    ),
]  # fmt: skip
SocketOption = Annotated[
    str | None,
    typer.Option(
        "--socket", metavar="FILE", callback=_keep_socket, expose_value=False,
        help="Socket of the daemon. Also IMAGEDBD_SOCKET.",
    ),
]  # fmt: skip
