"""The process itself: start, stop, lock, socket, a model that is not there, what it does not import."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from machine import program
from pictures import exif, save

if TYPE_CHECKING:
    from machine import Machine


def test_it_stops_on_sigterm_and_leaves_neither_socket_nor_children(machine: Machine) -> None:
    save(machine.photos / "a.jpg", 1)
    machine.start(cold=True)
    machine.wait()
    assert machine.process is not None
    children = psutil.Process(machine.process.pid).children(recursive=True)
    assert machine.stop(signal.SIGTERM) == 0
    assert not (machine.home / "run" / "s.sock").exists()
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive


def test_it_stops_with_work_in_flight(machine: Machine) -> None:
    for number in range(60):
        save(machine.photos / f"{number}.jpg", number)
    machine.start()
    machine.until(lambda: machine.json("status")["indexed"] > 0)
    assert machine.stop() == 0


def test_a_killed_daemon_leaves_no_children(machine: Machine) -> None:
    save(machine.photos / "a.jpg", 1)
    machine.start()
    machine.wait()
    assert machine.process is not None
    children = psutil.Process(machine.process.pid).children(recursive=True)
    assert children
    machine.stop(signal.SIGKILL)
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive


def test_its_loop_does_not_tick_when_it_is_idle(machine: Machine) -> None:
    save(machine.photos / "a.jpg", 1)
    machine.start()
    machine.wait()
    assert machine.process is not None
    number = machine.process.pid
    status = Path(f"/proc/{number}/task/{number}/status")  # of the thread that serves

    def wakes_up_less_than_once_a_second() -> bool:
        before = wakeups(status.read_text())
        time.sleep(3)
        return wakeups(status.read_text()) - before < 3

    machine.until(wakes_up_less_than_once_a_second, 60)


def wakeups(status: str) -> int:
    found = re.search(r"^voluntary_ctxt_switches:\s*(\d+)", status, re.MULTILINE)
    assert found
    return int(found[1])


def test_a_second_daemon_is_refused_and_the_first_goes_on(machine: Machine) -> None:
    machine.start()
    second = subprocess.run(
        [program("imagedbd"), "run"], env=machine.environment, capture_output=True, check=False
    )
    assert second.returncode == 75
    assert b"Traceback" not in second.stderr
    assert machine.run("status").returncode == 0


def test_the_socket_is_private_whatever_the_umask(machine: Machine) -> None:
    old = os.umask(0)
    try:
        machine.start()
    finally:
        os.umask(old)
    path = machine.home / "run" / "s.sock"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_socket_folder_that_others_may_write_in_is_refused(machine: Machine) -> None:
    (machine.home / "run").mkdir()
    (machine.home / "run").chmod(0o777)
    done = machine.imagedbd("run")
    assert done.returncode == 78
    assert str(machine.home / "run").encode() in done.stderr


def test_a_socket_path_that_is_too_long_is_refused(machine: Machine) -> None:
    machine.environment["IMAGEDBD_SOCKET"] = str(machine.home / ("x" * 108))
    done = machine.imagedbd("run")
    assert done.returncode == 78
    assert b"107" in done.stderr


def test_a_socket_folder_that_is_a_link_is_refused(machine: Machine) -> None:
    (machine.home / "elsewhere").mkdir(mode=0o700)
    (machine.home / "run").symlink_to("elsewhere")
    done = machine.imagedbd("run")
    assert done.returncode == 78
    assert not list((machine.home / "elsewhere").iterdir())


def test_it_stops_under_clients_that_are_silent_and_such_as_do_not_read(machine: Machine) -> None:
    machine.start()
    with contextlib.ExitStack() as clients:
        for number in range(40):
            client = clients.enter_context(socket.socket(socket.AF_UNIX))
            client.connect(str(machine.home / "run" / "s.sock"))
            if number % 2:
                client.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 100)
        machine.json("status")
        assert machine.stop() == 0
    assert "Traceback" not in machine.log()


def test_a_file_in_the_place_of_the_socket_is_left_alone(machine: Machine) -> None:
    (machine.home / "run").mkdir(mode=0o700)
    (machine.home / "run" / "s.sock").write_text("my notes")
    done = machine.imagedbd("run")
    assert done.returncode == 78
    assert (machine.home / "run" / "s.sock").read_text() == "my notes"


def test_who_waits_when_the_daemon_stops_is_told_so(machine: Machine) -> None:
    machine.environment["IMAGEDBD_SETTLE"] = machine.environment["IMAGEDBD_SETTLE_MAX"] = "60"
    machine.start()
    save(machine.home / "a.jpg", 1)
    # A file that its writer has closed would settle at once.
    with socket.socket(socket.AF_UNIX) as waiting, (machine.photos / "a.jpg").open("wb") as written:
        written.write((machine.home / "a.jpg").read_bytes())
        written.flush()
        waiting.settimeout(30)
        waiting.connect(str(machine.home / "run" / "s.sock"))
        waiting.sendall(b"POST /wait HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nConnection: close\r\n")
        waiting.sendall(b"Content-Type: application/json\r\n\r\n{}")
        # Connections are served in their order: once these are answered, the wait has begun.
        machine.until(lambda: machine.json("status")["pending"] == 1)
        machine.json("status")
        assert machine.stop() == 0
        answer = b""
        while chunk := waiting.recv(65536):
            answer += chunk
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b" 503 " in head.splitlines()[0]
    assert json.loads(body)["error"]["name"] == "DaemonStoppingError"
    assert "Traceback" not in machine.log()


def test_curl_gets_the_interface_described(machine: Machine) -> None:
    machine.start()
    described = json.loads(get(machine, "/openapi.json"))
    assert "/search" in described["paths"]
    assert b"/openapi.json" in get(machine, "/")


def get(machine: Machine, path: str) -> bytes:
    """The body of a plain HTTP request over the socket."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(machine.home / "run" / "s.sock"))
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b" 200 " in head.splitlines()[0]
    return body


