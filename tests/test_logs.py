"""Where messages go and what goes with them, and how often one and the same is told."""

from __future__ import annotations

import json
import logging
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from imagedbd.logs import JournalHandler, Throttle


@pytest.fixture
def logger() -> logging.Logger:
    """Nobody else hears it: odd bytes in a name are nothing that pytest could report between its workers."""
    return logging.Logger("imagedbd.tests")  # noqa: LOG001 - see above


def journal(logger: logging.Logger, *, answer: int = 0) -> list[dict[str, str | int]]:
    entries: list[dict[str, str | int]] = []

    def send(**fields: str | int) -> int:
        entries.append(fields)
        return answer

    logger.addHandler(JournalHandler(send))
    return entries


def test_a_message_reaches_the_journal_with_its_fields(logger: logging.Logger) -> None:
    entries = journal(logger)
    logger.warning("%s is watched anew", "/photos", extra={"root": "/photos"})
    (entry,) = entries
    assert entry["MESSAGE"] == "/photos is watched anew"
    assert entry["PRIORITY"] == 4
    assert entry["IMAGEDBD_ROOT"] == "/photos"
    assert entry["LOGGER"] == "imagedbd.tests"
    assert entry["SYSLOG_IDENTIFIER"] == "imagedbd"
    assert entry["CODE_FILE"] == __file__
    assert entry["CODE_FUNC"] == "test_a_message_reaches_the_journal_with_its_fields"


def test_an_exception_goes_along_and_names_itself(logger: logging.Logger) -> None:
    entries = journal(logger)
    try:
        1 / 0  # noqa: B018 - for its exception
    except ZeroDivisionError:
        logger.exception("a scan failed")
    assert entries[0]["EXCEPTION"] == "ZeroDivisionError"
    assert str(entries[0]["MESSAGE"]).startswith("a scan failed\nTraceback")


def test_names_of_files_cannot_make_up_lines_or_break_the_journal(logger: logging.Logger) -> None:
    entries = journal(logger)
    logger.error("%s failed", "a\nb\x1b[2J\udcff.jpg", extra={"path": "a\nb\udcff.jpg"})
    assert entries[0]["MESSAGE"] == r"a\nb\x1b[2J\xff.jpg failed"
    assert entries[0]["IMAGEDBD_PATH"] == r"a\nb\xff.jpg"


def test_what_the_journal_refuses_goes_to_standard_error(
    logger: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    journal(logger, answer=-1)
    logger.error("it is full")
    assert "it is full" in capsys.readouterr().err


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Told(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


def throttled(logger: logging.Logger, clock: Clock) -> tuple[Told, Throttle]:
    told = Told()
    throttle = Throttle(told.emit, burst=3, clock=clock)
    told.addFilter(throttle)
    logger.addHandler(told)
    return told, throttle


def test_a_message_that_keeps_coming_is_counted_and_told_at_the_end(logger: logging.Logger) -> None:
    told, throttle = throttled(logger, Clock())
    for number in range(1000):
        logger.warning("file %d is odd", number)
    logger.warning("and another thing")
    assert told.messages == ["file 0 is odd", "file 1 is odd", "file 2 is odd", "and another thing"]
    throttle.tell_all()
    assert told.messages[4:] == ["file 999 is odd (and 996 more like this)"]


def test_the_count_is_told_by_itself_when_the_time_is_over(logger: logging.Logger) -> None:
    told = Told()
    throttle = Throttle(told.emit, burst=1, window_s=0.05)
    told.addFilter(throttle)
    logger.addHandler(told)
    for number in range(3):
        logger.error("try %d", number)
    timer = throttle._timer
    assert timer is not None
    timer.join(10)
    assert told.messages == ["try 0", "try 2 (and 1 more like this)"]


def test_what_comes_seldom_is_always_told(logger: logging.Logger) -> None:
    clock = Clock()
    told, throttle = throttled(logger, clock)
    for number in range(30):
        clock.now += 30
        logger.info("hour %d", number)
    throttle.tell_all()
    assert told.messages == [f"hour {number}" for number in range(30)]


def test_messages_that_never_repeat_are_not_kept_for_ever(logger: logging.Logger) -> None:
    clock = Clock()
    _, throttle = throttled(logger, clock)
    for number in range(5000):
        clock.now += 1
        logger.info(f"message {number}")  # noqa: G004 - as a library may do it
    assert len(throttle._windows) <= 1001


PROGRAM = """
import logging, sys
from imagedbd.logs import logging_at
with logging_at("info"):
    logging.getLogger("imagedbd.watcher").warning("%s is new", "/photos/a\\x1b[2J", extra={"path": "/a"})
    loaded = {"rich", "cysystemd.journal"} & set(sys.modules)
print(sorted(loaded))
"""


def test_a_file_gets_plain_lines_with_date_level_and_room(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as log:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM], stderr=log, stdout=subprocess.PIPE, check=True, timeout=60
        )
    text = (tmp_path / "log").read_text()
    assert text.startswith("20")
    assert text.endswith("WARNING imagedbd.watcher: /photos/a\\x1b[2J is new\n")
    assert done.stdout == b"[]\n"


def test_a_terminal_gets_time_level_and_words(tmp_path: Path) -> None:
    ours, its = pty.openpty()
    environment = {**os.environ, "NO_COLOR": "1", "COLUMNS": "100", "TERM": "xterm"}
    with os.fdopen(ours, "rb", buffering=0) as terminal, os.fdopen(its, "wb") as standard_error:
        subprocess.run(
            [sys.executable, "-c", PROGRAM],
            stderr=standard_error, stdout=subprocess.DEVNULL, check=True, timeout=60, env=environment,
        )  # fmt: skip
        text = terminal.read(65536).decode()
    assert "WARNING  /photos/a\\x1b[2J is new" in text
    assert "\x1b[2J" not in text


def test_only_the_very_stream_that_systemd_connected_is_the_journal(tmp_path: Path) -> None:
    """A terminal that was started by a service has the variable, and a stream of its own."""
    with (tmp_path / "log").open("wb") as log:
        stat = os.fstat(log.fileno())
        for inode, loaded in ((stat.st_ino, ["cysystemd.journal"]), (stat.st_ino + 1, [])):
            environment = {**os.environ, "JOURNAL_STREAM": f"{stat.st_dev}:{inode}"}
            done = subprocess.run(
                [sys.executable, "-c", PROGRAM],
                stderr=log, stdout=subprocess.PIPE, check=True, timeout=60, env=environment,
            )  # fmt: skip
            assert json.loads(done.stdout.replace(b"'", b'"')) == loaded
