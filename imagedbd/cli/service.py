"""``imagedb service``: the daemon as a service of the user's systemd."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Final

import typer

from imagedbd.cli import flags, models, output, tables
from imagedbd.cli.entry import examples
from imagedbd.cli.target import Target, target_of
from imagedbd.errors import DaemonNotRunningError, ImagedbError, LockHeldError, NoSystemdError, ServiceError

if TYPE_CHECKING:
    from imagedbd.service import State, UserManager

app = typer.Typer(
    name="service",
    help="Have systemd keep the daemon running.",
    epilog=examples("imagedb service install", "imagedb service status", "imagedb service logs -f"),
    no_args_is_help=True,
)

NOT_RUNNING = DaemonNotRunningError.exit_code
LAST_WORDS = 5
"""Lines of the log that a failed start is told with."""


@app.command(epilog=examples("imagedb service install", "imagedb service install --linger"))
def install(
    context: typer.Context,
    pull: Annotated[
        bool, typer.Option("--pull/--no-pull", help="Download the model first, or leave that for later.")
    ] = True,
    linger: Annotated[
        bool, typer.Option("--linger", help="Run from boot on, and while you are not logged in.")
    ] = False,
    sandbox: Annotated[
        bool,
        typer.Option("--sandbox/--no-sandbox", help="Shut the daemon in as far as systemd can, or less."),
    ] = True,
) -> None:
    """Write units for this very installation, enable them and start the daemon.

    Call it again after you moved the program, the index or the socket. What you changed with `systemctl
    --user edit imagedbd` stays.
    """
    from imagedbd import service

    manager = _manager()
    target = target_of(context)
    settings = target.settings
    files = service.unit_files(settings, os.environ, sandbox=sandbox)
    if pull:
        output.say(f"Getting {output.printable(settings.model)}.")
        models.fetch(settings.model)
    _make_way(manager, target)
    _prepare(settings.data_dir)
    folder = service.units_folder(os.environ)
    service.write_units(folder, files)
    output.say(f"The units are in {output.home_path(folder)}: {', '.join(sorted(files))}")
    if variables := service.carried(os.environ):
        output.say(f"Taken along from this shell: {', '.join(variables)}")
    manager.ask("daemon-reload")
    manager.installed_state()
    manager.ask("enable", service.SERVICE, service.SOCKET)
    if linger:
        _linger()
    _start(manager)
    _say_what_is_next(target, manager.state())


@app.command(epilog=examples("imagedb service uninstall"))
def uninstall() -> None:
    """Stop the daemon and take its units away.

    The index and the settings stay.
    """
    from imagedbd import service

    manager = _manager("So nothing is installed that could be taken away.")
    if manager.state().installed:
        manager.ask("disable", "--now", service.SOCKET, service.SERVICE)
    folder = service.units_folder(os.environ)
    if not service.remove_units(folder):
        raise ServiceError(f"There are no units of imagedbd in {output.home_path(folder)}.")
    manager.ask("daemon-reload")
    output.say("The service is gone; index, settings and models stay.")


@app.command(epilog=examples("imagedb service start"))
def start() -> None:
    """Start the daemon, and listen for questions."""
    manager = _manager()
    manager.installed_state()
    _start(manager)
    _say_how_it_is(manager.state())


@app.command(epilog=examples("imagedb service stop"))
def stop() -> None:
    """Stop the daemon, and no longer start it for a question.

    The next login starts it again, unless it is uninstalled.
    """
    from imagedbd import service

    manager = _manager(_TO_STOP)
    manager.installed_state()
    with output.busy("Stopping…"):
        manager.ask("stop", service.SOCKET, service.SERVICE)
    output.say("Stopped. `imagedb service start` starts it; so does the next login.")


@app.command(epilog=examples("imagedb service restart"))
def restart() -> None:
    """Stop the daemon and start it again: some settings count from then on."""
    from imagedbd import service

    manager = _manager(f"{_TO_STOP} Then start it as before.")
    manager.installed_state()
    with output.busy("Stopping…"):
        manager.ask("stop", service.SERVICE)
    _start(manager)
    _say_how_it_is(manager.state())


@app.command(epilog=examples("imagedb service status", "imagedb service status --json"))
def status(as_json: flags.JsonFlag = False) -> None:
    """Say how the service stands, without waking the daemon.

    The exit code is 0 if it runs, 69 if it does not, and 70 where there is no systemd.
    """
    state = _manager("So there is no service: `imagedb status` tells of the daemon.").installed_state()
    if as_json:
        output.write_json({**asdict(state), "runs": state.runs})
    else:
        columns = [tables.Column("", style="bold"), tables.Column("")]
        tables.print_table(columns, [list(row) for row in _rows(state)])
    if not state.runs:
        raise typer.Exit(NOT_RUNNING)


@app.command(
    epilog=examples("imagedb service logs", "imagedb service logs -f", "imagedb service logs -n 1000")
)
def logs(
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes.")] = False,
    lines: Annotated[int, typer.Option("-n", "--lines", metavar="N", min=1, help="How many lines.")] = 100,
) -> None:
    """Show the daemon's log from the journal.

    For conditions on its fields, and other forms: `journalctl --user-unit imagedbd -o json`.
    """
    from imagedbd import service
    from imagedbd.processes import has_systemd

    if shutil.which("journalctl") is None or not has_systemd():
        raise ServiceError("There is no journal here. A daemon that runs in a terminal writes its log there.")
    sys.stdout.flush()
    command = service.log_command(follow=follow, lines=lines)
    os.execvp(command[0], command)  # noqa: S606 - its pager and its Ctrl-C are the user's


_TO_STOP: Final = (
    "So there is no service to be stopped: a daemon that was started by hand ends with Ctrl-C in its "
    'terminal, any with: kill "$(imagedb status --json | jq .pid)"'
)


def _manager(elsewhere: str = "") -> UserManager:
    """:param elsewhere: what helps without systemd, if not to start the daemon by other means."""
    from imagedbd.service import UserManager

    try:
        return UserManager(os.environ)
    except NoSystemdError as error:
        if not elsewhere:
            raise
        raise NoSystemdError(error.reason, elsewhere) from error


def _make_way(manager: UserManager, target: Target) -> None:
    """Stop the service that was there; a daemon that runs by other means is the user's to stop."""
    from imagedbd import service

    if manager.state().installed:
        with output.busy("Stopping the service that is there…"):
            manager.ask("stop", service.SOCKET, service.SERVICE)
    try:
        running = target.client.status()
    except DaemonNotRunningError:
        return
    raise LockHeldError(f"A daemon runs already, as process {running.get('pid')}: stop it, then try again.")


