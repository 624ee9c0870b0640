"""The settings file as it is first written: every setting with its default, and what it means.

Each line that begins with ``#`` and a name is a setting at its default: whoever changes one takes the ``#``
away. What is not set there follows the defaults of the version that runs.
"""

from __future__ import annotations

import json
import os
import textwrap
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from imagedbd.config import DEFAULT_MODELS, DURATIONS, SIZES, Settings, write_settings_file
from imagedbd.durable import free_name
from imagedbd.errors import ConfigError, UsageError

WIDTH: Final = 100


@dataclass(frozen=True, slots=True)
class Entry:
    """One setting in the file.

    :param key: as the file calls it.
    :param default: in TOML; of a setting that is off by default, an example.
    """

    key: str
    meaning: str
    default: str


def entries(defaults: Settings) -> tuple[Entry, ...]:
    """Every setting that the file may have, those first that are changed most.

    :param defaults: settings of which nothing was set.
    """
    return (
        Entry(
            "model",
            "The model of a first index: ARCHITECTURE/TAG as `imagedb model list` prints them, "
            "hf-hub:OWNER/NAME, local-dir:FOLDER, or demo. Later `imagedb model use` switches without a gap. "
            f"A first store on Faiss has {DEFAULT_MODELS['faiss']} by default.",
            _text(defaults.model),
        ),
        Entry(
            "device",
            "Where the model runs: cpu, cuda, cuda:1, xpu, mps; auto takes what is there.",
            _text(defaults.device),
        ),
        Entry(
            "dtype",
            "Of its weights: fp32, bf16, fp16; auto takes what the hardware does well.",
            _text(defaults.dtype),
        ),
        Entry(
            "model_ttl",
            "Idle time after which the model leaves memory; 0 keeps it there.",
            _duration(defaults.model_ttl),
        ),
        Entry(
            "keep_text_tower",
            "Whether the part of it that embeds prompts stays then: searches for words wait only while "
            "pictures have the rest loaded again.",
            str(defaults.keep_text_tower).lower(),
        ),
        Entry(
            "ignore",
            'Patterns in gitignore syntax of what is left out, such as ["*.tmp", "cache/"]. Files named '
            ".imagedbignore in the folders work as well.",
            "[]",
        ),
        Entry("max_file_size", "Larger files are skipped.", _size(defaults.max_file_size)),
        Entry("settle", "How long a file must rest before it is read.", _duration(defaults.settle)),
        Entry(
            "settle_max",
            "When it is read in any case, however busy somebody is with it.",
            _duration(defaults.settle_max),
        ),
        Entry("rescan", "Pause between full comparisons of folders and index.", _duration(defaults.rescan)),
        Entry(
            "rescan_unheard",
            "The same for folders of which events do not tell all; longer where a scan of them takes long.",
            _duration(defaults.rescan_unheard),
        ),
        Entry("decoders", "Decoder processes; 0 is one a core.", str(defaults.decoders)),
        Entry("decode_timeout", "The time that one picture may take.", _duration(defaults.decode_timeout)),
        Entry("decode_memory", "The memory that one picture may take.", _size(defaults.decode_memory)),
        Entry(
            "max_cpu",
            "Per cent of the time of all cores that the daemon and its processes use at most; 0 is no bound.",
            str(defaults.max_cpu),
        ),
        Entry("on_battery", "index or pause.", _text(defaults.on_battery)),
        Entry(
            "min_free",
            "Indexing waits while less than this is free on the disk of the index.",
            _size(defaults.min_free),
        ),
        Entry("max_pixels", "Pictures of more pixels are not read.", str(defaults.max_pixels)),
        Entry("log_level", "debug, info, warning or error.", _text(defaults.log_level)),
        Entry("data_dir", "Where the index is kept.", _text(_home(defaults.data_dir))),
        Entry(
            "socket",
            "Where the daemon answers: a path of 107 bytes at most, in a folder that is private to you.",
            _text(_home(defaults.socket)),
        ),
        Entry(
            "store.kind",
            "Which kind of store a first index is made in, lance or faiss; later `imagedb store use`.",
            _text(defaults.store),
        ),
        Entry(
            "store.uri",
            "A LanceDB elsewhere than in the data folder. There is none by default; for example:",
            _text("s3://bucket/pictures"),
        ),
        Entry(
            "store.storage_options",
            "What it takes to get there; there is nothing by default. For example:",
            '{ region = "eu-central-1" }',
        ),
    )


