"""One index takes the place of another whole, or not at all, wherever it is broken off."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from imagedbd.errors import StoreUnreadableError
from imagedbd.replacement import clear, draft_folder, parts, replace_index, settle

OLD = {"ledger": "old", "lance/rows": "old", "paused": "old"}
NEW = {"ledger": "new", "lance/rows": "new", "owner": "new"}
RENAMES = 7
"""One that puts the plan in place, and three each for what is old and what is new."""

KILLED = """
import os, signal, sys
from imagedbd.replacement import replace_index
left, real = int(sys.argv[2]), os.rename

def deadly(*arguments):
    global left
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
    left -= 1
    real(*arguments)

os.rename = deadly
os.replace = deadly
os.unlink = lambda path: deadly(path, path + "-gone")
replace_index(sys.argv[1])
"""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """An index, and a checked one that is to take its place."""
    write(tmp_path, OLD)
    write(Path(draft_folder(str(tmp_path))), NEW)
    (tmp_path / "lock").touch()
    return tmp_path


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def index(folder: Path) -> dict[str, str]:
    files = (file for name in parts(str(folder)) for file in [folder / name, *(folder / name).rglob("*")])
    return {str(file.relative_to(folder)): file.read_text() for file in files if file.is_file()}


def drafts(data: Path) -> list[Path]:
    return list(data.glob("restoring*"))


def aside(data: Path) -> list[dict[str, str]]:
    return [index(folder) for folder in data.glob("before-restore-*")]


def fail_at(monkeypatch: pytest.MonkeyPatch, fails: Callable[[int], bool], error: BaseException) -> None:
    done, real = [0], os.rename

    def rename(before: str, after: str) -> None:
        done[0] += 1
        if fails(done[0]):
            raise error
        real(before, after)

    monkeypatch.setattr("os.rename", rename)


def test_the_old_one_is_set_aside_whole(data: Path) -> None:
    assert replace_index(str(data)) == str(next(data.glob("before-restore-*")))
    assert (index(data), aside(data), drafts(data)) == (NEW, [OLD], [])
    assert settle(str(data)) is None
    assert (index(data), aside(data)) == (NEW, [OLD])


def test_where_there_was_none_nothing_is_set_aside(tmp_path: Path) -> None:
    write(Path(draft_folder(str(tmp_path))), NEW)
    assert replace_index(str(tmp_path)) is None
    assert (index(tmp_path), aside(tmp_path), drafts(tmp_path)) == (NEW, [], [])


@pytest.mark.parametrize("renames", range(RENAMES + 1))
def test_after_a_death_the_next_start_has_one_or_the_other(data: Path, renames: int) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(data), str(renames)], check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    told = settle(str(data))
    assert drafts(data) == []
    if renames == 0:  # it had not begun
        assert (told, index(data), aside(data)) == (None, OLD, [])
    else:
        assert told is not None
        assert str(data / "before-restore-") in told
        assert (index(data), aside(data)) == (NEW, [OLD])


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), KeyboardInterrupt()])
@pytest.mark.parametrize("failing", range(1, RENAMES))
def test_after_a_failure_all_is_where_it_was(
    data: Path, monkeypatch: pytest.MonkeyPatch, failing: int, error: BaseException
) -> None:
    fail_at(monkeypatch, lambda number: number == failing, error)
    with pytest.raises(type(error)):
        replace_index(str(data))
    assert (index(data), aside(data)) == (OLD, [])
    clear(str(data))
    assert drafts(data) == []
    assert settle(str(data)) is None
    assert index(data) == OLD


@pytest.mark.parametrize("failing", range(2, RENAMES))
def test_what_cannot_be_moved_back_either_is_finished_later(
    data: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    with monkeypatch.context() as patch:
        fail_at(patch, lambda number: number >= failing, OSError(5, "Input/output error"))
        with pytest.raises(StoreUnreadableError, match="imagedbd restore"):
            replace_index(str(data))
        clear(str(data))
        with pytest.raises(StoreUnreadableError, match="imagedbd restore"):
            settle(str(data))
    assert settle(str(data)) is not None
    assert (index(data), aside(data), drafts(data)) == (NEW, [OLD], [])


def test_what_cannot_be_finished_is_undone_and_told(data: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED, str(data), "5"], check=False, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    (data / "owner").write_text("in the way")
    with pytest.raises(StoreUnreadableError, match=r"The index is the one before it.*imagedbd restore"):
        settle(str(data))
    assert index(data) == {**OLD, "owner": "in the way"}
    assert (aside(data), drafts(data), settle(str(data))) == ([], [], None)


def test_a_plan_that_cannot_be_read_keeps_everything(data: Path) -> None:
    (data / "restoring" / "plan.json").write_text("{")
    with pytest.raises(StoreUnreadableError, match="imagedbd restore"):
        settle(str(data))
    clear(str(data))
    assert index(data) == OLD
    assert len(drafts(data)) == 1
