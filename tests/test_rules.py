from __future__ import annotations

import contextlib
import errno
import os
import random
import shutil
import subprocess
import tomllib
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imagedbd.rules import IGNORE_FILE, Rules, absolute_patterns, is_within, pattern_in_toml

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "pictures"
    root.mkdir()
    return root


def accepted(rules: Rules, root: Path, *names: str) -> list[str]:
    return [name for name in names if rules.verdict(f"{root}/{name}").ok]


@pytest.fixture
def unreadable(monkeypatch):
    """While this is entered, the disk gives no ignore file."""

    def fail(file, mode):
        raise OSError(errno.EIO, os.strerror(errno.EIO), file)

    @contextlib.contextmanager
    def failing():
        with monkeypatch.context() as disk:
            disk.setattr("imagedbd.rules.open", fail, raising=False)
            yield

    return failing()


class TestNames:
    def test_pictures_are_told_by_their_suffix_in_any_case(self, root):
        rules = Rules([str(root)])
        names = ["a.jpg", "b.JPEG", "c.txt", "d", "jpg", "e.tar.png", "f.jpg.part", "g\n'\udcff.webp"]
        assert accepted(rules, root, *names) == ["a.jpg", "b.JPEG", "e.tar.png", "g\n'\udcff.webp"]
        assert rules.verdict(f"{root}/c.txt").rule == ".txt"

    def test_hidden_files_and_whatever_lies_in_hidden_folders_are_left_out(self, root):
        rules = Rules([str(root)])
        assert accepted(rules, root, ".a.jpg", ".b/c.jpg", "d/.e/f/g.jpg", "h/i.jpg") == ["h/i.jpg"]
        assert rules.verdict(f"{root}/d/.e/f/g.jpg").rule == f"{root}/d/.e"

    def test_a_root_may_be_hidden_itself(self, tmp_path):
        rules = Rules([f"{tmp_path}/.pictures"])
        assert rules.verdict(f"{tmp_path}/.pictures/a.jpg").ok

    def test_a_file_outside_every_root_is_left_out(self, root):
        rules = Rules([str(root)])
        verdict = rules.verdict(f"{root}2/a.jpg")
        assert not verdict.ok
        assert verdict.reason == "lies outside every root"

    def test_the_root_folder_of_the_system_can_be_a_root(self):
        rules = Rules(["/"], excluded=["/var/lib/imagedbd"])
        assert rules.verdict("/a/b.jpg").ok
        assert rules.verdict("/b.jpg").ok
        assert not rules.verdict("/var/lib/imagedbd/b.jpg").ok

    @pytest.mark.parametrize("path", ["pictures", "", "/a/../b", "/a/", "/a//b", "~"])
    def test_roots_must_be_absolute_and_normalised(self, path):
        with pytest.raises(ValueError, match="not an absolute"):
            Rules([path])


class TestFolders:
    def test_a_path_belongs_to_the_deepest_root_that_holds_it(self):
        rules = Rules(["/a", "/a/b/c", "/d"])
        assert rules.root_of("/a/b/x.jpg") == "/a"
        assert rules.root_of("/a/b/c/x.jpg") == "/a/b/c"
        assert rules.root_of("/a/b/c") == "/a/b/c"
        assert rules.root_of("/a/b/cd") == "/a"
        assert rules.root_of("/dd") is None
        assert rules.nested_roots("/a") == ["/a/b/c"]
        assert rules.nested_roots("/") == ["/a", "/a/b/c", "/d"]

    def test_the_data_folder_is_never_entered(self, root):
        rules = Rules([str(root)], excluded=[f"{root}/data"])
        assert accepted(rules, root, "data/a.jpg", "data/x/a.jpg", "database/a.jpg") == ["database/a.jpg"]
        assert not rules.verdict(f"{root}/data", is_dir=True).ok

    def test_a_root_within_the_data_folder_has_no_pictures(self, root):
        rules = Rules([str(root)], excluded=[os.path.dirname(root)])
        assert not rules.verdict(f"{root}/a.jpg").ok

    def test_a_root_nested_in_an_ignored_folder_has_rules_of_its_own(self, root):
        (root / IGNORE_FILE).write_text("*\n")
        rules = Rules([str(root), f"{root}/.cache/best"])
        assert accepted(rules, root, "a.jpg", ".cache/a.jpg", ".cache/best/a.jpg") == [".cache/best/a.jpg"]

    def test_rules_carried_down_a_walk_say_the_same_as_rules_for_a_path(self, root):
        (root / "x").mkdir()
        (root / "x" / IGNORE_FILE).write_text("y/*.jpg\n")
        rules = Rules([str(root), f"{root}/x/nested"])
        folder = rules.folder(str(root)).folder("x")
        for inner in ("y", ".hidden", "nested"):
            walked = folder.folder(inner)
            assert walked.root == rules.root_of(walked.path)
            assert walked.file("a.jpg") == rules.verdict(f"{root}/x/{inner}/a.jpg")


