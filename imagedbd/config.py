"""Settings: defaults, then ``config.toml``, then ``IMAGEDBD_*``, then flags; the last one wins.

Folders follow the XDG Base Directory Specification. The file is the one place for lasting settings;
:func:`edit_roots` changes it and keeps its comments.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import re
import stat
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import platformdirs

from imagedbd.devices import check_device
from imagedbd.errors import ConfigError
from imagedbd.lookout import within
from imagedbd.text import fault
from imagedbd.toml_file import read_toml

if TYPE_CHECKING:
    from tomlkit import TOMLDocument

DEFAULT_MODELS: Final = {
    "lance": "ViT-B-16/laion2b_s34b_b88k",
    "faiss": "ViT-L-14/laion2b_s32b_b82k",
}
"""The model that a new store of each kind starts with, where none is named."""

ROOT_PATIENCE_S: Final = 5.0
"""How long the folders that the settings name may take to answer."""
SILENT_FOLDER: Final = (
    "A folder that the settings name does not answer, as on a share whose server is gone. "
    "`findmnt` shows what is mounted, and `umount -l` lets go of it."
)
MAX_SOCKET_PATH: Final = 107
"""Bytes that fit into ``sockaddr_un.sun_path`` with its closing NUL; see unix(7)."""

RUNTIME_FOLDERS: Final = "/run/user"
"""Where pam_systemd(8) makes the runtime folder of each user."""


@dataclass(frozen=True, slots=True)
class Overridden:
    """:param place: the flag or variable that goes before the file.
    :param filed: what the file says.
    """

    place: str
    filed: Any


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that can be set. Paths are absolute; times are in seconds, sizes in bytes."""

    config_file: str
    data_dir: str
    socket: str
    roots: tuple[str, ...] = ()
    store: str = "lance"
    store_uri: str | None = None
    storage_options: Mapping[str, str] = field(default_factory=dict)
    model: str = DEFAULT_MODELS["lance"]
    device: str = "auto"
    dtype: str = "auto"
    model_ttl: float = 1800.0
    keep_text_tower: bool = False
    settle: float = 1.0
    settle_max: float = 6.0
    rescan: float = 6 * 3600.0
    rescan_unheard: float = 60.0
    ignore: tuple[str, ...] = ()
    max_file_size: int = 1 << 30
    max_pixels: int = 250_000_000
    decoders: int = 0
    decode_timeout: float = 60.0
    decode_memory: int = 4 << 30
    max_cpu: int = 0
    on_battery: str = "index"
    min_free: int = 100 << 20
    log_level: str = "info"
    named: frozenset[str] = frozenset()
    """The settings that somebody set, wherever; the others have their defaults."""
    overridden: Mapping[str, Overridden] = field(default_factory=dict)
    """The settings of which the file says something else than what holds."""
    fixed_roots: tuple[str, ...] = ()
    """The roots that flags or a variable name: the file has no say in them."""
    places: Mapping[str, str] = field(default_factory=dict)
    """The flag or variable of each setting that one of them set."""


ABOUT_SETTINGS: Final = frozenset({"named", "overridden", "fixed_roots", "places"})
"""Fields that tell of the settings, and are none."""


