"""Whatever a daemon tells, from whatever names: nothing of it steers the terminal it is shown on."""

from __future__ import annotations

import sys
import unicodedata
from typing import Any

import pytest

from .conftest import a_hit, a_status

PROGRAM = [sys.executable, "-c", "import sys; from imagedbd.cli.main import main; sys.exit(main())"]
EVIL = "/p/a\x1b]0;owned\x07\x1b[2J\x9b1m\u202eb\u2028c\nd\re\x08f\x7f\udcff.jpg"
SAFE = {"\r", "\n"}
"""What ends a line on a terminal."""


@pytest.fixture
def evil_daemon(daemon: Any) -> Any:
    """Every string that it can say is an attack."""
    root = {"path": EVIL, "state": "offline", "indexed": 1, "reason": EVIL}
    hit = a_hit(EVIL, camera_make=EVIL, camera_model=EVIL, caption=EVIL, keywords=[EVIL], taken_at=EVIL)
    switch = {"store": "faiss", "model": EVIL, "course": "embed", "state": "paused", "reason": EVIL,
              "done": 1, "total": 2, "rate": 1.0, "eta_s": 1}  # fmt: skip
    difference = dict.fromkeys(("setting", "configured", "active", "command", "text"), EVIL)
    daemon.answers |= {
        "/status": a_status(
            doing=EVIL, roots=[root], switch=switch, differences=[difference],
            store={"kind": "lance", "uri": EVIL, "rows": 1, "vectors": 1, "bytes_on_disk": 1, "reason": EVIL,
                   "configured": "lance", "damage": EVIL},
            model={"name": EVIL, "state": "unavailable", "reason": EVIL, "help": [EVIL], "configured": EVIL},
            previous={"kind": "lance", "place": EVIL, "model": EVIL}, config_file=EVIL, data_dir=EVIL,
        ),
        "/search": {"hits": [hit], "notes": [EVIL], "took_ms": 1.0},
        "/pictures": [{"path": EVIL, "id": "1", "content_hash": "1", "state": "indexed"}],
        "/failures": [{"path": EVIL, "reason": EVIL, "attempts": 1}],
        "/show": {**hit, "state": "indexed"},
        "/why": {"path": EVIL, "state": "skipped", "reason": EVIL, "rule": EVIL, "attempts": 0},
    }  # fmt: skip
    return daemon


@pytest.mark.parametrize(
    "arguments",
    [
        ["search", "x"],
        ["search", "x", "--paths"],
        ["search", "x", "--json"],
        ["search", EVIL],
        ["similar", EVIL],
        ["list"],
        ["list", "--paths"],
        ["list", "--jsonl"],
        ["show", EVIL],
        ["why", EVIL],
        ["why", EVIL, "--json"],
        ["failures"],
        ["status"],
        ["status", "--json"],
        ["root", "list"],
        ["root", "add", EVIL],
        ["root", "remove", EVIL],
        ["scan", EVIL],
        ["doctor"],
        ["store", "use", EVIL],
        ["search", "--where", f"name = '{EVIL}' oops"],
        [EVIL],
    ],
)
def test_nothing_that_is_told_steers_the_terminal(
    evil_daemon: Any, terminal: Any, arguments: list[str]
) -> None:
    _, seen = terminal([*PROGRAM, *arguments], TERM="dumb", NO_COLOR="1", COLUMNS="120")
    text = seen.decode("utf-8", "surrogateescape")
    steering = {c for c in text if unicodedata.category(c) in {"Cc", "Cf", "Cs", "Zl", "Zp"}} - SAFE
    assert not steering, text
    assert text.strip()


def test_a_program_gets_the_path_as_it_is(evil_daemon: Any, imagedb: Any) -> None:
    name = EVIL.encode("utf-8", "surrogateescape")
    assert imagedb("list", "--paths").data == name + b"\n"
    assert imagedb("list", "-0").data == name + b"\0"
