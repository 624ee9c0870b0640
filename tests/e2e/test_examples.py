"""Every command of the README, of docs/ and of every example of ``--help``, run as it is written."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pictures import exif, save

from imagedbd.cli import daemon as daemon_cli
from imagedbd.cli import main
from imagedbd.cli.entry import command_of

if TYPE_CHECKING:
    from machine import Machine

REPOSITORY = Path(__file__).parents[2]
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]

NOT_HERE = {
    r"^python3 -m venv|^\.venv/|pytest": "is about a clone of the repository",
    r"systemctl|imagedb service|journalctl": "is about systemd, and tested where there is one",
    r"^imagedb (demo|bench|root relocate)": "has tests of its own",
    r"^imagedbd run": "is what answers here",
    r"^imagedb model (pull|use|rollback|remove)|--model |^imagedb store use": "is about other models",
    r"^curl .*openapi": "is for people to look at",
}
ENDLESS = r"--watch"
FIRST = r"^imagedb config init"
"""Only while there is no settings file."""
LAST = r"^imagedbd (repair|restore)"
"""Only while no daemon runs."""
STAND_INS = {
    "curl": "cat ~/Pictures/holiday.jpg",
    "jq": "cat",
    "xdg-open": "true",
    "man": "cat",
}


def _examples(command: Any, most: int | None = None) -> list[str]:
    """Those of a command and all below it. :param most: so many of each."""
    own = [line.strip() for line in (command.epilog or "").splitlines() if line.startswith("  ")]
    return own[:most] + [
        line for sub in getattr(command, "commands", {}).values() for line in _examples(sub, most)
    ]


def _written() -> list[str]:
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    in_text = re.findall(r"`(imagedbd? [a-z][^`…|]*)`", text)
    # A command's bare name is no example, and neither is what has a place to be filled in.
    asked = [
        code for code in in_text if not re.search(r"\b[A-Z]{3,}\b|\[|\\|^imagedbd?( [a-z-]+){1,2}$", code)
    ]
    return [*(line for line in lines if line.strip()), *asked]


def _here(most: int | None = None) -> list[str]:
    programs = (command_of(app) for app in (main.application(), daemon_cli.app))
    lines = dict.fromkeys([*(line for program in programs for line in _examples(program, most)), *_written()])
    return [line for line in lines if not any(re.search(pattern, line) for pattern in NOT_HERE)]


def _turn(line: str) -> int:
    return next((turn for turn, pattern in ((0, FIRST), (2, LAST)) if re.search(pattern, line)), 1)


@pytest.fixture
def home(machine: Machine) -> Machine:
    """A home as the examples take it to be, with the daemon at work."""
    pictures = machine.home / "Pictures"
    taken = exif(make="NIKON", model="NIKON D700", taken="2024:05:01 10:00:00", iso=800, gps=(38.7, -9.1))
    for number, name in enumerate(["holiday", "DSC_0042", "pool", "2024/harbour", "2024/invoice"]):
        save(pictures / f"{name}.jpg", number, exif=taken)
    (pictures / "twin.jpg").write_bytes((pictures / "pool.jpg").read_bytes())
    (pictures / "broken.jpg").write_bytes(b"\xff\xd8")
    (pictures / "scan-0042.tif").write_bytes(b"II*\0")
    tools = machine.home / "tools"
    for folder in (tools, machine.home / "mnt/camera", machine.home / "mnt/backup", machine.home / "Lisbon"):
        folder.mkdir(parents=True)
    for folder in (".zfunc", ".config/fish/completions", ".local/share/man/man1"):
        (machine.home / folder).mkdir(parents=True)
    (machine.home / ".local/share/bash-completion/completions").mkdir(parents=True)
    for name, script in STAND_INS.items():
        (tools / name).write_text(f"#!/bin/sh\n{script}\n")
        (tools / name).chmod(0o755)
    machine.environment |= {
        "HOME": str(machine.home),
        "PATH": f"{tools}:{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    (pictures / "my.toml").write_text("settle = '2s'\n")
    machine.start(roots=[pictures])
    machine.wait()
    assert machine.run("backup", str(pictures / "index-of-may")).returncode == 0
    return machine


def run(machine: Machine, line: str) -> subprocess.CompletedProcess[str]:
    there = line.replace("/mnt/", "~/mnt/").replace("/photos/2024", "~/Pictures/2024")
    there = f"timeout -s INT 3 {there}" if re.search(ENDLESS, line) else there
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", there],
        cwd=machine.home / "Pictures",
        env=machine.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        text=True,
        errors="replace",
        timeout=90,
    )


def _anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\((?!https?:)([^)]*)\)", page.read_text(encoding="utf-8")):
        file, _, anchor = link.partition("#")
        target = page.parent / file if file else page
        assert target.exists(), link
        assert not anchor or anchor in _anchors(target), link


def test_no_sentence_is_written_twice() -> None:
    text = "\n\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    sentences = [" ".join(s.split()) for s in re.split(r"(?<=[.:])\s+|\n\n|\n(?=[-|])", prose)]
    seen = Counter(s for s in sentences if len(s.split()) > 6)
    assert not [sentence for sentence, times in seen.items() if times > 1]


def test_there_are_examples_to_run() -> None:
    assert len(_here()) > 60
    assert sum(line.startswith("imagedb search") for line in _written()) > 5


@pytest.mark.parametrize("most", [1, pytest.param(None, marks=[pytest.mark.slow, pytest.mark.timeout(400)])])
def test_each_runs_as_it_is_written(home: Machine, most: int | None) -> None:
    """Without the slow ones, those of the pages and the first of each command."""
    wrong = []
    for line in sorted(_here(most), key=_turn):
        if re.search(LAST, line) and home.process is not None:
            home.stop()
        done = run(home, line)
        # 1 is an answer as well: nothing matched, or nobody agreed.
        fine = {0, 1, 124} if re.search(ENDLESS, line) else {0, 1}
        confirms = done.returncode == 2 and "Nobody answered, so nothing was changed" in done.stderr
        if not (done.returncode in fine or confirms) or "Traceback" in done.stderr or "bug" in done.stderr:
            wrong.append(f"{line}\n  {done.returncode}: {done.stderr.strip()}")
    assert not wrong, "\n".join(wrong)
