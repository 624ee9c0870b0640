"""The daemon as a service of the user's own systemd: its unit files, and what systemctl is asked.

The units are those of ``systemd/`` as they are. What depends on this machine (the interpreter, the places of
index and socket, a GPU, a remote store) goes into drop-ins beside them, and what the user changes with
``systemctl --user edit`` into yet another, which comes last.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from imagedbd.devices import has_gpu
from imagedbd.errors import NoSystemdError, ServiceError
from imagedbd.processes import has_systemd, python

if TYPE_CHECKING:
    from collections.abc import Mapping

    from imagedbd.config import Settings

SERVICE: Final = "imagedbd.service"
SOCKET: Final = "imagedbd.socket"
DEFAULT_SOCKET: Final = "imagedbd/imagedbd.sock"
"""Where the socket unit listens, below the user's runtime folder."""
LINGER_FOLDER: Final = "/var/lib/systemd/linger"
"""Where logind keeps a file for each user whose services run from boot on."""
SANDBOX_FAILED: Final = {
    217: "user namespaces",
    218: "capabilities",
    225: "a network namespace",
    226: "mount namespaces",
    228: "filters of system calls",
}
"""What systemd could not set up, by the exit status that it reports for it; see systemd.exec(5)."""

_REMEDIES: Final = {
    75: "Another daemon runs; stop that, then: imagedb service start",
    78: "`imagedbd check-config` checks the settings; then: imagedb service start",
    203: "The program is not where it was, or in /tmp, of which the service has one of its own; "
    "call it from where it is to stay: imagedb service install",
}
"""What helps after a failure, by the exit status; 203 is systemd's own."""

_CARRIED: Final = (
    "HF_HOME",
    "HF_HUB_CACHE",
    "PYTHONPATH",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
)
"""Variables of the shell, beside IMAGEDBD_*, that say where the program and its files are."""
_NOT_CARRIED: Final = frozenset({"IMAGEDBD_DEBUG"})
_INSTALLATION: Final = f"{SERVICE}.d/installation.conf"
_SOCKET_INSTALLATION: Final = f"{SOCKET}.d/installation.conf"
_DROP_INS: Final = ("gpu", "network", "no-sandbox")
_NOTICE: Final = (
    "# Written by `imagedb service install`; call it again after you moved the program, the index, the\n"
    "# settings or the socket. For changes of your own: `systemctl --user edit imagedbd`.\n"
)


@dataclass(frozen=True, slots=True)
class State:
    """How the service stands.

    :param active: systemd's word: ``active``, ``activating``, ``reloading``, ``failed``, ``inactive`` …
    :param result: why it ended, ``success`` if it did as it should.
    :param exit_status: of the last process that ended by itself.
    :param since: when it came into this state, as systemd writes it.
    :param at_login: whether it is started at login. :param lingers: whether the boot counts as one.
    """

    installed: bool
    active: str
    result: str
    exit_status: int
    pid: int | None
    restarts: int
    memory_bytes: int | None
    status: str
    since: str
    socket_active: str
    at_login: bool
    lingers: bool

    @property
    def runs(self) -> bool:
        return self.active in {"active", "reloading"}


def remedy(state: State) -> str:
    """What helps a service that failed."""
    if state.exit_status in SANDBOX_FAILED:
        return "imagedb service install --no-sandbox"
    default = "`imagedb service logs` says why; then: imagedb service start"
    return _REMEDIES.get(state.exit_status, default)


def unit_files(settings: Settings, environment: Mapping[str, str], *, sandbox: bool = True) -> dict[str, str]:
    """All that belongs into the folder of units for this very installation, by the paths below it.

    :param environment: of the shell that installs; the service has one of its own.
    :raises ServiceError: a path has characters that a unit cannot hold, or this installation has no units.
    """
    files = {name: _shipped(name) for name in (SERVICE, SOCKET)}
    files[_INSTALLATION] = _installation(settings, environment)
    if settings.socket != default_socket(environment):
        path = _escaped(settings.socket)
        files[_SOCKET_INSTALLATION] = f"{_NOTICE}[Socket]\nListenStream=\nListenStream={path}\n"
    wanted = {
        "gpu": settings.device != "cpu" and has_gpu(),
        "network": settings.store_uri is not None,
        "no-sandbox": not sandbox,
    }
    for name in _DROP_INS:
        if wanted[name]:
            files[f"{SERVICE}.d/{name}.conf"] = _shipped(f"drop-ins/{name}.conf")
    return files


