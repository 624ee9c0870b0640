"""The service under a real systemd: installed by an ordinary user, and put through what a service meets.

Slow: run by ``pytest -m systemd -n0``, as root.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import container as containers
import pytest
from container import CHECKOUT, UID, USER, Container
from pictures import save

pytestmark = [
    pytest.mark.slow,
    pytest.mark.systemd,
    pytest.mark.timeout(900),
    pytest.mark.skipif(containers.why_impossible() is not None, reason=str(containers.why_impossible())),
]

PICTURES = 30
STUB = {
    "PYTHONPATH": f"{CHECKOUT / 'tests' / 'stub'}:{CHECKOUT}",
    "IMAGEDBD_MODEL": "local-dir:/srv/model",
    "IMAGEDBD_DTYPE": "fp32",
}
PROGRAM = [f"PYTHONPATH={STUB['PYTHONPATH']}", "NO_COLOR=1"]
OVERRIDE = """
[Service]
WatchdogSec=6s
RestartSec=100ms
Environment=IMAGEDBD_STUB_FREEZES=1
"""


class Service:
    """The daemon of the container's user, as that user sees it."""

    def __init__(self, machine: Container) -> None:
        self.machine = machine
        self.photos = machine.home / "Pictures"

    def add_pictures(self, first: int, count: int, folder: str = "Pictures") -> None:
        for number in range(first, first + count):
            save(self.machine.home / folder / f"{number}.jpg", number)
        _own(self.machine.home / folder)

    def state(self) -> dict[str, Any]:
        done = self.machine.run("imagedb", "service", "status", "--json")
        assert done.returncode in {0, 69}, done.stderr
        state: dict[str, Any] = json.loads(done.stdout)
        return state

    def is_up(self) -> bool:
        return bool(self.state()["active"] == "active")

    def do(self, *arguments: str) -> str:
        """A command of ``imagedb`` that works; what it said."""
        done = self.machine.run("imagedb", *arguments)
        assert done.returncode == 0, done.stderr + self.machine.journal()
        return done.stdout + done.stderr

    def kill(self, number: str) -> int:
        """Send a signal to the daemon; returns its former process id."""
        pid = self.state()["pid"]
        assert self.machine.run("kill", f"-{number}", str(pid)).returncode == 0
        return int(pid)

    def until_restarted(self, former: int) -> None:
        self.machine.until(lambda: self.state()["pid"] not in {None, former} and self.is_up())

    def listed(self) -> set[str]:
        home = f"/home/{USER}"
        return {os.path.relpath(row["path"], home) for row in self.machine.json("list")}

    def fields(self, *matches: str) -> list[dict[str, Any]]:
        """Entries of the journal."""
        done = self.machine.as_root("journalctl", "-o", "json", "SYSLOG_IDENTIFIER=imagedbd", *matches)
        return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    environment = {**STUB, "IMAGEDBD_MODEL": f"local-dir:/home/{USER}/model"}
    with ExitStack() as stack:
        try:
            machine = stack.enter_context(
                containers.new_container(tmp_path_factory.mktemp("debian"), environment)
            )
        except RuntimeError as error:
            pytest.skip(f"there can be no Debian here: {error}")
        service = Service(machine)
        service.add_pictures(0, PICTURES)
        (machine.home / "model").mkdir()
        (machine.home / "model" / "open_clip_config.json").write_text('{"seconds": 0.05}')
        settings = machine.home / ".config" / "imagedbd"
        settings.mkdir(parents=True)
        (settings / "config.toml").write_text('roots = ["~/Pictures"]\n')
        changes = machine.home / ".config" / "systemd" / "user" / "imagedbd.service.d"
        changes.mkdir(parents=True)
        (changes / "override.conf").write_text(OVERRIDE)
        _own(machine.home)
        try:
            machine.boot()
        except RuntimeError as error:
            pytest.skip(f"a container cannot be booted here: {error}")
        try:
            print(service.do("service", "install"))
            service.do("wait")
            yield service
        finally:
            print(machine.journal())


def test_install_as_an_ordinary_user_starts_a_daemon_that_indexes(service: Service) -> None:
    state = service.state()
    assert state["active"] == "active"
    assert state["socket_active"] == "active"
    assert state["at_login"]
    assert state["lingers"]
    service.machine.until(lambda: service.state()["status"] == "Watching for changes.")
    assert {f"Pictures/{number}.jpg" for number in range(PICTURES)} <= service.listed()


def test_it_is_shut_in(service: Service) -> None:
    """What the unit asks for is what the process has."""
    pid = str(service.state()["pid"])
    status = dict(
        line.split(":", 1)
        for line in service.machine.as_root("cat", f"/proc/{pid}/status").stdout.splitlines()
    )
    assert status["NoNewPrivs"].strip() == "1"
    assert status["Seccomp"].strip() == "2"
    assert int(status["CapBnd"], 16) == 0
    enter = ["nsenter", f"--target={pid}", "--mount", "--net"]
    assert service.machine.as_root(*enter, "ls", "/sys/class/net").stdout.split() in ([], ["lo"])
    for forbidden in (f"/home/{USER}/x", "/usr/x", "/x"):
        done = service.machine.as_root(*enter, "touch", forbidden)
        assert "Read-only file system" in done.stderr, forbidden
    assert service.machine.as_root(*enter, "ls", "/dev").stdout.count("loop") == 0