def test_without_a_daemon_the_commands_name_the_one_that_starts_it(machine: Machine) -> None:
    for command in (["search", "x"], ["status"], ["wait"], ["list"], ["failures"]):
        done = machine.run(*command)
        assert done.returncode == 69, command
        assert b"imagedbd run" in done.stderr


def test_without_a_model_metadata_is_searchable_and_pictures_wait_for_it(machine: Machine) -> None:
    there = Path(machine.model.removeprefix("local-dir:"))
    later = machine.home / "model"
    machine.environment["IMAGEDBD_MODEL"] = f"local-dir:{later}"
    save(machine.photos / "a.jpg", 1, exif=exif(make="NIKON"))
    machine.start()
    machine.until(lambda: machine.json("status")["waiting"] == 1)

    assert len(machine.json("search", "--text", "nikon")) == 1
    bare = machine.run("search", "nikon", "--json")
    assert len(json.loads(bare.stdout)) == 1
    assert b"metadata" in bare.stderr
    assert machine.run("search", "--prompt", "a dog").returncode == 70
    waited = machine.run("wait")
    assert waited.returncode == 70
    assert str(later).encode() in waited.stderr

    shutil.copytree(there, later)
    get_model = machine.run("model", "pull", f"local-dir:{later}")
    assert get_model.returncode == 0, get_model.stderr
    machine.wait()
    assert machine.json("status")["embeds_total"] == 1
    assert len(machine.json("search", "--prompt", "a dog")) == 1
    assert "Traceback" not in machine.log()


def test_the_model_of_the_store_goes_on_answering_when_another_is_configured(machine: Machine) -> None:
    save(machine.photos / "a.jpg", 1)
    machine.start()
    machine.wait()
    machine.stop()
    machine.environment["IMAGEDBD_MODEL"] = "ViT-B-32/openai"
    machine.start()
    model = machine.json("status")["model"]
    assert (model["name"], model["configured"]) == (machine.model, "ViT-B-32/openai")
    assert len(machine.json("search", "--prompt", "a dog")) == 1


def test_sighup_reads_the_roots_again_and_a_faulty_file_changes_nothing(machine: Machine) -> None:
    machine.start()
    save(machine.home / "more" / "b.jpg", 2)
    added = machine.run("root", "add", str(machine.home / "more"))
    assert added.returncode == 0, added.stderr
    machine.until(lambda: machine.listed() == {"more/b.jpg"})
    good = (machine.home / "config.toml").read_text()
    (machine.home / "config.toml").write_text("roots = 7\n")
    assert machine.process is not None
    machine.process.send_signal(signal.SIGHUP)
    machine.until(lambda: "roots" in machine.log() and "old settings stay" in machine.log())
    (machine.home / "config.toml").write_text(good)
    assert machine.listed() == {"more/b.jpg"}


def test_asking_for_the_status_loads_nothing_heavy(machine: Machine) -> None:
    program = (
        "import sys; from imagedbd.cli.main import main\n"
        "sys.argv = ['imagedb', 'status', '--json']\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "heavy = {'torch', 'lancedb', 'pandas', 'pydantic', 'fastapi', 'numpy', 'pyarrow', 'PIL'}\n"
        "loaded = heavy & set(sys.modules); assert not loaded, loaded"
    )
    machine.start()
    done = subprocess.run(
        [sys.executable, "-c", program], env=machine.environment, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