class TestAbsolutePatterns:
    def test_what_is_meant_by_them_does_it(self, root):
        everything = [f"{root}/a.jpg", f"{root}/trip/b.jpg"]
        for glob, left in ((f"{root}/trip/", everything[:1]), (f"{root}/", []), (f"{root}", [])):
            assert all(Rules([str(root)], [], [glob]).verdict(path).ok for path in everything)
            (meant,) = absolute_patterns([glob], [str(root)]).values()
            rules = Rules([str(root)], [], [meant])
            assert [path for path in everything if rules.verdict(path).ok] == left


class TestIgnoreFiles:
    def test_have_gitignore_syntax(self, root):
        (root / IGNORE_FILE).write_text(
            "# drafts\n\n*.png\n!keep.png\n/top.jpg\nraw/\nsub/**/x.jpg\n\\#a.jpg\n"
        )
        rules = Rules([str(root)])
        names = ["a.png", "keep.png", "s/keep.png", "top.jpg", "s/top.jpg", "raw/a.jpg", "raw.jpg"]
        assert accepted(rules, root, *names) == ["keep.png", "s/keep.png", "s/top.jpg", "raw.jpg"]
        assert accepted(rules, root, "sub/x.jpg", "sub/1/2/x.jpg", "sub/y.jpg", "#a.jpg") == ["sub/y.jpg"]

    def test_nearest_to_the_file_decides(self, root):
        (root / "trip").mkdir()
        (root / IGNORE_FILE).write_text("*.gif\n*.png\n")
        (root / "trip" / IGNORE_FILE).write_text("!*.gif\n")
        rules = Rules([str(root)])
        assert accepted(rules, root, "a.gif", "trip/a.gif", "trip/a.png") == ["trip/a.gif"]

    def test_take_nothing_back_from_an_ignored_folder(self, root):
        (root / "raw").mkdir()
        (root / IGNORE_FILE).write_text("raw/\n!raw/a.jpg\n")
        (root / "raw" / IGNORE_FILE).write_text("!*\n")
        assert accepted(Rules([str(root)]), root, "raw/a.jpg") == []

    def test_take_files_back_where_only_the_content_of_a_folder_is_ignored(self, root):
        (root / IGNORE_FILE).write_text("raw/**\n!raw/a.jpg\n")
        assert accepted(Rules([str(root)]), root, "raw/a.jpg", "raw/b.jpg") == ["raw/a.jpg"]

    def test_are_named_with_line_and_pattern(self, root):
        (root / IGNORE_FILE).write_text("\n*.png\n")
        verdict = Rules([str(root)]).verdict(f"{root}/a.png")
        assert verdict.reason == "is ignored"
        assert verdict.rule == f"{root}/{IGNORE_FILE}:2: *.png"

    def test_are_read_again_when_they_change_or_go(self, root):
        rules = Rules([str(root)])
        assert accepted(rules, root, "a.png") == ["a.png"]
        (root / IGNORE_FILE).write_text("*.png\n")
        assert accepted(rules, root, "a.png") == []
        (root / IGNORE_FILE).write_text("*.gif\n")
        assert accepted(rules, root, "a.png") == ["a.png"]
        (root / IGNORE_FILE).write_text("*.png\n")
        (root / IGNORE_FILE).unlink()
        assert accepted(rules, root, "a.png") == ["a.png"]

    def test_above_a_root_do_not_count(self, root):
        (root.parent / IGNORE_FILE).write_text("*\n")
        assert accepted(Rules([str(root)]), root, "a.jpg") == ["a.jpg"]

    def test_may_name_files_that_are_not_utf_8(self, root):
        (root / IGNORE_FILE).write_bytes(b"\xef\xbb\xbfb\xff*.jpg\r\n")
        assert accepted(Rules([str(root)]), root, "b\udcff1.jpg", "b\udcfe1.jpg") == ["b\udcfe1.jpg"]

    @pytest.mark.parametrize("bad", ["!", "[z-a].jpg"])
    def test_with_a_bad_line_keep_the_good_ones(self, root, caplog, bad):
        (root / IGNORE_FILE).write_text(f"{bad}\n*.png\n")
        assert accepted(Rules([str(root)]), root, "a.png", "a.jpg") == ["a.jpg"]
        assert "line 1" in caplog.text

    def test_that_are_links_are_told_and_those_that_have_gone_are_not(self, root):
        (root.parent / "shared").write_text("*.png\n")
        (root / IGNORE_FILE).symlink_to(root.parent / "shared")
        rules = Rules([str(root)])
        assert accepted(rules, root, "a.png") == ["a.png"]
        assert "is a symbolic link" in rules.ignore_faults()[str(root / IGNORE_FILE)]
        (root / IGNORE_FILE).unlink()
        assert accepted(rules, root, "a.png") == ["a.png"]
        assert rules.ignore_faults() == {}

    def test_that_cannot_be_read_any_more_hold_on(self, root, unreadable):
        (root / IGNORE_FILE).write_text("*.png\n")
        rules = Rules([str(root)])
        assert accepted(rules, root, "a.png", "a.jpg") == ["a.jpg"]
        with unreadable:
            (root / IGNORE_FILE).write_text("*.jpg # longer\n")
            assert accepted(rules, root, "a.png", "a.jpg") == ["a.jpg"]
            assert "what it said before goes on to hold" in rules.ignore_faults()[str(root / IGNORE_FILE)]
            assert rules.unread_ignore_files() == [str(root / IGNORE_FILE)]
        (root / IGNORE_FILE).write_text("*.jpg\n")
        assert accepted(rules, root, "a.png", "a.jpg") == ["a.png"]
        assert rules.ignore_faults() == {}

    def test_that_could_never_be_read_leave_all_below_undecided(self, root, unreadable):
        (root / "trip" / "day").mkdir(parents=True)
        (root / "trip" / IGNORE_FILE).write_text("*.png\n")
        rules = Rules([str(root)])
        with unreadable:
            verdict = rules.verdict(f"{root}/trip/day/a.jpg")
            assert (verdict.ok, verdict.unsure) == (False, True)
            assert verdict.rule == f"{root}/trip/{IGNORE_FILE}: Input/output error"
            assert rules.verdict(f"{root}/a.jpg").ok
        assert rules.verdict(f"{root}/trip/day/a.jpg").ok

    def test_that_cannot_be_read_let_nothing_in_that_no_ignore_file_could(self, root, unreadable):
        for name in (".git", "own", "trip"):
            (root / name).mkdir()
        (root / IGNORE_FILE).write_text("*.png\n")
        rules = Rules([str(root)], [str(root / "own")])
        with unreadable:
            folders = {name: rules.verdict(f"{root}/{name}", is_dir=True) for name in (".git", "own", "trip")}
            names = (".a.jpg", "a.txt", "a.jpg", "trip/a.jpg")
            files = {name: rules.verdict(f"{root}/{name}") for name in names}
        assert [name for name, verdict in folders.items() if verdict.unsure] == ["trip"]
        assert [name for name, verdict in files.items() if verdict.unsure] == ["a.jpg", "trip/a.jpg"]

    def test_that_are_no_regular_files_are_not_opened(self, root, caplog):
        os.mkfifo(root / IGNORE_FILE)
        assert accepted(Rules([str(root)]), root, "a.jpg") == ["a.jpg"]
        assert "is not used" in caplog.text

    def test_decide_after_the_globs_of_the_configuration(self, root):
        (root / IGNORE_FILE).write_text("!good.gif\n")
        rules = Rules([str(root)], ignore_globs=["*.gif", "/old/"])
        assert accepted(rules, root, "a.gif", "good.gif", "old/a.jpg", "x/old/a.jpg") == [
            "good.gif",
            "x/old/a.jpg",
        ]
        assert rules.verdict(f"{root}/a.gif").rule == "ignore: *.gif"

    @pytest.mark.parametrize("bad", ["!", "[z-a].jpg"])
    def test_a_glob_that_is_no_pattern_is_refused(self, root, bad):
        with pytest.raises(ValueError, match="not a pattern"):
            Rules([str(root)], ignore_globs=[bad])

    # Of what a later Python might read in `[[`; today it is what git reads.
    @pytest.mark.filterwarnings("ignore:Possible:FutureWarning")
    def test_whatever_an_ignore_file_holds_is_no_error(self, root):
        rng = random.Random(0)
        for _ in range(3000):
            line = bytes(rng.choice(b"[]!^-\\*?/ab#\xff\x00") for _ in range(rng.randrange(1, 12)))
            (root / IGNORE_FILE).write_bytes(line)
            Rules([str(root)]).verdict(f"{root}/a.jpg")


