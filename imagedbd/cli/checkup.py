"""What ``imagedb doctor`` looks at. Each check yields findings and never raises for what it finds."""

from __future__ import annotations

import os
import shlex
import shutil
import stat
import sys
import time
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any, Final, Literal

from imagedbd import __version__
from imagedbd.cli import service as commands
from imagedbd.cli.output import byte_size, count, home_path
from imagedbd.errors import (
    ConfigError,
    DaemonNotRunningError,
    ImagedbError,
    ServiceError,
    StoreUnreadableError,
)
from imagedbd.generations import generations_of, noted_damage
from imagedbd.readers import READERS
from imagedbd.service import UserManager, remedy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from imagedbd.cli.target import Target
    from imagedbd.config import Settings
    from imagedbd.readers import Reader
    from imagedbd.service import State

REPAIR: Final = "imagedbd repair"
LOW_SPACE: Final = 1_000_000_000
"""Bytes free below which an index may run out of room soon."""
COUNTING_S: Final = 5.0
"""Seconds that counting folders may take."""
PACKAGES: Final = (
    "torch",
    "torchvision",
    "open_clip_torch",
    "lancedb",
    "faiss-cpu",
    "pandas",
    "pillow",
    "watchdog",
    "fastapi",
    "uvicorn",
)
FORMATS: Final = {
    "jpg": "JPEG",
    "zlib": "PNG",
    "libtiff": "TIFF",
    "webp": "WebP",
    "avif": "AVIF",
    "jpg_2000": "JPEG 2000",
}
WATCH_LIMIT: Final = "/proc/sys/fs/inotify/max_user_watches"


@dataclass(frozen=True, slots=True)
class Finding:
    """:param level: a note is worth knowing; a problem keeps something from working."""

    check: str
    level: Literal["ok", "note", "problem"]
    finding: str
    fix: str | None = None

    def public(self) -> dict[str, Any]:
        return asdict(self)


def examine(target: Target) -> Iterator[Finding]:
    """All findings, from the ground up. Without valid settings there is nothing to look at beyond them."""
    yield from _programs()
    yield from _formats()
    try:
        settings = target.settings
    except ConfigError as error:
        yield Finding(
            "settings", "problem", error.message, "Edit the file; `imagedbd check-config` checks it."
        )
        return
    yield _settings(settings)
    status, answer = _ask(target)
    yield from _data_folder(settings if status is None else _as_running(settings, status))
    yield from _socket(settings)
    yield answer
    yield from _service()
    yield _model(settings, status)
    yield from _differences(status)
    roots = settings.roots if status is None else [str(root["path"]) for root in status["roots"]]
    yield from _roots(roots, status)
    yield from _watches(roots)


def _programs() -> Iterator[Finding]:
    yield Finding("python", "ok", f"Python {sys.version.split()[0]}, imagedbd {__version__}")
    versions = {name: _version(name) for name in PACKAGES}
    missing = [name for name, version in versions.items() if version is None]
    if missing:
        yield Finding(
            "packages", "problem", f"Not installed: {', '.join(missing)}.",
            f"{sys.executable} -m pip install {' '.join(missing)}",
        )  # fmt: skip
    found = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    yield Finding("packages", "ok", found)
    if _build(versions["torch"]) != _build(versions["torchvision"]):
        yield Finding(
            "packages", "problem",
            f"torch {versions['torch']} and torchvision {versions['torchvision']} are of different builds.",
            "Install both from the same index: `pip install --force-reinstall torch torchvision`.",
        )  # fmt: skip


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _build(version: str | None) -> str:
    # "+cpu" beside a build without a suffix fails on import: the two are compiled against each other.
    return version.partition("+")[2] if version else ""


def _formats() -> Iterator[Finding]:
    try:
        from PIL import features
    except ImportError as error:
        yield Finding(
            "formats",
            "problem",
            f"Pillow cannot be imported: {error}.",
            "pip install --force-reinstall pillow",
        )
        return
    there = {name: bool(features.check(key)) for key, name in FORMATS.items()}
    absent = [name for name, has in there.items() if not has]
    readable = ", ".join(name for name, has in there.items() if has)
    if not absent:
        yield Finding("formats", "ok", f"{readable}, GIF, BMP and PNM are read by Pillow.")
    else:
        yield Finding(
            "formats", "note", f"This build of Pillow reads {readable}, but not {', '.join(absent)}.",
            "Ready-made wheels have them all: pip install --force-reinstall --only-binary :all: pillow",
        )  # fmt: skip
    yield from (_reader(reader) for reader in READERS)