def load_settings(
    overrides: Mapping[str, Any] | None = None, environ: Mapping[str, str] | None = None
) -> Settings:
    """Read and check all the places where a setting may stand, to the end, whatever is wrong in them.

    :param overrides: values of flags by setting name; ``None`` means that the flag was not given.
        ``roots`` are added to those of the file, every other value replaces what the file says.
    :raises ConfigError: of each fault, the place (file and line, variable or flag) and the reason.
    """
    faults = _Faults()
    env = os.environ if environ is None else environ
    flags = {name: value for name, value in (overrides or {}).items() if value is not None}
    places = _place_of_file(flags, env)
    config_file = settings_place(flags.pop("config_file", None), env)
    flag_roots: tuple[str, ...] = ()
    with faults.noted():
        flag_roots = _parse("--root", "roots", flags.pop("roots", ()))

    filed = dict(_parsed(config_file, read_toml(config_file), faults))
    values = dict(filed)
    for name in _PARSERS:
        if (text := env.get(_variable(name))) is not None:
            places[name] = _variable(name)
            with faults.noted():
                values[name] = _parse(places[name], name, _from_text(name, text))
    for name, value in flags.items():
        places[name] = f"--{name.replace('_', '-')}"
        with faults.noted():
            values[name] = _parse(places[name], name, value)

    values["overridden"] = {
        name: Overridden(place, filed[name])
        for name, place in places.items()
        if name in filed and filed[name] != values.get(name)
    }
    values["named"] = frozenset({*filed, *places}) - {"config_file"}
    variable_roots = values.get("roots", ()) if "roots" in places else ()
    values["fixed_roots"] = tuple(dict.fromkeys((*variable_roots, *flag_roots)))
    if flag_roots:
        places["roots"] = "--root"
    values["places"] = places
    values["roots"] = tuple(dict.fromkeys((*values.get("roots", ()), *flag_roots)))
    values.setdefault("data_dir", str(platformdirs.user_data_path("imagedbd")))
    values.setdefault("socket", _default_socket(env, values["data_dir"]))
    values.setdefault("model", DEFAULT_MODELS[values.get("store", "lance")])
    with faults.noted():
        _check_store(values, config_file)
    with faults.noted():
        _check_device(values, config_file)
    with faults.noted():
        _check_socket(values["socket"])
    faults.check()
    return Settings(config_file=config_file, **values)


def settings_soon(load: Callable[[], Settings]) -> Settings:
    """The settings, unless a root hangs: whoever asks why it does must not hang as well.

    :raises ConfigError: a root does not answer in time, or what ``load`` raises.
    """
    try:
        return within(ROOT_PATIENCE_S, load)
    except TimeoutError:
        raise ConfigError(SILENT_FOLDER) from None


def socket_place(overrides: Mapping[str, Any] | None = None, environ: Mapping[str, str] | None = None) -> str:
    """Where the daemon is to be found: all that a question to it needs, whatever else a settings file says.

    :param overrides: as for :func:`load_settings`. A fault in the file counts for nothing here.
    :raises ConfigError: a flag or a variable names no path.
    """
    env = os.environ if environ is None else environ
    named, data_dir = _places(overrides, env)
    return named or _default_socket(env, data_dir)


def spare_socket(
    overrides: Mapping[str, Any] | None = None, environ: Mapping[str, str] | None = None
) -> str | None:
    """Where a daemon may listen that was started before this user's login made a runtime folder.

    :param overrides: as for :func:`socket_place`.
    :returns: a socket of this user's in a folder that is private to this user; ``None`` if there is none, or
        if a setting says where the daemon is.
    :raises ConfigError: as :func:`socket_place`.
    """
    named, data_dir = _places(overrides, os.environ if environ is None else environ)
    spare = _join_data(data_dir)
    return spare if named is None and _is_private(os.path.dirname(spare)) and _is_own_socket(spare) else None


def _places(overrides: Mapping[str, Any] | None, env: Mapping[str, str]) -> tuple[str | None, str]:
    """The socket that a setting names, and the data folder."""
    flags = {name: value for name, value in (overrides or {}).items() if value is not None}
    places = dict(_filed_places(settings_place(flags.get("config_file"), env)))
    for name in ("data_dir", "socket"):
        if (value := flags.get(name, env.get(_variable(name)))) is not None:
            places[name] = _parse(
                f"--{name.replace('_', '-')}" if name in flags else _variable(name), name, value
            )
    return places.get("socket"), places.get("data_dir", str(platformdirs.user_data_path("imagedbd")))


def settings_place(flag: str | None = None, environ: Mapping[str, str] | None = None) -> str:
    """Which file the settings are in, whether it is there or not.

    :param flag: the file that an option named.
    """
    env = os.environ if environ is None else environ
    return _absolute(flag or env.get("IMAGEDBD_CONFIG") or _config_file())


def default_settings(config_file: str, environ: Mapping[str, str] | None = None) -> Settings:
    """The settings of somebody who set none."""
    data_dir = str(platformdirs.user_data_path("imagedbd"))
    return Settings(
        config_file, data_dir, _default_socket(os.environ if environ is None else environ, data_dir)
    )