def test_its_units_are_sound(service: Service) -> None:
    folder = f"/home/{USER}/.config/systemd/user"
    done = service.machine.run(
        "systemd-analyze", "verify", "--user", f"{folder}/imagedbd.service", f"{folder}/imagedbd.socket"
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_checkup_knows_how_the_service_stands(service: Service) -> None:
    findings = json.loads(service.machine.run("imagedb", "doctor", "--json").stdout)
    (found,) = (finding for finding in findings if finding["check"] == "service")
    assert (found["level"], found["fix"]) == ("ok", None)
    assert str(service.state()["pid"]) in found["finding"]


def test_a_killed_daemon_is_started_again_with_its_index(service: Service) -> None:
    before = service.listed()
    service.until_restarted(service.kill("KILL"))
    service.do("wait")
    assert service.listed() == before
    assert service.machine.json("status")["embeds_total"] == 0


def test_a_daemon_that_is_stopped_dead_is_started_again(service: Service) -> None:
    service.until_restarted(service.kill("STOP"))
    service.do("wait")


def test_a_frozen_control_loop_is_ended_by_the_watchdog_and_leaves_a_trace(service: Service) -> None:
    service.until_restarted(service.kill("USR2"))
    said = service.machine.as_root("journalctl", "--no-pager", "-n", "300").stdout
    assert "in freeze" in said
    assert "Watchdog timeout" in said
    service.do("wait")


def test_an_idle_daemon_is_left_alone(service: Service) -> None:
    before = service.state()
    deadline = service.machine.as_root("date", "+%s").stdout
    service.machine.until(lambda: int(service.machine.as_root("date", "+%s").stdout) - int(deadline) > 15)
    after = service.state()
    assert (after["pid"], after["restarts"]) == (before["pid"], before["restarts"])


def test_a_stop_with_work_in_flight_is_clean_and_nothing_is_lost(service: Service) -> None:
    known = len(service.listed())
    service.add_pictures(1000, 100)
    service.machine.until(lambda: service.machine.json("status")["indexed"] > known)
    stopped = service.machine.run("systemctl", "--user", "stop", "imagedbd.service")
    assert stopped.returncode == 0
    state = service.state()
    assert (state["active"], state["result"]) == ("inactive", "success")
    service.do("service", "start")
    service.do("wait")
    assert len(service.listed()) == known + 100
    assert service.machine.json("failures") == []


def test_the_first_query_wakes_the_daemon(service: Service) -> None:
    service.machine.run("systemctl", "--user", "stop", "imagedbd.service")
    assert service.state()["active"] == "inactive"
    assert service.machine.json("search", "--prompt", "a dog", "-n", "3")
    assert service.is_up()


def test_stopped_means_stopped_until_it_is_started(service: Service) -> None:
    service.do("service", "stop")
    asked = service.machine.run("imagedb", "status")
    assert asked.returncode == 69
    assert service.state()["active"] == "inactive"
    service.do("service", "start")
    assert service.is_up()


def test_a_reload_takes_up_a_folder_without_a_restart(service: Service) -> None:
    service.add_pictures(2000, 2, "More")
    pid = service.state()["pid"]
    settings = service.machine.home / ".config" / "imagedbd" / "config.toml"
    settings.write_text('roots = ["~/Pictures", "~/More"]\n')
    done = service.machine.run("systemctl", "--user", "reload", "imagedbd.service")
    assert done.returncode == 0, done.stderr
    service.machine.until(lambda: "More/2001.jpg" in service.listed())
    assert service.is_up()
    assert service.state()["pid"] == pid


def test_faulty_settings_do_not_loop_and_are_told_to_who_asks(service: Service) -> None:
    settings = service.machine.home / ".config" / "imagedbd" / "config.toml"
    good = settings.read_text()
    settings.write_text("rots = []\n")
    try:
        done = service.machine.run("imagedb", "service", "restart")
        assert done.returncode == 70
        assert "roots" in done.stderr
        state = service.state()
        assert (state["active"], state["exit_status"], state["restarts"]) == ("failed", 78, 0)
        asked = service.machine.run("imagedb", "--config", "/dev/null", "status")
        assert asked.returncode == 78, asked.stderr
        assert "roots" in asked.stderr
        assert service.state()["socket_active"] == "active"
    finally:
        settings.write_text(good)
    service.do("service", "start")
    assert service.is_up()


def test_the_journal_has_fields(service: Service) -> None:
    entries = service.fields("LOGGER=imagedbd.daemon")
    serves = next(entry for entry in entries if "serves" in entry["MESSAGE"])
    assert serves["PRIORITY"] == "6"
    assert "_serve" in serves["CODE_FUNC"]  # libsystemd adds the place in itself that sent it
    assert serves["_SYSTEMD_USER_UNIT"] == "imagedbd.service"
    assert "serves" in service.do("service", "logs", "-n", "500")


def test_a_reboot_brings_it_back_with_its_index(service: Service) -> None:
    service.do("wait")
    before = service.listed()
    service.machine.shut_down()
    service.machine.boot()
    service.machine.until(service.is_up)
    service.do("wait")
    assert service.listed() == before
    assert service.machine.json("status")["embeds_total"] == 0


def test_uninstalled_nothing_is_left_but_the_index_and_what_the_user_wrote(service: Service) -> None:
    service.do("wait")
    before = service.listed()
    service.do("service", "uninstall")
    units = service.machine.home / ".config" / "systemd" / "user"
    left = {str(path.relative_to(units)) for path in units.rglob("*") if not path.is_dir()}
    assert left == {"imagedbd.service.d/override.conf"}
    again = service.machine.run("imagedb", "service", "status")
    assert again.returncode == 70
    assert "imagedb service install" in again.stderr
    service.do("service", "install", "--no-pull")
    assert service.listed() == before


@pytest.mark.parametrize("options", [[], ["--no-sandbox"]], ids=["sandbox", "no-sandbox"])
def test_the_real_openclip_works_as_a_service(
    service: Service, monkeypatch: pytest.MonkeyPatch, options: list[str]
) -> None:
    folder = f"/home/{USER}/real{''.join(options)}"
    real = {"PYTHONPATH": str(CHECKOUT), "IMAGEDBD_MODEL": "demo", "IMAGEDBD_DATA_DIR": folder}
    for name, value in real.items():
        monkeypatch.setitem(service.machine.environment, name, value)
    service.do("service", "install", *options)
    service.do("wait")
    status = service.machine.json("status")
    assert status["model"] == {**status["model"], "name": "demo", "state": "ready"}
    assert status["embeds_total"] >= PICTURES
    assert service.machine.json("search", "--prompt", "a red car", "-n", "3")


def test_one_for_the_whole_machine_runs_under_an_account_of_its_own(service: Service) -> None:
    machine = service.machine
    units = machine.root / "etc" / "systemd" / "system"
    shipped = CHECKOUT / "systemd"
    for unit in ("imagedbd.service", "imagedbd.socket"):
        (units / f"{unit}.d").mkdir()
        shutil.copy(shipped / unit, units)
    shutil.copy(shipped / "drop-ins" / "system.conf", units / "imagedbd.service.d")
    shutil.copy(shipped / "drop-ins" / "system-socket.conf", units / "imagedbd.socket.d")
    variables = "".join(f"Environment={name}={value}\n" for name, value in STUB.items())
    program = f"ExecStart=\nExecStart={sys.executable} -m imagedbd run --no-pull\n"
    (units / "imagedbd.service.d" / "z.conf").write_text(f"[Service]\n{program}{variables}")
    pictures = machine.root / "srv" / "pictures"
    save(pictures / "a.jpg", 1)
    (machine.root / "etc" / "imagedbd").mkdir()
    (machine.root / "etc" / "imagedbd" / "config.toml").write_text('roots = ["/srv/pictures"]\n')
    shutil.copytree(machine.home / "model", machine.root / "srv" / "model")

    account = ["useradd", "--system", "--home-dir", "/var/lib/imagedbd", "imagedbd"]
    assert machine.as_root(*account).returncode == 0
    machine.as_root("systemctl", "daemon-reload")
    begun = machine.as_root("systemctl", "enable", "--now", "imagedbd.socket", "imagedbd.service")
    assert begun.returncode == 0, begun.stderr + machine.journal()

    imagedb = [f"{os.path.dirname(sys.executable)}/imagedb", "--socket", "/run/imagedbd/imagedbd.sock"]
    ask = [*imagedb, "list", "--paths"]
    waited = machine.as_root("runuser", "-u", "imagedbd", "--", "env", *PROGRAM, *imagedb, "wait")
    assert waited.returncode == 0, waited.stderr + machine.journal()
    asked = machine.as_root("runuser", "-u", "imagedbd", "--", "env", *PROGRAM, *ask)
    assert asked.stdout == "/srv/pictures/a.jpg\n"
    assert machine.run(*ask).returncode == 69
    # The folder of the socket outlives a stop, and the next question starts it again.
    assert machine.as_root("systemctl", "stop", "imagedbd.service").returncode == 0
    again = machine.as_root("runuser", "-u", "imagedbd", "--", "env", *PROGRAM, *ask)
    assert again.stdout == asked.stdout, again.stderr
    analysed = machine.as_root("systemd-analyze", "security", "--no-pager", "imagedbd.service")
    assert float(analysed.stdout.split()[-3]) <= 2.0


def _own(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        shutil.chown(path, UID, UID)