def _reader(reader: Reader) -> Finding:
    if not reader.is_installed():
        return Finding("formats", "note", reader.why_missing, f"{reader.command}, and restart the daemon")
    version = _version(reader.package) or "of an unknown version"
    return Finding("formats", "ok", f"{reader.formats} are read by {reader.package} {version}.")


def _settings(settings: Settings) -> Finding:
    file = home_path(settings.config_file)
    if not os.path.exists(settings.config_file):
        return Finding("settings", "ok", f"{file} is not there, so everything is as by default.")
    return Finding("settings", "ok", f"{file} is valid.")


def _ask(target: Target) -> tuple[dict[str, Any] | None, Finding]:
    try:
        status = target.client.status()
    except DaemonNotRunningError as error:
        is_damaged = noted_damage(target.settings.data_dir)
        fix = f"{REPAIR} && imagedbd run" if is_damaged else "imagedbd run"
        return None, Finding("daemon", "problem", error.message, fix)
    except ImagedbError as error:
        return None, Finding("daemon", "problem", error.message, "Stop the daemon and start it again.")
    if status.get("version") != __version__:
        said = f"It answers, and is version {status.get('version')}; this command is {__version__}."
        return status, Finding("daemon", "problem", said, "Stop the daemon and start it again.")
    doing = str(status.get("doing"))
    # A fault that damage would explain names what mends it, before a look through the files has proved it.
    if status.get("state") == "damaged" or (status.get("state") == "blocked" and REPAIR in doing):
        return status, Finding("daemon", "problem", doing, f"Stop the daemon, run `{REPAIR}`, start it.")
    if status.get("state") == "blocked":
        return status, Finding("daemon", "problem", doing, "Make room or repair the disk.")
    return status, Finding(
        "daemon", "ok", f"It answers, as process {status.get('pid')}: {status.get('doing')}"
    )


def _service() -> Iterator[Finding]:
    try:
        state = UserManager(os.environ).state()
    except ServiceError as error:
        yield Finding("service", "note", error.message)
        return
    if not state.installed:
        said = "systemd does not keep the daemon running: the service is not installed."
        yield Finding("service", "note", said, "imagedb service install")
        return
    yield _service_now(state)
    if not state.at_login:
        yield Finding("service", "note", "It is not started at login.", "imagedb service install")
    elif not state.lingers:
        said = "It runs only while you are logged in."
        yield Finding("service", "note", said, "imagedb service install --linger")


def _service_now(state: State) -> Finding:
    words = commands.in_words(state)
    if state.active == "failed":
        return Finding("service", "problem", words, remedy(state))
    if state.active == "inactive" and state.socket_active == "active":
        return Finding("service", "ok", f"{words}; the next question starts it")
    if state.active == "inactive":
        return Finding("service", "note", words, "imagedb service start")
    return Finding("service", "ok", words)


@dataclass(frozen=True, slots=True)
class _Running:
    """The settings of a daemon that runs, where they may differ from what this command would find."""

    data_dir: str
    store: str
    place: str


def _as_running(settings: Settings, status: dict[str, Any]) -> _Running:
    store = status["store"]
    return _Running(str(status.get("data_dir") or settings.data_dir), str(store["kind"]), str(store["uri"]))


def _data_folder(settings: Settings | _Running) -> Iterator[Finding]:
    folder, shown = settings.data_dir, home_path(settings.data_dir)
    if not os.path.isdir(folder):
        yield Finding("data", "note", f"{shown} is not there yet.", "The daemon makes it at its first start.")
        folder = _nearest_folder(folder)
    if not os.access(folder, os.W_OK | os.X_OK):
        yield Finding(
            "data", "problem", f"{home_path(folder)} cannot be written to.",
            f"{_ours(folder, 'u+rwx')}, or name another folder with data_dir.",
        )  # fmt: skip
        return
    free = shutil.disk_usage(folder).free
    said = f"{byte_size(free)} free at {home_path(folder)}."
    if free < LOW_SPACE:
        yield Finding("data", "problem", said, "Make room, or move the data folder with data_dir.")
    else:
        yield Finding("data", "ok", said)
    try:
        running = settings if isinstance(settings, _Running) else _as_left(settings)
    except StoreUnreadableError as error:
        yield Finding("index", "problem", error.message, REPAIR)
        return
    # While a daemon answers, it is the one who knows.
    damage = noted_damage(settings.data_dir) if not isinstance(settings, _Running) else None
    yield Finding("index", "problem", damage, REPAIR) if damage else _index_files(running)


def _as_left(settings: Settings) -> _Running:
    """What the last daemon left, or the next one will make."""
    active = generations_of(settings).active
    return _Running(settings.data_dir, active.kind, active.where(settings.data_dir))