class TestKindAndSize:
    def test_links_pipes_and_folders_are_no_pictures(self, root):
        (root / "target.jpg").write_bytes(b"x")
        (root / "link.jpg").symlink_to("target.jpg")
        os.mkfifo(root / "pipe.jpg")
        (root / "folder.jpg").mkdir()
        rules = Rules([str(root)])
        reasons = {
            name: rules.verdict(f"{root}/{name}", stat=os.lstat(root / name)).reason
            for name in ("target.jpg", "link.jpg", "pipe.jpg", "folder.jpg")
        }
        assert reasons["target.jpg"] is None
        assert reasons["link.jpg"].startswith("is a symbolic link")
        assert reasons["pipe.jpg"] == reasons["folder.jpg"] == "is not a regular file"

    def test_files_above_the_limit_are_left_out(self, root):
        (root / "a.jpg").write_bytes(b"123")
        for limit, ok in ((2, False), (3, True), (None, True)):
            rules = Rules([str(root)], max_file_size=limit)
            assert rules.verdict(f"{root}/a.jpg", stat=os.lstat(root / "a.jpg")).ok is ok


class TestExplaining:
    def test_says_what_the_path_alone_cannot_tell(self, root, tmp_path):
        (root / "real").mkdir()
        (root / "real" / "a.jpg").write_bytes(b"x")
        (root / "link").symlink_to("real")
        (root / "a.jpg").symlink_to("real/a.jpg")
        rules = Rules([str(root)])
        assert rules.explain(f"{root}/real/a.jpg").ok
        assert rules.explain(f"{root}/real").ok
        assert rules.explain(f"{root}/link/a.jpg").reason == "is reached through a symbolic link"
        assert "symbolic link" in rules.explain(f"{root}/a.jpg").reason
        assert rules.explain(f"{root}/b.jpg").reason == "cannot be looked at: No such file or directory"
        assert rules.explain(f"{tmp_path}").reason == "lies outside every root"


