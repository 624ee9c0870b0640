"""A systemctl that says what a test lets it say, and remembers what it was asked."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imagedbd import service

if TYPE_CHECKING:
    import pytest

SYSTEMCTL = f"""#!{sys.executable}
import json, os, sys
here = os.path.dirname(__file__)
arguments = [argument for argument in sys.argv[1:] if argument not in ("--user", "--no-pager")]
with open(os.path.join(here, "asked"), "a") as asked:
    asked.write(" ".join(arguments) + "\\n")
with open(os.path.join(here, "state")) as file:
    state = json.load(file)
if arguments[0] == "show" and len(arguments) > 2:
    print("\\n".join(f"{{name}}={{value}}" for name, value in state[arguments[-1]].items()))
if arguments[0] in state["failing"]:
    print("Job for imagedbd.service failed.", file=sys.stderr)
    sys.exit(1)
"""
RUNNING = {
    "LoadState": "loaded", "ActiveState": "active", "Result": "success", "ExecMainStatus": "0",
    "MainPID": "4711", "NRestarts": "1", "MemoryCurrent": "250000000", "UnitFileState": "enabled",
    "StatusText": "Watching for changes.", "StateChangeTimestamp": "Wed 2026-11-25 05:00:00 UTC",
}  # fmt: skip
DEAD = {**RUNNING, "ActiveState": "inactive", "MainPID": "0", "MemoryCurrent": "[not set]", "StatusText": ""}
FAILED = {**DEAD, "ActiveState": "failed", "Result": "exit-code", "ExecMainStatus": "78"}


@dataclass
class Systemd:
    folder: Path

    def is_in(
        self, unit: dict[str, str], *, socket: dict[str, str] | None = None, failing: tuple[str, ...] = ()
    ) -> None:
        """:param socket: how the socket's unit is; as the service by default."""
        state: dict[str, Any] = {service.SERVICE: unit, service.SOCKET: socket or unit, "failing": failing}
        (self.folder / "state").write_text(json.dumps(state))

    @property
    def asked(self) -> list[str]:
        lines = (self.folder / "asked").read_text().splitlines()
        return [line for line in lines if not line.startswith("show")]


def pretend_systemd(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Systemd:
    """Have this process take it that systemd runs the machine, and a service that is :data:`RUNNING`."""
    tool = folder / "systemctl"
    tool.write_text(SYSTEMCTL)
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setattr(service, "has_systemd", lambda: True)
    monkeypatch.setattr(service, "LINGER_FOLDER", str(folder / "linger"))
    found = Systemd(folder)
    found.is_in(RUNNING)
    return found
