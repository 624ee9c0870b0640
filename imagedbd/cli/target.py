"""Which daemon a command talks to, and the options that say so."""

from __future__ import annotations

import os
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Final

import typer

from imagedbd import __version__
from imagedbd.cli import output
from imagedbd.errors import ConfigError, UsageError

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
        self._is_checked = False

    @cached_property
    def settings(self) -> Settings:
        """:raises ConfigError: they are faulty, an option names a file that is not there, or a folder that
        they name does not answer.
        """
        from imagedbd.config import load_settings, settings_soon

        check_named_file(self.flags.get("config_file"))
        return settings_soon(lambda: load_settings(self.flags))

    @cached_property
    def socket(self) -> str:
        """Where the daemon is: a fault in the settings keeps nobody from asking one that runs.

        :raises ConfigError: the settings are faulty, and no daemon runs.
        """
        from imagedbd.client import somebody_listens
        from imagedbd.config import socket_place

        check_named_file(self.flags.get("config_file"))
        if self._names_socket:
            return socket_place(self.flags)
        early = self._socket_of_an_early_one()
        try:
            wanted = self.settings.socket
        except ConfigError as error:
            place = early or socket_place(self.flags)
            if not somebody_listens(place):
                raise
            output.note(f"{error.message} The daemon goes on with the settings that it has.")
            return place
        return early or wanted

    def check_file(self) -> None:
        """Before the settings file is changed: a fault in it is all there is to tell, whoever runs.

        :raises ConfigError: with the fault.
        """
        from imagedbd.config import settings_place
        from imagedbd.toml_file import read_toml

        if not self._names_socket:  # else the daemon may have another file
            read_toml(settings_place(self.flags.get("config_file")))

    @property
    def _names_socket(self) -> bool:
        return bool(self.flags.get("socket") or os.environ.get("IMAGEDBD_SOCKET"))

    def _socket_of_an_early_one(self) -> str | None:
        """Where a daemon answers that began before there was a runtime folder, if there is no other one."""
        from imagedbd.client import is_deserted, somebody_listens
        from imagedbd.config import socket_place, spare_socket

        spare = spare_socket(self.flags)
        is_there = spare and is_deserted(socket_place(self.flags)) and somebody_listens(spare)
        return spare if is_there else None

    @cached_property
    def client(self) -> Client:
        """A connection for ordinary requests."""
        return self.connect(PATIENCE_S)

    def connect(self, patience: float | None, grace: float = 0.0) -> Client:
        """Another connection; see :class:`imagedbd.client.Client`."""
        from imagedbd.client import Client

        client = Client(self.socket, timeout=patience, grace=grace)
        self._check_data_dir()
        self._clients.append(client)
        return client

    def _check_data_dir(self) -> None:
        """:raises UsageError: the daemon has another index than the one that an option names."""
        from imagedbd.client import Client

        if self._is_checked or (named := self.flags.get("data_dir")) is None:
            return
        its = str(Client(self.socket, timeout=PATIENCE_S).status().get("data_dir"))
        if os.path.realpath(os.path.expanduser(named)) != os.path.realpath(its):
            raise UsageError(
                f"The daemon at {self.socket} has its index in {its}, and not in {named}. "
                "--socket names another daemon; without --data-dir, this one is asked."
            )
        self._is_checked = True

    def other_version(self) -> str | None:
        """The daemon's version, if it answered and is not of this command's version."""
        versions = {client.daemon_version for client in self._clients} - {None, __version__}
        return next(iter(versions), None)


def check_named_file(path: str | None) -> None:
    """:raises ConfigError: an option names a settings file that is not there."""
    if path is not None and not os.path.exists(os.path.expanduser(path)):
        raise ConfigError(
            f"There is no file {path}. `imagedb config init --config FILE` writes one with every setting."
        )


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