def first_text(defaults: Settings) -> str:
    """The whole file."""
    parts = [
        _comment(
            "Settings of imagedbd. A line that begins with # and a name shows a default: take the # away to "
            "change it. Every setting has a variable as well (IMAGEDBD_MODEL, …), which goes before this "
            "file, and flags go before both. `imagedb config show` tells what holds, and why; `imagedbd "
            "check-config` whether all is in order. `imagedb root`, `store use` and `model use` write here "
            "themselves, and keep comments."
        ),
        _comment("Folders to watch, with all below them; `imagedb root add` puts them here.")
        + "roots = []\n",
    ]
    parts += [f"{_comment(entry.meaning)}#{entry.key} = {entry.default}\n" for entry in entries(defaults)]
    return "\n".join(parts)


def write_first(config_file: str, defaults: Settings, *, force: bool) -> str | None:
    """Write the file.

    :param force: if there is one already, set that aside.
    :returns: where the one before was put, if there was one.
    :raises UsageError: there is one, and nothing was changed.
    :raises ConfigError: it cannot be written.
    """
    aside = None
    try:
        if os.path.lexists(config_file):
            if not force:
                raise UsageError(
                    f"{config_file} is there already and stays as it is. `imagedb config show` tells what it "
                    "says; `imagedb config init --force` sets it aside and writes a new one."
                )
            aside = free_name(f"{config_file}.old")
            os.rename(config_file, aside)
        write_settings_file(Path(config_file), first_text(defaults))
    except OSError as error:
        raise ConfigError(f"{config_file} cannot be written: {error.strerror or error}.") from error
    return aside


def in_words(name: str, value: Any) -> str:
    """A setting as a person would write it, such as ``30m`` or ``1G``; written so, it can be set again.

    :param name: of the setting.
    :param value: as :class:`imagedbd.config.Settings` hold it.
    """
    if name in DURATIONS:
        return _duration_in_words(value)
    if name in SIZES:
        return _size_in_words(value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def roots_in(config_file: str) -> list[str]:
    """The folders that a file names, as it spells them; none where it cannot be read."""
    try:
        with open(config_file, "rb") as file:
            roots = tomllib.load(file).get("roots", [])
    except (OSError, ValueError):
        return []
    return [root for root in roots if isinstance(root, str)] if isinstance(roots, list) else []


def _comment(words: str) -> str:
    lines = textwrap.wrap(words, WIDTH - 2, break_long_words=False, break_on_hyphens=False)
    return "".join(f"# {line}\n" for line in lines)


def _text(value: str) -> str:
    # TOML's basic strings have JSON's escapes.
    return json.dumps(value, ensure_ascii=False)


def _duration(seconds: float) -> str:
    return _text(_duration_in_words(seconds))


def _size(size: int) -> str:
    return _text(_size_in_words(size))


def _duration_in_words(seconds: float) -> str:
    for unit, length in (("h", 3600), ("m", 60)):
        if seconds >= length and seconds % length == 0:
            return f"{seconds / length:.0f}{unit}"
    return f"{seconds:.6f}".rstrip("0").rstrip(".") + "s"


def _size_in_words(size: int) -> str:
    for unit, length in (("G", 1 << 30), ("M", 1 << 20), ("K", 1 << 10)):
        if size % length == 0:
            return f"{size // length}{unit}"
    return str(size)


def _home(path: str) -> str:
    start = os.path.expanduser("~/")
    return f"~/{path.removeprefix(start)}" if path.startswith(start) else path