def carried(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that the service takes along from the shell that installs it."""
    return {
        name: value
        for name, value in sorted(environment.items())
        if name not in _NOT_CARRIED and (name in _CARRIED or name.startswith("IMAGEDBD_"))
    }


def default_socket(environment: Mapping[str, str]) -> str:
    return os.path.join(runtime_folder(environment), DEFAULT_SOCKET)


def runtime_folder(environment: Mapping[str, str]) -> str:
    return environment.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"


def units_folder(environment: Mapping[str, str]) -> str:
    """Where the user's own units are."""
    home = environment.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return os.path.join(home, "systemd", "user")


def write_units(folder: str, files: Mapping[str, str]) -> None:
    """Put the units in place, and take away what an earlier installation had beside them."""
    remove_units(folder, keep=frozenset(files))
    for name, text in files.items():
        path = os.path.join(folder, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        # The environment that is carried over may hold a secret.
        with open(path, "w", encoding="utf-8", opener=_private) as file:
            file.write(text)


def remove_units(folder: str, *, keep: frozenset[str] = frozenset()) -> bool:
    """Remove what :func:`write_units` wrote, and nothing that the user added; says if anything was there."""
    drop_ins = [f"{SERVICE}.d/{name}.conf" for name in _DROP_INS]
    found = False
    for name in {SERVICE, SOCKET, _INSTALLATION, _SOCKET_INSTALLATION, *drop_ins} - keep:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(folder, name))
            found = True
    for unit in (SERVICE, SOCKET):
        with contextlib.suppress(OSError):  # it is not there, or holds what the user added
            os.rmdir(os.path.join(folder, f"{unit}.d"))
    return found


class UserManager:
    """The user's systemd, by way of systemctl.

    :raises ServiceError: there is none, or it cannot be reached; with what to do about it.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = {**environment, "XDG_RUNTIME_DIR": runtime_folder(environment)}
        if shutil.which("systemctl") is None or not has_systemd():
            raise NoSystemdError(
                "This machine is not run by systemd.",
                "Have whatever starts your session start this (cron does "
                f"it at boot, on a line that begins with @reboot): {' '.join(daemon_command())}",
            )
        asked = self._run("show", "--property=Version")
        if asked.returncode != 0:
            name = user_name()
            raise ServiceError(
                f"The systemd of {name} cannot be reached: {_last_line(asked.stderr)} Log in as {name}, not "
                f"by su or sudo, or have it run without a login: sudo loginctl enable-linger {name}"
            )

    def ask(self, *arguments: str) -> None:
        """:raises ServiceError: with systemd's own words."""
        done = self._run(*arguments)
        if done.returncode != 0:
            raise ServiceError(_last_line(done.stderr) or f"systemctl {arguments[0]} failed.")

    def state(self) -> State:
        service, socket = self._properties(SERVICE), self._properties(SOCKET)
        return State(
            installed="not-found" not in {service["LoadState"], socket["LoadState"]},
            active=service["ActiveState"],
            result=service["Result"],
            exit_status=_number(service["ExecMainStatus"]) or 0,
            pid=_number(service["MainPID"]),
            restarts=_number(service["NRestarts"]) or 0,
            memory_bytes=_number(service["MemoryCurrent"]),
            status=service["StatusText"],
            since=service["StateChangeTimestamp"],
            socket_active=socket["ActiveState"],
            at_login=service["UnitFileState"] == "enabled",
            lingers=os.path.exists(os.path.join(LINGER_FOLDER, user_name())),
        )

    def installed_state(self) -> State:
        """:raises ServiceError: there is no service."""
        state = self.state()
        if not state.installed:
            raise ServiceError("The service is not installed; this does it: imagedb service install")
        return state

    def _properties(self, unit: str) -> dict[str, str]:
        names = "LoadState,ActiveState,Result,ExecMainStatus,MainPID,NRestarts,MemoryCurrent,StatusText"
        done = self._run("show", f"--property={names},StateChangeTimestamp,UnitFileState", unit)
        if done.returncode != 0:
            raise ServiceError(_last_line(done.stderr) or "systemctl show failed.")
        empty = dict.fromkeys([*names.split(","), "StateChangeTimestamp", "UnitFileState"], "")
        return empty | dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["systemctl", "--user", "--no-pager", *arguments],
            env=self._environment, stdin=subprocess.DEVNULL, capture_output=True, check=False,
            text=True, errors="replace",
        )  # fmt: skip


def daemon_command() -> list[str]:
    return python("imagedbd", "run", "--no-pull")


def log_command(*, follow: bool, lines: int) -> list[str]:
    units = [f"--user-unit={unit}" for unit in (SERVICE, SOCKET)]
    return ["journalctl", *units, f"--lines={lines}", *(["--follow"] if follow else [])]


def user_name() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _installation(settings: Settings, environment: Mapping[str, str]) -> str:
    lines = ["ExecStart=", f"ExecStart={' '.join(_quoted(word) for word in daemon_command())}"]
    # Where an option or a variable moved them, the service must find them at the same place.
    places = {"IMAGEDBD_CONFIG": settings.config_file, "IMAGEDBD_DATA_DIR": settings.data_dir}
    variables = carried(environment) | places | {"IMAGEDBD_SOCKET": settings.socket}
    lines += [f"Environment={_quoted(f'{name}={value}')}" for name, value in variables.items()]
    written = (settings.data_dir, os.path.dirname(settings.socket))
    lines.append(f"ReadWritePaths={' '.join(_quoted(f'-{folder}') for folder in written)}")
    return "\n".join([f"{_NOTICE}[Service]", *lines, ""])


def _quoted(word: str) -> str:
    """A word of a unit's line. What dollars and backslashes mean there differs, so they are refused."""
    return f'"{_escaped(word)}"'


def _escaped(text: str) -> str:
    if not text.isprintable() or any(character in text for character in '"\\$'):
        raise ServiceError(
            f"A unit file cannot hold {text!r}: choose a place or a value of plain characters."
        )
    return text.replace("%", "%%")


def _shipped(name: str) -> str:
    """A file of ``systemd/``: beside the package in a wheel, above it in a clone."""
    package = os.path.dirname(os.path.abspath(__file__))
    for folder in (os.path.join(package, "systemd"), os.path.join(os.path.dirname(package), "systemd")):
        with (
            contextlib.suppress(FileNotFoundError),
            open(os.path.join(folder, name), encoding="utf-8") as file,
        ):
            return file.read()
    raise ServiceError(f"systemd/{name} is missing from this installation; install imagedbd again.")


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _number(text: str) -> int | None:
    """What a property holds; ``None`` for what systemd writes instead of nothing."""
    return int(text) if text.isdecimal() and 0 < int(text) < 1 << 62 else None


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""