def edit_setting(config_file: str, name: str, value: str) -> None:
    """Set one setting in the file, which is made if it is not there; comments stay.

    :param name: ``store`` (of which a table keeps its other keys) or ``model``.
    :raises ConfigError: if the file cannot be read or written, or would keep a daemon from starting
        afterwards; it is as it was.
    """
    import tomlkit

    try:
        path = Path(config_file)
        document = _document(path)
        if name == "store" and isinstance(document.get(name), Mapping):
            document[name]["kind"] = value
        else:
            document[name] = value
        text = tomlkit.dumps(document)
        _check_filed(config_file, tomllib.loads(text))
        write_settings_file(path, text)
    except (OSError, UnicodeError, tomlkit.exceptions.TOMLKitError) as error:
        raise ConfigError(f"{config_file} cannot be changed: {fault(error)}.") from error


def edit_roots(config_file: str, *, add: str | None = None, remove: str | None = None) -> bool:
    """Add or remove one root in the file, which is made if it is not there; comments stay.

    :returns: whether the file was changed.
    :raises ConfigError: if the file cannot be read or written.
    """
    import tomlkit

    try:
        path = Path(config_file)
        document = _document(path)
        listing = document.setdefault("roots", tomlkit.array())
        roots = [resolve_root(root) for root in _check_list(config_file, listing)]
        changed = False
        for index in reversed(range(len(roots))):
            if roots[index] == remove:
                del listing[index]
                changed = True
        if add is not None and add not in roots:
            listing.append(add)
            changed = True
        if not changed:
            return False
        write_settings_file(path, tomlkit.dumps(document))
    except (OSError, UnicodeError, tomlkit.exceptions.TOMLKitError) as error:
        raise ConfigError(f"{config_file} cannot be changed: {fault(error)}.") from error
    return True


def move_root(config_file: str, old: str, new: str) -> bool:
    """Put one root in the place of another in the file; comments stay.

    :param old: as the daemon has it, or as it stands in the file: it may have become a link to the new one.
    :returns: whether the file has the old one; if not, it is as it was.
    :raises ConfigError: if the file cannot be read or written.
    """
    import tomlkit

    try:
        path = Path(config_file)
        document = _document(path)
        listing = document.get("roots", [])
        roots = _check_list(config_file, listing)
        found = [i for i, root in enumerate(roots) if old in {plain_path(root), resolve_root(root)}]
        if not found:
            return False
        others = {resolve_root(root) for i, root in enumerate(roots) if i not in found}
        if new not in others:
            listing[found.pop(0)] = new
        for index in reversed(found):
            del listing[index]
        write_settings_file(path, tomlkit.dumps(document))
    except (OSError, UnicodeError, tomlkit.exceptions.TOMLKitError) as error:
        raise ConfigError(f"{config_file} cannot be changed: {fault(error)}.") from error
    return True


def _document(path: Path) -> TOMLDocument:
    """The file with its comments.

    :raises ConfigError: it cannot be read; a fault in it is told as everywhere.
    """
    import tomlkit

    read_toml(str(path))
    return tomlkit.parse(path.read_text(encoding="utf-8") if path.exists() else "")


def plain_path(path: str) -> str:
    """A path made absolute, its symbolic links left alone."""
    return os.path.abspath(os.path.expanduser(path))


def resolve_root(path: str) -> str:
    """A root as settings hold it: absolute and without symbolic links, whether it is there or not."""
    return os.path.realpath(os.path.expanduser(path))


def _place_of_file(flags: Mapping[str, Any], env: Mapping[str, str]) -> dict[str, str]:
    if "config_file" in flags:
        return {"config_file": "--config"}
    return {"config_file": "IMAGEDBD_CONFIG"} if env.get("IMAGEDBD_CONFIG") else {}


def _config_file() -> str:
    return str(platformdirs.user_config_path("imagedbd") / "config.toml")


def _default_socket(env: Mapping[str, str], data_dir: str) -> str:
    runtime = env.get("XDG_RUNTIME_DIR") or _runtime_folder()
    return os.path.join(runtime, "imagedbd", "imagedbd.sock") if runtime else _join_data(data_dir)


def _runtime_folder() -> str | None:
    """The one that a login made for this user: cron, say, is not told of it, and needs it too."""
    folder = os.path.join(RUNTIME_FOLDERS, str(os.geteuid()))
    return folder if _is_private(folder) else None


