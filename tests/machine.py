"""A real daemon in a process of its own, and the real command line to talk to it."""

from __future__ import annotations

import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import warm

from imagedbd.client import Client
from imagedbd.errors import ImagedbError

START_TIMEOUT_S = 60.0

_NOBODY = 65534
AS_NOBODY = ["setpriv", f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups"]


def program(name: str) -> str:
    """The console script, as the user has it on the path."""
    return os.path.join(os.path.dirname(sys.executable), name)


_WARM = {program("imagedbd"), sys.executable}
"""Programs that are started in the place of the daemon, and need no interpreter of their own."""


@functools.cache
def interpreter_for_another_user() -> str | None:
    """A Python that a user who is not root may run, with all that a daemon needs; ``None`` if there is none.

    That of a virtual environment may lie where only root may look; then the system's own has its libraries.
    """
    version = f"python3.{sys.version_info.minor}"
    names = [sys.executable, shutil.which(version, path="/usr/local/bin:/usr/bin")]
    return next((name for name in names if name and _another_user_can_run(name)), None)


def _another_user_can_run(python: str) -> bool:
    probe = (
        "import subprocess, sys; import imagedbd, lancedb; sys.exit(subprocess.call([sys.executable, '-V']))"
    )
    environment = {**os.environ, "PYTHONPATH": _python_path()}
    try:
        command = [*_as_another_user(), python, "-c", probe]
        done = subprocess.run(command, capture_output=True, env=environment, check=False)
    except OSError:
        return False
    return done.returncode == 0


def _as_another_user() -> list[str]:
    return AS_NOBODY if os.geteuid() == 0 else []


def _python_path(*before: str) -> str:
    own = os.environ.get("PYTHONPATH")
    return os.pathsep.join([*before, *([own] if own else []), sysconfig.get_path("purelib")])


class Machine:
    """One user's home: roots, configuration, data, and perhaps a daemon that runs on them."""

    def __init__(self, home: Path, checkpoint: Path | None = None) -> None:
        """:param checkpoint: of an OpenCLIP model; without one, a stub takes OpenCLIP's place."""
        self.home = home
        if checkpoint is None:
            checkpoint = home / "stub-model"
            checkpoint.mkdir()
            (checkpoint / "open_clip_config.json").write_text("{}")
        self.model = f"local-dir:{checkpoint}"
        self.photos = home / "photos"
        self.photos.mkdir()
        self.process: subprocess.Popen[bytes] | warm.WarmProcess | None = None
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("IMAGEDBD_")},
            "IMAGEDBD_CONFIG": str(home / "config.toml"),
            "IMAGEDBD_DATA_DIR": str(home / "data"),
            "IMAGEDBD_SOCKET": str(home / "run" / "s.sock"),
            "IMAGEDBD_MODEL": self.model,
            "IMAGEDBD_DTYPE": "fp32",
            # Files are written here in no time.
            "IMAGEDBD_SETTLE": "0.3s",
            "HF_HUB_OFFLINE": "1",
            "NO_COLOR": "1",
            "COLUMNS": "200",
        }
        if checkpoint.parent == home:
            own = os.environ.get("PYTHONPATH")
            paths = [str(Path(__file__).with_name("stub")), *([own] if own else [])]
            self.environment["PYTHONPATH"] = os.pathsep.join(paths)

    def start(
        self,
        *arguments: str,
        roots: list[Path] | None = None,
        obedient: bool = False,
        another_user: str | None = None,
        instead: list[str] | None = None,
        keep: list[int] | None = None,
        cold: bool = False,
        until: Callable[[], bool] | None = None,
    ) -> None:
        """Start the daemon and return when it answers.

        :param obedient: permission bits count for it, also where it is root.
        :param another_user: where this is root, it is not, and runs by this interpreter.
        :param instead: a program in the place of ``imagedbd``.
        :param keep: descriptors that it is given.
        :param until: what is waited for in the place of an answer.
        :param cold: by an interpreter of its own, as the user starts it: see :mod:`warm`.
        """
        command = [*(instead or [program("imagedbd")]), "run", "--no-pull", *arguments]
        for root in [self.photos] if roots is None else roots:
            command += ["--root", str(root)]
        if obedient and os.geteuid() == 0:
            command = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search", *command]
        if another_user is not None and os.geteuid() == 0:
            self._give_home_away()
            self.environment["PYTHONPATH"] = _python_path(self.environment["PYTHONPATH"])
            command = [*AS_NOBODY, another_user, "-m", "imagedbd", *command[1:]]
        with (self.home / "log").open("ab") as log:
            if not (cold or keep or self._changes_modules()) and command[0] in _WARM:
                self.process = warm.daemons().start(command, self.environment, (0, log, log))
            else:
                self.process = subprocess.Popen(
                    command, env=self.environment, stdout=log, stderr=log, pass_fds=keep or ()
                )
        self.until(until or self.answers, START_TIMEOUT_S)

    def _changes_modules(self) -> bool:
        """Whether the daemon's own are, before they are imported: see ``stub/sitecustomize.py``."""
        return bool({"IMAGEDBD_TEST_LOOSE", "IMAGEDBD_STUB_FREEZES"} & self.environment.keys())

    def _give_home_away(self) -> None:
        for folder, _, names in os.walk(self.home):
            for path in (folder, *(os.path.join(folder, name) for name in names)):
                os.chown(path, _NOBODY, _NOBODY, follow_symlinks=False)

    def answers(self) -> bool:
        """Whether the daemon does, asked without a process of its own."""
        try:
            Client(self.environment["IMAGEDBD_SOCKET"], timeout=START_TIMEOUT_S).status()
        except ImagedbError:
            return False
        return True

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End the daemon and return its exit status."""
        assert self.process is not None
        self.process.send_signal(number)
        status = self.process.wait(timeout=30)
        self.process = None
        return status

    def run(self, *arguments: str | bytes, stdin: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
        """One call of ``imagedb``."""
        command: list[str | bytes] = [program("imagedb"), *arguments]
        return warm.commands().run(command, self.environment, stdin or b"", timeout=100)

    def imagedbd(
        self, *arguments: str, stdin: bytes = b"", **environment: str
    ) -> subprocess.CompletedProcess[bytes]:
        """One call of ``imagedbd`` that ends by itself."""
        command = [program("imagedbd"), *arguments]
        return warm.daemons().run(command, self.environment | environment, stdin, timeout=100)

    def script(self, script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
        """One call of ``python -c``, by an interpreter that has the daemon's modules."""
        command = [sys.executable, "-c", script, *arguments]
        return warm.daemons().run(command, self.environment | environment, timeout=100)

    def json(self, *arguments: str | bytes) -> Any:
        """What a successful ``imagedb … --json`` prints."""
        done = self.run(*arguments, "--json")
        assert done.returncode == 0, done.stderr.decode()
        return json.loads(done.stdout)

    def wait(self) -> None:
        done = self.run("wait", "--timeout", "80")
        assert done.returncode == 0, done.stderr.decode() + self.log()

    def listed(self) -> set[str]:
        """Paths in the index, relative to the home."""
        return {os.path.relpath(row["path"], self.home) for row in self.json("list")}

    def log(self) -> str:
        """What its daemons have said."""
        log = self.home / "log"
        return log.read_text(errors="replace") if log.exists() else ""

    def until(self, condition: Callable[[], bool], timeout: float = 20.0) -> None:
        """Wait for something that must happen by itself."""
        deadline = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < deadline, f"did not happen in {timeout:g} s\n{self.log()}"
            assert self.process is None or self.process.poll() is None, self.log()
            time.sleep(0.1)

    def close(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