def _prepare(data_dir: str) -> None:
    # A folder that is not there when the service starts would stay closed to it.
    from imagedbd.locking import prepare_folder

    prepare_folder(data_dir)


def _linger() -> None:
    from imagedbd.service import user_name

    done = subprocess.run(["loginctl", "enable-linger"], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        output.say(f"You may not set that yourself: sudo loginctl enable-linger {user_name()}")


def _start(manager: UserManager) -> None:
    """:raises ServiceError: it does not come up, with the reason and what helps."""
    from imagedbd import service

    # Failures of before count as well, and would keep it from being started at all.
    manager.ask("reset-failed", service.SERVICE, service.SOCKET)
    try:
        with output.busy("Starting; a first look at many folders takes a while…"):
            manager.ask("start", service.SOCKET, service.SERVICE)
    except ServiceError as error:
        raise ServiceError(_why_not(manager.state(), error)) from error


def _why_not(state: State, error: ImagedbError) -> str:
    from imagedbd import service

    if state.exit_status in service.SANDBOX_FAILED:
        lacking = service.SANDBOX_FAILED[state.exit_status]
        return (
            f"This system does not let a user's services have {lacking}, which shut the daemon in. "
            f"Without them: {service.remedy(state)}"
        )
    said = " ".join(_last_words())
    return (
        f"The daemon did not come up (it ended with {state.exit_status}). {said or error.message} "
        f"{service.remedy(state)}"
    )


def _last_words() -> list[str]:
    from imagedbd import service

    command = [*service.log_command(follow=False, lines=LAST_WORDS), "--output=cat", "--quiet", "--no-pager"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    except FileNotFoundError:
        return []
    return [line for line in done.stdout.splitlines() if line.startswith("imagedbd: ")][-1:]


def _say_what_is_next(target: Target, state: State) -> None:
    from imagedbd.service import user_name

    _say_how_it_is(state)
    if not state.lingers:
        output.say(
            "It runs while you are logged in. To run from boot on: "
            f"imagedb service install --linger, or sudo loginctl enable-linger {user_name()}"
        )
    if not target.client.status()["roots"]:
        output.say("There is no folder to watch yet: imagedb root add ~/Pictures")


def _say_how_it_is(state: State) -> None:
    output.say(f"The service runs. {output.printable(state.status)}".rstrip())


def _rows(state: State) -> list[tuple[str, str]]:
    from imagedbd.service import remedy

    rows = [("service", in_words(state))]
    if state.active == "failed":
        rows.append(("what helps", remedy(state)))
    if state.status:
        rows.append(("doing", output.printable(state.status)))
    rows.append(("socket", "listening" if state.socket_active == "active" else state.socket_active))
    when = "from boot on" if state.lingers else "at login"
    rows.append(("starts", when if state.at_login else "only when asked to"))
    return rows


def in_words(state: State) -> str:
    """Whether it runs and since when, or why not."""
    since = f" since {state.since}" if state.since else ""
    if not state.runs:
        reason = f": {state.result}, exit status {state.exit_status}" if state.active == "failed" else ""
        return f"{state.active}{reason}{since}"
    parts = [f"running{since}"]
    if state.pid:
        parts.append(f"process {state.pid}")
    if state.memory_bytes:
        parts.append(output.byte_size(state.memory_bytes))
    if state.restarts:
        parts.append(output.count(state.restarts, "restart"))
    return ", ".join(parts)