def _is_private(folder: str) -> bool:
    """Whether it is a folder that this user alone can put something into, or look into."""
    try:
        found = os.lstat(folder)
    except OSError:
        return False
    is_own = found.st_uid == os.geteuid() and not found.st_mode & 0o077
    return is_own and stat.S_ISDIR(found.st_mode)


def _is_own_socket(path: str) -> bool:
    try:
        found = os.lstat(path)
    except OSError:
        return False
    return found.st_uid == os.geteuid() and stat.S_ISSOCK(found.st_mode)


def _filed_places(config_file: str) -> Iterator[tuple[str, str]]:
    """Folder and socket, as far as the file can be read."""
    with contextlib.suppress(ConfigError):
        content = read_toml(config_file)
        for name in ("data_dir", "socket"):
            with contextlib.suppress(ValueError, KeyError):
                yield name, _path(content[name])


def _join_data(data_dir: str) -> str:
    # Without a login session there is no runtime folder; the data folder is private to the user as well.
    return os.path.join(data_dir, "run", "imagedbd.sock")


def _absolute(path: str) -> str:
    return os.path.abspath(os.path.expanduser(path))


def _variable(name: str) -> str:
    return f"IMAGEDBD_{name.upper()}"


class _Faults:
    """What is found wrong, to be told together."""

    def __init__(self) -> None:
        self._found: list[str] = []

    @contextlib.contextmanager
    def noted(self) -> Iterator[None]:
        """Go on after a fault."""
        try:
            yield
        except ConfigError as error:
            self._found.extend(error.faults)

    def check(self) -> None:
        """:raises ConfigError: something was found."""
        if self._found:
            raise ConfigError(*self._found)


def _check_filed(config_file: str, content: Mapping[str, Any]) -> None:
    """:raises ConfigError: a file of this content would keep a daemon from starting."""
    faults = _Faults()
    values = dict(_parsed(config_file, content, faults))
    with faults.noted():
        _check_store(values, config_file)
    faults.check()


def _parsed(config_file: str, content: Mapping[str, Any], faults: _Faults) -> Iterator[tuple[str, Any]]:
    """What a file says, by the names of the settings, and the values as they are held.

    :param faults: gets what is unknown or faulty, which is left out.
    """
    known = [name for name in _PARSERS if name not in _IN_STORE.values()]
    for name, value in content.items():
        with faults.noted():
            _check_known(name, known, name, config_file)
            for setting, key, part in _settings_of(name, value, config_file, faults):
                with faults.noted():
                    yield setting, _parse(place_in_file(config_file, key), setting, part, key)


def _check_store(values: Mapping[str, Any], config_file: str) -> None:
    """:raises ConfigError: kind and address of the store do not go together."""
    if values.get("store_uri") and values.get("store", "lance") != "lance":
        place = values.get("places", {}).get("store_uri") or place_in_file(config_file, "store.uri")
        raise ConfigError(
            f"{place}: store.uri: {values['store_uri']} is for LanceDB alone: set store.kind to lance."
        )


def _check_device(values: Mapping[str, Any], config_file: str) -> None:
    """:raises ConfigError: this machine cannot have what somebody named."""
    named = [name for name in ("device", "dtype") if name in values["named"]]
    chosen = {"device": values.get("device", "auto"), "dtype": "auto"}
    for name in named:
        chosen[name] = values.get(name, "auto")
        try:
            check_device(**chosen)
        except ConfigError as error:
            place = values["places"].get(name) or place_in_file(config_file, name)
            raise ConfigError(f"{place}: {name}: {error.message}") from error


def _check_socket(path: str) -> None:
    """:raises ConfigError: it is too long for a socket."""
    if len(os.fsencode(path)) > MAX_SOCKET_PATH:
        raise ConfigError(
            f"The socket's path is longer than the {MAX_SOCKET_PATH} bytes that a Unix socket may have: "
            f"{path}. Name a shorter one with --socket or IMAGEDBD_SOCKET."
        )


_IN_STORE: Final = {"uri": "store_uri", "storage_options": "storage_options"}
"""Settings that stand in the file as keys of a ``[store]`` table, beside its ``kind``."""

FILE_KEYS: Final = {name: f"store.{key}" for key, name in _IN_STORE.items()}
"""What the file calls those settings that it has another name for."""


