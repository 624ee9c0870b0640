"""The daemon's status as people read it: once, or live."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from typing import TYPE_CHECKING, Any, Final

from rich.console import Group
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.text import Text

from imagedbd.cli import output, switching, tables
from imagedbd.errors import DaemonNotRunningError, ProtocolError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import RenderableType

    from imagedbd.cli.target import Target

LOOK_EVERY_S: Final = 1.0
"""Seconds between two looks at a daemon that is being watched."""

_STATE_STYLES: Final = {
    "idle": "green", "ready": "green", "online": "green",
    "indexing": "cyan", "scanning": "cyan", "loading": "cyan", "starting": "cyan",
    "switching": "cyan", "preparing": "cyan", "building": "cyan", "finishing": "cyan", "paused": "yellow",
    "waiting": "yellow", "offline": "yellow", "degraded": "yellow", "unavailable": "yellow",
    "blocked": "red", "damaged": "red", "failed": "red",
}  # fmt: skip


def overview(status: Mapping[str, Any]) -> RenderableType:
    """All that ``status`` says, in a few lines."""
    rows = tables.grid([tables.Column("", style="dim"), tables.Column("")])
    rows.add_row("daemon", _daemon(status))
    rows.add_row("pictures", _counts(status))
    if speed := _speed(status):
        rows.add_row("speed", speed)
    rows.add_row("model", _model(status))
    rows.add_row("store", _store(status["store"]))
    if switch := status.get("switch"):
        rows.add_row("next", _switch(switch))
    if previous := status.get("previous"):
        kept = f"{previous['kind']} with {output.printable(str(previous['model']))}"
        rows.add_row("previous", f"{kept} (imagedb model rollback)")
    for difference in status.get("differences", ()):
        rows.add_row("note", _difference(difference))
    if fault := status.get("settings_fault"):
        rows.add_row("settings", _settings_fault(str(fault)))
    for index, root in enumerate(status["roots"]):
        rows.add_row("" if index else "folders", _root(root))
    if not status["roots"]:
        # Where there are pictures, the daemon's own line has the command that watches them again.
        known = status["indexed"] or status.get("waiting")
        rows.add_row("folders", "none now" if known else "none yet: imagedb root add DIR")
    return rows


def line(status: Mapping[str, Any]) -> str:
    """What changes from one look to the next, on one line."""
    parts = [str(status["state"]), f"{status['indexed']:,} indexed", f"{status['pending']:,} to go"]
    parts += [f"{status[name]:,} {name}" for name in ("waiting", "failed") if status.get(name)]
    switch = status.get("switch")
    parts += [f"next {switching.progress_line(switch)}"] if switch else []
    return ", ".join([*parts, *filter(None, [_speed(status)])])


def progress_of(status: Mapping[str, Any]) -> tuple[int, int]:
    """How many pictures are done, and how many are left; what is looked at again is indexed and left."""
    done = status["indexed"] - status.get("again", 0) + status["failed"]
    return done, status["pending"] + status.get("waiting", 0)


def watch(target: Target, *, as_json: bool) -> None:
    """Show the status until the user has seen enough."""
    with contextlib.suppress(KeyboardInterrupt):
        if sys.stdout.isatty() and not as_json:
            _watch_live(target)
        else:
            _watch_lines(target, as_json=as_json)


def _watch_live(target: Target) -> None:
    from rich.live import Live

    view: RenderableType = _live_view(target.client.status())  # no daemon at the start is an error
    with Live(view, console=output.console(), auto_refresh=False, transient=False) as live:
        while True:
            live.update(view, refresh=True)
            time.sleep(LOOK_EVERY_S)
            try:
                view = _live_view(target.client.status())
            except (DaemonNotRunningError, ProtocolError) as error:
                # It may be restarted while somebody watches.
                view = Text(f"{output.printable(error.message)}\nCtrl-C leaves.", style="yellow")


def _watch_lines(target: Target, *, as_json: bool) -> None:
    last: object = None
    while True:
        status = target.client.status()
        now = _without_clocks(status) if as_json else line(status)
        if now != last:
            output.write((json.dumps(status) if as_json else line(status)) + "\n")
            sys.stdout.flush()
        last = now
        output.sleep_while_read(LOOK_EVERY_S)


def _without_clocks(status: Mapping[str, Any]) -> dict[str, Any]:
    """A status less what is another one at every look, though nothing has happened."""
    return {name: value for name, value in status.items() if name != "uptime_s"}


def _live_view(status: Mapping[str, Any]) -> RenderableType:
    done, left = progress_of(status)
    parts: list[RenderableType] = [overview(status)]
    if switch := status.get("switch"):
        parts.append(_bar(switch["done"], switch["total"]))
    elif left:
        parts.append(_bar(done, done + left))
    return Group(*parts, Text("Ctrl-C leaves; the daemon goes on.", style="dim"))


def _bar(done: int, total: int) -> RenderableType:
    # A bar by itself does not end its line.
    return Padding(ProgressBar(total=total or None, completed=done, width=40), expand=False)


def _daemon(status: Mapping[str, Any]) -> Text:
    doing = output.printable(str(status.get("doing") or ""))
    since = output.duration(status.get("uptime_s") or 0)
    about = f"  ({status.get('version')}, process {status.get('pid')}, up {since})"
    return Text.assemble(_state(status["state"]), f"  {doing}", (about, "dim"))


def _counts(status: Mapping[str, Any]) -> Text:
    text = Text(f"{status['indexed']:,} indexed")
    if status.get("waiting"):
        text.append(f", {status['waiting']:,} waiting for the model", style="yellow")
    if status["pending"]:
        text.append(f", {status['pending']:,} to go", style="cyan")
    if status["failed"]:
        text.append(f", {status['failed']:,} failed (imagedb failures)", style="red")
    return text


def _speed(status: Mapping[str, Any]) -> str:
    if not status.get("rate") or not status["pending"]:  # of an idle daemon it is history
        return ""
    left = f", about {output.duration(status['eta_s'])} left" if status.get("eta_s") else ""
    return f"{status['rate']:.1f} pictures/s{left}"


def _model(status: Mapping[str, Any]) -> Text:
    model = status["model"]
    place = f"  on {status['device']}, {status.get('dtype')}" if status.get("device") else ""
    text = Text.assemble(output.printable(model["name"]), "  ", _state(model["state"]), place)
    if model.get("only_prompts"):
        text.append("  (only what embeds prompts)", style="dim")
    if model.get("reason"):
        text.append(f"\n{output.printable(model['reason'])}")
    if model.get("help") and model["state"] == "unavailable":
        text.append("\nWays on: " + " or ".join(output.printable(way) for way in model["help"]))
    return text


def _store(store: Mapping[str, Any]) -> Text:
    size = store.get("bytes_on_disk")
    parts = [store["kind"]]
    parts += [_rows(store)] if store["rows"] is not None else []
    parts += [output.byte_size(size)] if size is not None else []
    text = Text(", ".join([*parts, output.home_path(store["uri"])]))
    if store.get("reason"):
        text.append(f"\n{output.printable(store['reason'])}", style="yellow")
    return text


def _rows(store: Mapping[str, Any]) -> str:
    return f"{output.count(store['rows'], 'row')}, {output.count(store['vectors'], 'vector')}"


def _switch(switch: Mapping[str, Any]) -> Text:
    what = f"{switch['store']} with {output.printable(str(switch['model']))}  "
    text = Text.assemble(what, _state(switch["state"]), f"  {switching.progress_line(switch)}")
    if switch.get("reason"):
        text.append(f"\n{output.printable(switch['reason'])}", style="yellow")
    return text


def _difference(difference: Mapping[str, Any]) -> Text:
    # A command stands on a line of its own, where it can be copied.
    said, help_ = (output.printable(difference[name]) for name in ("finding", "help"))
    return Text(f"{said}\n→ {help_}", style="yellow")


def _settings_fault(fault: str) -> Text:
    said = f"The settings file is not followed, and the settings from before hold: {output.printable(fault)}"
    help_ = "`imagedbd check-config` says when it is in order; SIGHUP or a restart has it read again"
    return Text(f"{said}\n→ {help_}", style="yellow")


def _root(root: Mapping[str, Any]) -> Text:
    text = Text.assemble(output.home_path(root["path"]), "  ", _state(root["state"]))
    text.append(f"  {output.count(root.get('indexed') or 0, 'picture')}")
    if root.get("reason"):
        text.append(f"  {output.printable(root['reason'])}", style="dim")
    return text


def _state(state: str) -> tuple[str, str]:
    return str(state), _STATE_STYLES.get(str(state), "")