def _ours(folder: str, mode: str) -> str:
    """What lets this user into a folder: of one's own, permissions; of somebody else's, the owner may."""
    quoted = shlex.quote(folder)
    if os.stat(folder).st_uid == os.geteuid():
        return f"chmod {mode} {quoted}"
    return f"sudo setfacl -m u:$USER:{mode.removeprefix('u+')} {quoted}"


def _nearest_folder(path: str) -> str:
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path


def _index_files(left: _Running) -> Finding:
    parts = {"ledger": os.path.join(left.data_dir, "ledger.sqlite3"), "store": left.place}
    there = {name for name, path in parts.items() if "://" in path or os.path.exists(path)}
    if there == set(parts):
        return Finding("index", "ok", f"The ledger and the {left.store} store are there.")
    if there:
        lost = next(iter(set(parts) - there))
        return Finding(
            "index", "note", f"The {lost} is not there.", "The daemon builds it anew when it starts."
        )
    return Finding("index", "note", "There is no index yet.", "`imagedbd run` makes it.")


def _socket(settings: Settings) -> Iterator[Finding]:
    folder = os.path.dirname(settings.socket)
    try:
        found = os.stat(folder)
    except OSError:
        return  # whether somebody answers is the next finding
    if found.st_uid != os.geteuid():
        yield Finding(
            "socket",
            "problem",
            f"{home_path(folder)} belongs to another user.",
            "Name another place with --socket.",
        )
    elif stat.S_IMODE(found.st_mode) & 0o077:
        yield Finding(
            "socket", "note", f"Others can look into {home_path(folder)}; the daemon refuses them anyhow.",
            f"chmod 700 {shlex.quote(folder)}",
        )  # fmt: skip
    else:
        yield Finding("socket", "ok", f"{home_path(settings.socket)} is private.")


def _model(settings: Settings, status: dict[str, Any] | None) -> Finding:
    if status is None:
        return Finding("model", "note", f"{settings.model} is in the settings; the daemon would know more.")
    model = status["model"]
    if model["state"] == "unavailable":
        ways = " or ".join(model.get("help") or ["imagedb model pull", "imagedb model use demo"])
        return Finding("model", "problem", f"{model['name']}: {model.get('reason')}", ways)
    return Finding("model", "ok", f"{model['name']} is {model['state']}.")


def _differences(status: dict[str, Any] | None) -> Iterator[Finding]:
    for difference in status.get("differences", ()) if status else ():
        yield Finding("settings", "note", difference["finding"], difference["help"])


def _roots(roots: Sequence[str], status: dict[str, Any] | None) -> Iterator[Finding]:
    if not roots:
        yield Finding("folders", "problem", "No folder is watched.", "imagedb root add DIR")
    states = {root["path"]: root for root in status["roots"]} if status else {}
    for root in roots:
        yield _root(root, states.get(root))


def _root(root: str, known: dict[str, Any] | None) -> Finding:
    shown = home_path(root)
    if not os.path.isdir(root):
        fix = "Mount or plug it in; its pictures stay in the index. Or: imagedb root remove DIR"
        return Finding("folders", "problem", f"{shown} is not there.", fix)
    if not os.access(root, os.R_OK | os.X_OK):
        return Finding("folders", "problem", f"{shown} cannot be read.", _ours(root, "u+rx"))
    if known and known["state"] in {"offline", "degraded"}:
        fix = "`imagedb scan` looks again; `imagedb why FOLDER` says more."
        return Finding("folders", "problem", f"{shown} is {known['state']}: {known.get('reason')}", fix)
    return Finding("folders", "ok", f"{shown} can be read.")


def _watches(roots: Sequence[str]) -> Iterator[Finding]:
    try:
        with open(WATCH_LIMIT, encoding="ascii") as file:
            limit = int(file.read())
    except (OSError, ValueError):
        return  # no inotify here, so no limit either
    folders, whole = _count_folders(roots, limit, time.monotonic)
    said = f"{count(folders, 'folder')}{'' if whole else ' or more'}, and {limit:,} can be watched by a user."
    if folders >= limit:
        raised = f"fs.inotify.max_user_watches={max(524_288, 4 * limit)}"
        fix = f"echo {raised} | sudo tee /etc/sysctl.d/60-inotify.conf && sudo sysctl --system"
        yield Finding("watches", "problem", said, fix)
    else:
        yield Finding("watches", "ok", said)


def _count_folders(roots: Sequence[str], enough: int, clock: Callable[[], float]) -> tuple[int, bool]:
    """How many folders there are, and whether all were counted in the time that a user would wait."""
    deadline, number = clock() + COUNTING_S, 0
    for root in roots:
        for _ in os.walk(root):
            number += 1
            if number > enough or clock() > deadline:
                return number, False
    return number, True