def _settings_of(name: str, value: Any, config_file: str, faults: _Faults) -> Iterator[tuple[str, str, Any]]:
    """A top-level key of the file as settings, each with its own key: ``store`` may be a table of several."""
    if name != "store" or not isinstance(value, Mapping):
        yield name, name, value
        return
    names = {"kind": "store", **_IN_STORE}
    for key, part in value.items():
        with faults.noted():
            _check_known(key, list(names), f"store.{key}", config_file)
            yield names[key], f"store.{key}", part


def _check_known(key: str, known: Sequence[str], shown: str, config_file: str) -> None:
    if key in known:
        return
    close = difflib.get_close_matches(key, known, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else f" There are: {', '.join(known)}."
    raise ConfigError(f"{place_in_file(config_file, shown)}: unknown setting {shown!r}.{hint}")


def _place(config_file: str, name: str) -> str:
    """Where a top-level key stands, as ``file, line n``; tomllib itself does not tell."""
    pattern = re.compile(rf"^\s*[\[\"']*{re.escape(name)}\b", re.MULTILINE)
    try:
        text = Path(config_file).read_text(encoding="utf-8")
    except OSError:
        return config_file
    found = pattern.search(text)
    return f"{config_file}, line {text.count(chr(10), 0, found.end()) + 1}" if found else config_file


def place_in_file(config_file: str, key: str) -> str:
    """Where the file sets something, as ``file, line n``. :param key: such as ``model`` or ``store.uri``."""
    # Dotted, or in its table, or in one that stands on a line.
    places = (_place(config_file, part) for part in (key, key.rpartition(".")[2], key.partition(".")[0]))
    return next((place for place in places if place != config_file), config_file)


def _parse(place: str, name: str, value: Any, shown: str | None = None) -> Any:
    """:param shown: what the setting is called at that place, if not by its name."""
    try:
        return _PARSERS[name](value)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{place}: {shown or name}: {error}.") from error


def _check_list(place: str, value: Any) -> tuple[str, ...]:
    try:
        return _text_list(value)
    except ValueError as error:
        raise ConfigError(f"{place}: roots: {error}.") from error


def _from_text(name: str, text: str) -> Any:
    if name in {"roots", "ignore"}:
        return [part for part in text.split(os.pathsep) if part]
    if name == "storage_options":
        return dict(part.partition("=")[::2] for part in text.split(",") if part)
    return text


def write_settings_file(path: Path, text: str) -> None:
    """Write the file whole or not at all, through a link; the permissions of one that is there stay.

    :raises OSError: it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    target = Path(os.path.realpath(path))
    draft = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        with draft.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        if target.exists():
            draft.chmod(target.stat().st_mode & 0o7777)
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)


def _path(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("expected a path")
    return _absolute(value)


def _root_list(value: Any) -> tuple[str, ...]:
    return tuple(dict.fromkeys(resolve_root(root) for root in _text_list(value)))


def _text_list(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) and item for item in value):
        raise ValueError('expected a list of strings, such as ["~/Pictures"]')
    return tuple(value)


def _uri(value: Any) -> str:
    if not isinstance(value, str) or "://" not in value:
        raise ValueError(f"{value!r} is no address such as s3://bucket/index or db://database")
    if value.startswith(("file:", "memory:", "shared-memory:")):
        raise ValueError("a store on this machine is in the data folder: set data_dir instead")
    return value


def _text_map(value: Any) -> dict[str, str]:
    if not isinstance(value, Mapping) or not all(isinstance(v, str | int | bool) for v in value.values()):
        raise ValueError('expected a table of strings, such as { region = "eu-central-1" }')
    return {str(key): str(v).lower() if isinstance(v, bool) else str(v) for key, v in value.items()}


def _choice(*choices: str) -> Callable[[Any], str]:
    def parse(value: Any) -> str:
        if value not in choices:
            raise ValueError(f"{value!r} is not one of {', '.join(choices)}")
        return str(value)

    return parse


_DEVICE = re.compile(r"auto|cpu|mps|(cuda|xpu)(:\d+)?")


def _device(value: Any) -> str:
    if not isinstance(value, str) or not _DEVICE.fullmatch(value):
        raise ValueError(f"{value!r} is not a device; use auto, cpu, cuda, cuda:1, xpu or mps")
    return value


def parse_model(value: Any) -> str:
    """A model's name as settings hold it.

    :raises ValueError: if it is none.
    :raises TypeError: if it is no text.
    """
    if not isinstance(value, str):
        raise TypeError("expected a model's name")
    if value == "demo" or (value.startswith("hf-hub:") and len(value) > len("hf-hub:")):
        return value
    if value.startswith("local-dir:") and len(value) > len("local-dir:"):
        return "local-dir:" + _absolute(value.removeprefix("local-dir:"))
    architecture, slash, tag = value.partition("/")
    if not (architecture and slash and tag):
        raise ValueError(
            f"{value!r} is not a model; use ARCHITECTURE/TAG as `imagedb model list` prints them "
            "(ViT-B-16/laion2b_s34b_b88k), hf-hub:OWNER/NAME, local-dir:FOLDER or demo"
        )
    return value


def _positive_duration(value: Any) -> float:
    if not (seconds := parse_duration(value)):
        raise ValueError("must be more than 0")
    return seconds


_UNITS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


def parse_duration(value: Any) -> float:
    """Seconds from a number or from text such as ``1.5s``, ``30m``, ``2h``, ``1d``.

    :raises ValueError: if it is neither, or negative.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)
    found = (
        re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", value.strip().lower()) if isinstance(value, str) else None
    )
    if not found or found[2] not in _UNITS:
        raise ValueError(f"{value!r} is not a duration; use seconds or 30m, 2h, 1d")
    return float(found[1]) * _UNITS[found[2]]