PIECES = st.sampled_from(["a", "b", "ab", "*", "?", "**", "[ab]", "a*", "*.jpg", "a.jpg"])
PATTERNS = st.builds(
    lambda negated, rooted, pieces, folder: negated + rooted + "/".join(pieces) + folder,
    st.sampled_from(["", "", "!"]),
    st.sampled_from(["", "/"]),
    st.lists(PIECES, min_size=1, max_size=3),
    st.sampled_from(["", "/"]),
)
FILES = [f"{folder}{name}.jpg" for folder in ("", "a/", "b/", "a/b/", "ab/a/b/") for name in ("a", "b", "ab")]


@pytest.mark.skipif(shutil.which("git") is None, reason="git is the oracle")
class TestAgainstGit:
    @settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(outer=st.lists(PATTERNS, max_size=4), inner=st.lists(PATTERNS, max_size=3))
    def test_ignores_what_git_ignores(self, tmp_path_factory, outer, inner):
        root = tmp_path_factory.mktemp("git")
        try:
            self._compare(root, outer, inner)
        finally:
            shutil.rmtree(root)

    def _compare(self, root, outer, inner):
        (root / "a").mkdir()
        for folder, patterns in (root, outer), (root / "a", inner):
            for name in (".gitignore", IGNORE_FILE):
                (folder / name).write_text("".join(f"{pattern}\n" for pattern in patterns))
        for command in ("init -q", "config core.excludesFile /dev/null"):
            subprocess.run(["git", "-C", root, *command.split()], check=True)
        asked = subprocess.run(
            ["git", "-C", root, "check-ignore", "--no-index", "--stdin"],
            input="\n".join(FILES),
            capture_output=True,
            text=True,
            check=False,
        )
        assert asked.returncode in (0, 1)
        ignored = set(asked.stdout.splitlines())
        rules = Rules([str(root)])
        assert {name for name in FILES if not rules.verdict(f"{root}/{name}").ok} == ignored


def test_a_path_lies_within_a_folder_only_past_a_slash():
    assert is_within("/a/b", "/a")
    assert is_within("/a", "/a")
    assert is_within("/a", "/")
    assert not is_within("/ab", "/a")
    assert not is_within("/", "/a")


@pytest.mark.parametrize("name", ["stick", "a [1] * ? \\ '\"", "deep/er", "caf\udce9", "\x1b"])
def test_the_pattern_that_is_offered_for_a_folder_ignores_that_folder_alone(root, name):
    (ignore,) = tomllib.loads(f"ignore = {pattern_in_toml(f'{root}/{name}', str(root))}").values()
    rules = Rules([str(root)], ignore_globs=ignore)
    names = [f"{name}/a.jpg", f"{name}s/a.jpg", f"in/{name}/a.jpg", "a.jpg"]
    assert accepted(rules, root, *names) == names[1:]
