"""A small Debian, booted by its own systemd in a container, that sees this checkout and its interpreter.

It takes root, ``debootstrap`` and ``systemd-nspawn`` (Debian: systemd-container). The system is fetched once
and kept; every container is a copy of it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

RELEASE = "bookworm"
PACKAGES = (
    "systemd,systemd-sysv,dbus,dbus-user-session,libpam-systemd,procps,"
    # What Python and the wheels are linked to.
    "libssl3,libffi8,libsqlite3-0,zlib1g,liblzma5,libbz2-1.0,libgomp1,libstdc++6,libuuid1"
)
SYSTEM = Path(os.environ.get("IMAGEDBD_TEST_DEBIAN", f"~/.cache/imagedbd-tests/{RELEASE}")).expanduser()
CHECKOUT = Path(__file__).resolve().parents[1]
BOOT_TIMEOUT_S = 60.0
USER, UID = "ana", 1000


def why_impossible() -> str | None:
    """Why there can be no container here; ``None`` if there can."""
    if os.geteuid() != 0:
        return "a container is booted by root"
    missing = [name for name in ("systemd-nspawn", "nsenter") if shutil.which(name) is None]
    if not SYSTEM.is_dir() and shutil.which("debootstrap") is None:
        missing.append("debootstrap")
    if missing:
        return f"not installed: {', '.join(missing)}"
    if sys.base_prefix == "/usr":
        return "the interpreter is the system's own, and cannot be lent to a container"
    return None


class Container:
    """One machine with one user, who lingers."""

    def __init__(self, root: Path, environment: dict[str, str]) -> None:
        """:param environment: of the user's shell, beside the usual."""
        self.root = root
        self.home = root / "home" / USER
        programs = [os.path.dirname(sys.executable), "/usr/local/bin", "/usr/bin", "/bin"]
        self.environment = {
            "HOME": f"/home/{USER}",
            "PATH": ":".join(programs),
            "XDG_RUNTIME_DIR": f"/run/user/{UID}",
            "LANG": "C.UTF-8",
            "NO_COLOR": "1",
            **environment,
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._leader = 0

    def boot(self) -> None:
        """Start it, and return when the user's systemd answers. :raises RuntimeError: it does not come up."""
        binds = {sys.prefix, sys.base_prefix, os.path.realpath(sys.base_prefix), str(CHECKOUT)}
        command = [
            "systemd-nspawn", f"--directory={self.root}", "--boot", "--register=no", "--keep-unit",
            "--link-journal=no", "--private-network", "--console=pipe",
            *(f"--bind-ro={path}" for path in sorted(binds)),
        ]  # fmt: skip
        with (self.root.parent / "console").open("ab") as console:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=console, stderr=console
            )
        try:
            self.until(self._find_leader, BOOT_TIMEOUT_S)
            self.until(lambda: self.run("systemctl", "--user", "is-active", "basic.target").returncode == 0)
        except AssertionError as error:
            raise RuntimeError((self.root.parent / "console").read_text(errors="replace")[-2000:]) from error

    def shut_down(self) -> None:
        """As a machine is: every service is stopped in order."""
        self.as_root("systemctl", "poweroff", "--no-block")
        assert self._process is not None
        self._process.wait(60)
        self._process = None

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def run(self, *command: str, stdin: bytes | None = None) -> subprocess.CompletedProcess[str]:
        """A command of the user's."""
        variables = [f"{name}={value}" for name, value in self.environment.items()]
        return self.as_root(
            "runuser", "-u", USER, "--", "env", "-i", "--chdir=/home/ana", *variables, *command
        )

    def as_root(self, *command: str) -> subprocess.CompletedProcess[str]:
        enter = ["nsenter", f"--target={self._leader}", "--mount", "--uts", "--ipc", "--net", "--pid"]
        return subprocess.run(
            [*enter, "--", *command],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=120,
        )

    def json(self, *command: str) -> Any:
        """What a successful ``imagedb … --json`` prints."""
        done = self.run("imagedb", *command, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def until(self, condition: Callable[[], object], timeout: float = 60.0) -> None:
        """Wait for something that must happen by itself."""
        deadline = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < deadline, f"did not happen in {timeout:g} s"
            assert self._process is not None
            assert self._process.poll() is None, "the container has ended"
            time.sleep(0.2)

    def journal(self) -> str:
        return self.as_root("journalctl", "--no-pager", "-n", "200").stdout

    def _find_leader(self) -> bool:
        assert self._process is not None
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in psutil.Process(self._process.pid).children():
                if child.name() == "systemd":
                    self._leader = child.pid
                    return True
        return False


@contextmanager
def new_container(folder: Path, environment: dict[str, str]) -> Iterator[Container]:
    """:raises RuntimeError: the system cannot be fetched, or this installation cannot be seen in it."""
    if os.path.realpath(sys.prefix).startswith("/tmp/"):  # noqa: S108 - asked, not used
        raise RuntimeError("what is tested lies in /tmp, of which a container has one of its own")
    SYSTEM.parent.mkdir(parents=True, exist_ok=True)
    # One at a time: two would fight over their places among the control groups.
    with SYSTEM.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not SYSTEM.is_dir():
            _fetch()
        root = folder / "system"
        subprocess.run(["cp", "-a", "--reflink=auto", str(SYSTEM), str(root)], check=True)
        _set_up(root)
        container = Container(root, environment)
        try:
            yield container
        finally:
            container.close()
            shutil.rmtree(root)


def _fetch() -> None:
    draft = SYSTEM.with_suffix(".draft")
    shutil.rmtree(draft, ignore_errors=True)
    command = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", RELEASE, str(draft)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"debootstrap: {done.stdout[-1000:]}")
    draft.rename(SYSTEM)


def _set_up(root: Path) -> None:
    if not (root / "home" / USER).exists():
        subprocess.run(["chroot", root, "useradd", "-m", "-u", str(UID), "-s", "/bin/bash", USER], check=True)
    (root / "etc" / "machine-id").write_text("")
    linger = root / "var" / "lib" / "systemd" / "linger"
    linger.mkdir(parents=True, exist_ok=True)
    (linger / USER).touch()
    # With a folder for it the journal outlives the boot, and users may read their part.
    (root / "var" / "log" / "journal").mkdir(exist_ok=True)
    # The interpreter may be in there.
    (root / "root").chmod(0o755)
