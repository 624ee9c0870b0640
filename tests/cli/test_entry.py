"""Both programs: exit codes, errors in words, help, versions, and what they import."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time

import pytest

from imagedbd import __version__, errors
from imagedbd.cli import daemon as daemon_cli
from imagedbd.cli import entry, main
from imagedbd.locking import is_stopping, locked, mark_stopping

from .conftest import a_hit, served

PROGRAM = [sys.executable, "-c", "import sys; from imagedbd.cli.main import main; sys.exit(main())"]
HEAVY = {
    "torch",
    "lancedb",
    "pandas",
    "numpy",
    "pydantic",
    "fastapi",
    "PIL",
    "pyarrow",
    "open_clip",
    "lark",
    "uvicorn",
}


def _commands(command, path=()):
    yield path, command
    for name, sub in getattr(command, "commands", {}).items():
        yield from _commands(sub, (*path, name))


IMAGEDB = list(_commands(entry.command_of(main.application()), ("imagedb",)))
IMAGEDBD = list(_commands(entry.command_of(daemon_cli.app), ("imagedbd",)))


class TestErrors:
    @pytest.mark.parametrize(
        ("error", "code"),
        [
            (errors.ImagedbError("It broke."), 70),
            (errors.UsageError("It broke."), 2),
            (errors.NothingMatchedError("It broke."), 1),
            (errors.ConfigError("It broke."), 78),
            (errors.StoreUnreadableError("It broke."), 78),
            (errors.LockHeldError("It broke."), 75),
            (errors.WaitTimeoutError("It broke."), 124),
            (errors.ModelUnavailableError("It broke."), 70),
        ],
    )
    def test_each_is_one_line_with_its_exit_code(self, daemon, imagedb, error, code):
        daemon.answers["/status"] = error
        ran = imagedb("status")
        assert (ran.code, ran.data) == (code, b"")
        assert ran.words == f"imagedb: {error.title}: It broke.\n"

    def test_a_daemon_that_is_starting_is_waited_for(self, imagedb):
        path = os.environ["IMAGEDBD_SOCKET"]
        held, may_serve, answered = threading.Event(), threading.Event(), threading.Event()

        def start() -> None:
            with locked(f"{path}.lock", path):
                held.set()
                may_serve.wait()
                with served(path):
                    answered.wait()

        starting = threading.Thread(target=start)
        starting.start()
        held.wait()
        threading.Timer(0.3, may_serve.set).start()
        ran = imagedb("status")
        answered.set()
        starting.join()
        assert ran.code == 0, ran.words

    def test_one_that_does_not_come_up_is_not_waited_for_for_ever(self, imagedb, monkeypatch):
        path = os.environ["IMAGEDBD_SOCKET"]
        monkeypatch.setattr("imagedbd.client.STARTING_S", 0.2)
        with locked(f"{path}.lock", path):
            ran = imagedb("status")
        assert ran.code == 69
        assert "is starting, and does not answer yet" in ran.words
        assert "`imagedb service logs`" in ran.words

    def test_one_that_is_on_its_way_out_is_not_waited_for(self, imagedb, monkeypatch):
        path = os.environ["IMAGEDBD_SOCKET"]
        monkeypatch.setattr("imagedbd.client.STARTING_S", 1000)
        with locked(f"{path}.lock", path):
            mark_stopping(f"{path}.lock")
            ran = imagedb("status")
        assert ran.code == 69
        assert ran.words.startswith("imagedb: The daemon is stopping: ")
        with locked(f"{path}.lock", path):  # the next one is only just coming
            assert not is_stopping(f"{path}.lock")

    def test_a_wait_waits_for_a_daemon_that_is_only_just_being_started(self, imagedb, monkeypatch):
        done = threading.Event()

        def start() -> None:
            with served(os.environ["IMAGEDBD_SOCKET"], {"/wait": {"indexed": 3, "failed": 0}}):
                done.wait()

        timer = threading.Timer(0.3, start)
        timer.start()
        ran = imagedb("wait")
        done.set()
        timer.join()
        assert (ran.code, ran.words) == (0, "3 pictures indexed.\n")

    def test_a_wait_for_no_daemon_ends(self, imagedb):
        assert imagedb("wait", "--timeout", "0.1").code == 69

    def test_no_daemon_is_69_and_names_the_command_that_starts_it(self, imagedb):
        ran = imagedb("search", "x")
        assert ran.code == 69
        assert "`imagedbd run`" in ran.words

    def test_a_bad_setting_is_78(self, imagedb, tmp_path, monkeypatch):
        monkeypatch.delenv("IMAGEDBD_SOCKET")
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
        (tmp_path / "config.toml").write_text("stor = 'lance'\n")
        ran = imagedb("status")
        assert ran.code == 78
        assert "config.toml, line 1" in ran.words
        assert "Did you mean 'store'" in ran.words

    def test_a_bug_is_one_line_that_says_how_to_see_more(self, daemon, imagedb, monkeypatch):
        daemon.answers["/status"] = {"state": "idle"}  # not what it should be
        ran = imagedb("status")
        assert ran.code == 70
        assert "This is a bug" in ran.words
        assert "KeyError" in ran.words
        assert ran.words.count("\n") == 1
        monkeypatch.setenv("IMAGEDBD_DEBUG", "1")
        assert "Traceback" in imagedb("status").words

    def test_a_fault_of_the_daemon_is_told_as_one(self, daemon, imagedb):
        daemon.answers["/status"] = b"Internal Server Error"
        ran = imagedb("status")
        assert ran.code == 70
        assert "HTTP status 500" in ran.words

    def test_another_version_is_told_even_if_the_command_fails(self, daemon, imagedb):
        daemon.version = "9.9"
        assert "The daemon is version 9.9, this command" in imagedb("status").words
        daemon.answers["/status"] = errors.ImagedbError("It broke.")
        assert "version 9.9" in imagedb("status").words

    def test_a_message_cannot_steer_the_terminal(self, daemon, imagedb):
        daemon.answers["/status"] = errors.ImagedbError("bad \x1b[2J name")
        assert r"bad \x1b[2J name" in imagedb("status").words

    def test_a_full_disk_behind_standard_output(self, daemon):
        with open("/dev/full", "wb") as full:
            ran = subprocess.run(
                [*PROGRAM, "status", "--json"], check=False, stdout=full, stderr=subprocess.PIPE, text=True
            )
        assert (ran.returncode, ran.stderr) == (70, "imagedb: Failed: No space left on device.\n")

    def test_a_closed_pipe_is_silent(self, daemon):
        daemon.answers["/pictures"] = [
            {"path": f"/photos/{n}.jpg", "state": "indexed"} for n in range(20_000)
        ]
        with subprocess.Popen(
            [*PROGRAM, "list", "--paths"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as child:
            assert child.stdout.readline() == b"/photos/0.jpg\n"
            child.stdout.close()
            assert child.stderr.read() == b""
            assert child.wait() == entry.BROKEN_PIPE

    def test_ctrl_c_is_130_and_silent(self, daemon):
        daemon.answers["/wait"] = lambda _: time.sleep(5)
        with subprocess.Popen([*PROGRAM, "wait"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
            while not daemon.bodies("/wait"):
                time.sleep(0.01)
            child.send_signal(signal.SIGINT)
            assert child.stderr.read() == b""
            assert child.wait() == entry.INTERRUPTED


class TestOptions:
    def test_version(self, imagedb):
        assert imagedb("--version").text == f"imagedb {__version__}\n"

    @pytest.mark.parametrize("before", [True, False])
    def test_where_the_daemon_is_may_stand_on_either_side(self, daemon, imagedb, monkeypatch, before):
        monkeypatch.delenv("IMAGEDBD_SOCKET")
        place = ("--socket", daemon.socket)
        assert imagedb(*([*place, "status"] if before else ["status", *place])).code == 0

    def test_nothing_is_kept_from_one_run_to_the_next(self, daemon, imagedb, monkeypatch):
        monkeypatch.delenv("IMAGEDBD_SOCKET")
        assert imagedb("status", "--socket", daemon.socket).code == 0
        assert imagedb("status").code == 69

    @pytest.mark.parametrize("arguments", [(), ("root",), ("model",)])
    def test_a_group_alone_shows_its_help(self, imagedb, arguments):
        ran = imagedb(*arguments)
        assert (ran.code, ran.data) == (2, b"")
        assert ran.words.startswith("Usage: imagedb")

    def test_a_missing_argument_is_named(self, imagedb):
        ran = imagedb("show")
        assert ran.code == 2
        assert "Missing argument 'FILE'" in ran.words
        assert "Try `imagedb show --help`" in ran.words

    def test_an_unknown_command(self, imagedb):
        assert imagedb("serach", "x").code == 2

    @pytest.mark.parametrize("command", ["run", "check-config", "repair", "restore"])
    def test_a_command_of_the_daemons_program_is_named_as_such(self, imagedb, command):
        ran = imagedb("--socket", "s", command, "x")
        assert ran.code == 2
        told = f"imagedb: Bad usage: No such command '{command}': it is `imagedbd {command}`.\n"
        assert ran.words.startswith(told)

    @pytest.mark.parametrize("command", ["search", "status", "root"])
    def test_and_the_other_way_round(self, capfd, command):
        assert daemon_cli.main([command, "x"]) == 2
        told = f"imagedbd: Bad usage: No such command '{command}': it is `imagedb {command}`.\n"
        assert capfd.readouterr().err.startswith(told)


class TestHelp:
    @pytest.mark.parametrize(
        ("path", "command"), IMAGEDB + IMAGEDBD, ids=lambda v: "-".join(v) if type(v) is tuple else ""
    )
    def test_every_command_has_a_summary_of_one_line_and_examples(self, path, command):
        summary = command.help.split("\n")[0]
        assert 10 < len(summary) < 75
        assert summary.endswith(".")
        assert f"  {' '.join(path)}" in command.epilog

    @pytest.mark.parametrize("columns", [40, 100])
    def test_it_fits_the_terminal(self, imagedb, monkeypatch, columns):
        monkeypatch.setenv("COLUMNS", str(columns))
        ran = imagedb("search", "--help")
        assert ran.code == 0
        options = ran.text.partition("Examples:")[0]
        assert max(map(len, options.splitlines())) <= columns
        assert "--near LAT,LON[,KM]" in options


@pytest.mark.parametrize("module", main.COMMANDS)
def test_a_command_is_found_in_the_module_that_is_said_to_have_it(module):
    assert tuple(main.command([module]).commands) == main.COMMANDS[module]


class TestImports:
    """What keeps a query at a blink: see also the budget in ``imagedbd.cli.plain``."""

    PROBE = (
        "import sys; from imagedbd.cli.main import main; code = main(sys.argv[1:]); sys.stdout.flush();"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}), file=sys.stderr); sys.exit(code)"
    )

    @pytest.mark.parametrize(
        ("arguments", "also_banned"),
        [
            (["status"], set()),
            (["status", "--json"], {"rich"}),
            (["search", "x", "-n", "3", "--min-score", "0.5", "--where", "iso > 3"], set()),
            (["search", "x", "--not", "y", "--json"], {"rich"}),
            (["list", "--paths"], {"rich"}),
            (["--help"], set()),
        ],
    )
    def test_no_command_imports_what_is_heavy(self, daemon, arguments, also_banned):
        daemon.answers["/search"] = {"hits": [a_hit("/photos/a.jpg")], "notes": [], "took_ms": 1}
        daemon.answers["/pictures"] = []
        ran = subprocess.run(
            [sys.executable, "-c", self.PROBE, *arguments], check=False, capture_output=True, text=True
        )
        assert ran.returncode == 0
        assert not (HEAVY | also_banned) & set(ran.stderr.split())

    def test_a_command_loads_no_other_commands(self, daemon):
        probe = self.PROBE.replace("name.partition('.')[0]", "name")
        ran = subprocess.run(
            [sys.executable, "-c", probe, "status", "--json"], check=True, capture_output=True, text=True
        )
        others = main.COMMANDS.keys() - {"watching", "completion"}  # what completes options is known to all
        assert not {f"imagedbd.cli.{name}" for name in others} & set(ran.stderr.split())

    def test_words_are_asked_for_without_the_classes_of_records(self, daemon):
        daemon.answers["/search"] = {"hits": [a_hit("/photos/a.jpg")], "notes": [], "took_ms": 1}
        probe = self.PROBE.replace("name.partition('.')[0]", "name")
        ran = subprocess.run(
            [sys.executable, "-c", probe, "search", "a dog", "--json"],
            check=True,
            capture_output=True,
            text=True,
        )
        assert "imagedbd.client" in ran.stderr.split()
        assert "imagedbd.datatypes" not in ran.stderr.split()


class TestTerminal:
    @pytest.fixture(autouse=True)
    def _terminal(self, terminal):
        self._run = lambda *arguments, **environment: terminal([*PROGRAM, *arguments], **environment)

    def test_colour_on_a_terminal_unless_it_is_not_wanted(self, daemon):
        assert b"\x1b[32midle" in self._run("status")[1]
        assert b"\x1b[32m" not in self._run("status", NO_COLOR="1")[1]

    def test_watching_ends_with_ctrl_c_and_0(self, daemon):
        code, seen = self._run("status", "--watch")
        assert code == 0
        assert b"1,204 indexed" in seen

    def test_a_watched_bar_has_a_line_of_its_own(self, daemon):
        daemon.answers["/status"] |= {"state": "indexing", "pending": 300}
        seen = self._run("status", "--watch")[1].decode()
        assert "━" in seen
        assert all("━" not in line for line in seen.splitlines() if "Ctrl-C" in line)

    def test_waiting_shows_how_far_it_is(self, daemon):
        daemon.answers["/status"] |= {"state": "indexing", "pending": 300, "rate": 12.5, "eta_s": 24}
        daemon.answers["/wait"] = lambda _: time.sleep(1.2) or {"indexed": 1504, "failed": 0}
        code, seen = self._run("wait", COLUMNS="100")
        assert code == 0
        assert b"300 pictures to go" in seen
        assert b"1,504 pictures indexed." in seen


class TestDaemonProgram:
    def test_check_config(self, capfd, tmp_path, monkeypatch):
        monkeypatch.setattr("imagedbd.cli.models._child_json", lambda _: [])
        assert daemon_cli.main(["check-config"]) == 0
        (tmp_path / "config.toml").write_text("device = 'gpu'\n")
        assert daemon_cli.main(["check-config"]) == 78
        assert "imagedbd: Bad configuration: " in capfd.readouterr().err

    def test_check_config_tells_each_fault_on_a_line_of_its_own(self, capfd, tmp_path):
        (tmp_path / "config.toml").write_text("device = 'gpu'\nsettle = 'soon'\n")
        assert daemon_cli.main(["check-config"]) == 78
        lines = capfd.readouterr().err.splitlines()
        assert [line.startswith("imagedbd: Bad configuration: ") for line in lines] == [True, True]
        assert [f", line {number}: " in line for number, line in enumerate(lines, 1)] == [True, True]

    def test_check_config_tells_what_is_not_there(self, capfd, tmp_path, monkeypatch):
        monkeypatch.setattr("imagedbd.cli.models._child_json", lambda _: [{"spec": "A/b", "local": False}])
        settings = f"roots = ['{tmp_path}', '/mnt/gone']\nmodel = 'A/c'\nignore = ['{tmp_path}/x/', '/y/']\n"
        (tmp_path / "config.toml").write_text(settings)
        assert daemon_cli.main(["check-config"]) == 0
        first, root, pattern, model = capfd.readouterr().err.splitlines()
        assert first.endswith("config.toml: ok")
        assert "/mnt/gone is not there: it counts as offline" in root
        assert f"{tmp_path}/x/ matches nothing" in pattern
        assert pattern.endswith(": write /x/.")
        assert "OpenCLIP does not know A/c: `imagedb model list`" in model
        assert "`imagedb model use demo`" in model

    def test_check_config_tells_what_may_be_a_slip(self, capfd, tmp_path, monkeypatch):
        monkeypatch.setattr("imagedbd.cli.models._child_json", lambda _: [{"spec": "A/b", "local": True}])
        monkeypatch.setenv("IMAGEDBD_RESCANS", "1h")
        (tmp_path / "Pictures").mkdir()
        settings = "roots = ['Pictures', '~']\nmodel = 'A/b'\nstore.uri = 's4://x'\n"
        (tmp_path / "config.toml").write_text(settings)
        assert daemon_cli.main(["check-config"]) == 0
        _, variable, root, uri = capfd.readouterr().err.splitlines()
        assert "IMAGEDBD_RESCANS: there is no such setting" in variable
        assert variable.endswith("Did you mean IMAGEDBD_RESCAN?")
        assert f"write {tmp_path}/Pictures, if" in root
        assert "LanceDB may not know s4://" in uri

    @pytest.mark.parametrize("pattern", ["!", "[z-a].jpg"])
    def test_check_config_refuses_what_the_daemon_would(self, capfd, tmp_path, pattern):
        (tmp_path / "config.toml").write_text(f"ignore = ['{pattern}']\n")
        assert daemon_cli.main(["check-config"]) == 78
        assert f"ignore: not a pattern: {pattern!r}." in capfd.readouterr().err

    def test_check_config_names_the_ways_on_for_a_model_that_is_not_here(self, capfd, tmp_path, monkeypatch):
        monkeypatch.setattr("imagedbd.cli.models._child_json", lambda _: [{"spec": "A/b", "local": False}])
        (tmp_path / "config.toml").write_text("model = 'A/b'\n")
        assert daemon_cli.main(["check-config"]) == 0
        model = capfd.readouterr().err.splitlines()[-1]
        assert "the weights of A/b are not on this machine: `imagedb model pull`" in model
        assert "`imagedb model use demo`" in model

    def test_a_device_that_is_not_there_is_refused(self, capfd, tmp_path):
        (tmp_path / "config.toml").write_text("device = 'mps'\n")
        for command in ("check-config", "run"):
            assert daemon_cli.main([command]) == 78
            assert "There is no device 'mps' here. There are: cpu" in capfd.readouterr().err

    def test_run_hands_on_what_was_given_and_reads_the_rest_again(self, monkeypatch, tmp_path):
        import types

        seen = {}

        def run(read_settings, *, pull):
            (tmp_path / "config.toml").write_text("settle = '3s'\n")
            seen.update(settings=read_settings(), pull=pull)
            return 70

        monkeypatch.setitem(sys.modules, "imagedbd.daemon", types.SimpleNamespace(run=run))
        import imagedbd

        monkeypatch.setattr(imagedbd, "daemon", sys.modules["imagedbd.daemon"], raising=False)
        code = daemon_cli.main(
            ["run", "--root", "a", "--root", "b", "--model", "demo", "--device", "cpu", "--no-pull"]
        )
        assert code == 70
        settings = seen["settings"]
        assert settings.roots == (str(tmp_path / "a"), str(tmp_path / "b"))
        assert (settings.model, settings.device, settings.settle, seen["pull"]) == ("demo", "cpu", 3.0, False)

    def test_a_bad_flag_is_told_before_anything_starts(self, capfd):
        assert daemon_cli.main(["run", "--store", "shelf"]) == 78
        assert "--store: store: 'shelf' is not one of lance" in capfd.readouterr().err

    def test_a_module_is_a_program(self):
        ran = subprocess.run(
            [sys.executable, "-m", "imagedbd", "--version"], check=False, capture_output=True, text=True
        )
        assert ran.stdout == f"imagedbd {__version__}\n"


class TestWhichDaemon:
    """A question needs to know where the daemon is, and nothing else of the settings."""

    @pytest.fixture
    def default_place(self, monkeypatch, tmp_path):
        """No variable says where the socket is; a daemon listens where the defaults have it."""
        monkeypatch.delenv("IMAGEDBD_SOCKET")
        with tempfile.TemporaryDirectory(prefix="idb") as runtime:
            monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)
            os.mkdir(os.path.join(runtime, "imagedbd"))
            with served(os.path.join(runtime, "imagedbd", "imagedbd.sock")) as fake:
                yield fake

    @pytest.mark.parametrize("fault", ["stor = 'lance'", "no toml", "socket = 5"])
    def test_a_faulty_file_keeps_nobody_from_asking_one_that_runs(
        self, default_place, imagedb, tmp_path, fault
    ):
        (tmp_path / "config.toml").write_text(fault)
        ran = imagedb("status")
        assert ran.code == 0
        assert "config.toml" in ran.words
        assert "goes on with the settings that it has" in ran.words

    @pytest.fixture
    def early_daemon(self, monkeypatch):
        """One that was started before there was a runtime folder, and so listens beside its data."""
        monkeypatch.delenv("IMAGEDBD_SOCKET")
        with tempfile.TemporaryDirectory(prefix="idb") as folder:
            monkeypatch.setenv("XDG_RUNTIME_DIR", os.path.join(folder, "runtime"))
            monkeypatch.setenv("IMAGEDBD_DATA_DIR", folder)
            os.mkdir(os.path.join(folder, "run"), mode=0o700)
            with served(os.path.join(folder, "run", "imagedbd.sock")) as fake:
                yield fake

    def test_one_from_before_the_login_is_found_beside_its_data(self, early_daemon, imagedb, tmp_path):
        assert imagedb("status").code == 0
        (tmp_path / "config.toml").write_text("stor = 'lance'\n")
        assert imagedb("status").code == 0

    def test_but_not_where_others_could_have_put_it(self, early_daemon, imagedb):
        os.chmod(os.path.dirname(early_daemon.socket), 0o750)  # noqa: S103 - that is the fault
        assert imagedb("status").code == 69

    def test_and_not_in_the_place_of_one_that_is_where_it_should_be(self, early_daemon, imagedb):
        runtime = os.path.join(os.environ["XDG_RUNTIME_DIR"], "imagedbd")
        os.makedirs(runtime, mode=0o700)
        with served(os.path.join(runtime, "imagedbd.sock")) as fake:
            assert imagedb("status").code == 0
        assert (len(fake.requests), len(early_daemon.requests)) == (1, 0)

    def test_nor_where_a_setting_says_where_the_daemon_is(self, early_daemon, imagedb, tmp_path):
        (tmp_path / "config.toml").write_text(f"socket = '{tmp_path}/s'\n")
        assert imagedb("status").code == 69

    def test_a_faulty_file_still_says_where_the_daemon_is(self, daemon, imagedb, tmp_path, monkeypatch):
        (tmp_path / "config.toml").write_text(f"socket = '{os.environ['IMAGEDBD_SOCKET']}'\nstor = 'lance'\n")
        monkeypatch.delenv("IMAGEDBD_SOCKET")
        assert imagedb("status").code == 0

    def test_who_says_where_the_daemon_is_needs_no_file(self, daemon, imagedb, tmp_path, monkeypatch):
        (tmp_path / "config.toml").write_text("stor = 'lance'\n")
        socket = os.environ["IMAGEDBD_SOCKET"]
        monkeypatch.delenv("IMAGEDBD_SOCKET")
        ran = imagedb("--socket", socket, "status")
        assert (ran.code, ran.words) == (0, "")

    def test_a_file_that_an_option_names_has_to_be_there(self, daemon, imagedb, capfdbinary):
        ran = imagedb("--config", "mispelt.toml", "status")
        assert ran.code == 78
        assert "There is no file mispelt.toml. `imagedb config init --config FILE`" in ran.words
        for command in ("run", "check-config", "repair"):
            assert daemon_cli.main([command, "--config", "mispelt.toml"]) == 78
            assert "There is no file mispelt.toml" in capfdbinary.readouterr().err.decode()

    def test_the_daemon_of_another_index_is_not_asked(self, daemon, imagedb, tmp_path):
        ran = imagedb("--data-dir", str(tmp_path), "status")
        assert ran.code == 2
        assert f"has its index in /data, and not in {tmp_path}. --socket names another daemon" in ran.words
        assert imagedb("--data-dir", "/data", "status").code == 0