_SIZES = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


def _size(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise TypeError("expected a size such as 500M")
    found = re.fullmatch(r"(\d+)\s*([kmg]?)i?b?", str(value).strip().lower())
    if not found or int(found[1]) == 0:
        raise ValueError(f"{value!r} is not a size; use bytes or 500M, 2G")
    return int(found[1]) * _SIZES[found[2]]


def _switch(value: Any) -> bool:
    """TOML's own, and the words of variables."""
    known = {"true": True, "false": False}
    if (found := known.get(str(value).lower())) is None:
        raise ValueError(f"{value!r} is neither true nor false")
    return found


def _positive_count(value: Any) -> int:
    if not (count := _count(value)):
        raise ValueError("must be more than 0")
    return count


def _count(value: Any) -> int:
    if isinstance(value, bool) or not re.fullmatch(r"\d{1,12}", str(value)):
        raise ValueError(f"{value!r} is not a whole number")
    return int(value)


def _percent(value: Any) -> int:
    """Per cent as a number or as text such as ``50%``; 0 is no bound."""
    if (share := _count(str(value).removesuffix("%") if isinstance(value, str) else value)) > 100:
        raise ValueError(f"{value!r} is more than 100 %")
    return share


_PARSERS: Final[dict[str, Callable[[Any], Any]]] = {
    "roots": _root_list,
    "data_dir": _path,
    "socket": _path,
    "store": _choice("lance", "faiss"),
    "store_uri": _uri,
    "storage_options": _text_map,
    "model": parse_model,
    "device": _device,
    "dtype": _choice("auto", "fp32", "bf16", "fp16"),
    "model_ttl": parse_duration,
    "keep_text_tower": _switch,
    "settle": parse_duration,
    "settle_max": parse_duration,
    "rescan": _positive_duration,
    "rescan_unheard": _positive_duration,
    "ignore": _text_list,
    "max_file_size": _size,
    "max_pixels": _positive_count,
    "decoders": _count,
    "decode_timeout": _positive_duration,
    "decode_memory": _size,
    "max_cpu": _percent,
    "on_battery": _choice("index", "pause"),
    "min_free": _size,
    "log_level": _choice("debug", "info", "warning", "error"),
}

if set(_PARSERS) | {"config_file"} | ABOUT_SETTINGS != {field.name for field in fields(Settings)}:
    raise AssertionError("every setting has a parser, and every parser a setting")

SETTING_VARIABLES: Final = frozenset(map(_variable, _PARSERS))
DURATIONS: Final = frozenset(
    name for name, parse in _PARSERS.items() if parse in {parse_duration, _positive_duration}
)
"""Settings that are held in seconds."""
SIZES: Final = frozenset(name for name, parse in _PARSERS.items() if parse is _size)
"""Settings that are held in bytes."""
