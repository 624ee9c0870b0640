"""``imagedb model``: which models there are, getting their weights, and which one answers.

Only a child process imports OpenCLIP; it says what it knows in JSON.
"""

from __future__ import annotations

import json
import subprocess
from typing import Annotated, Any

import typer

from imagedbd.cli import completion, flags, output, switching, tables
from imagedbd.cli.entry import examples
from imagedbd.cli.output import Form
from imagedbd.cli.target import Target, target_of
from imagedbd.errors import (
    ConfigError,
    DaemonNotRunningError,
    EmbedderError,
    ImagedbError,
    ModelUnavailableError,
    NothingMatchedError,
    UsageError,
)
from imagedbd.processes import environment, python

app = typer.Typer(
    name="model",
    help="List and download models, and choose the one that answers.",
    epilog=examples(
        "imagedb model list --filter B-16",
        "imagedb model pull ViT-L-14/laion2b_s32b_b82k",
        "imagedb model use ViT-L-14/laion2b_s32b_b82k",
        "imagedb model rollback",
    ),
    no_args_is_help=True,
)


@app.command("list", epilog=examples("imagedb model list", "imagedb model list --filter ViT-B-16 --json"))
def list_models(
    context: typer.Context,
    wanted: Annotated[
        str,
        typer.Option("--filter", metavar="TEXT", help="Only models with this in their name, in any case."),
    ] = "",
    as_json: flags.RowsAsJson = False,
) -> None:
    """List every model, and whether its weights are on this machine."""
    with output.busy("Asking OpenCLIP…"):
        known = listed()
    models = [model for model in known if wanted.casefold() in model["spec"].casefold()]
    if as_json:
        output.write_rows(models, Form.JSON)
    if not models:
        raise NothingMatchedError(f"No model has {wanted!r} in its name.")
    if not as_json:
        _print_models(models, target_of(context).settings.model)


@app.command(
    epilog=examples(
        "imagedb model pull",
        "imagedb model pull ViT-B-16/laion2b_s34b_b88k",
        "imagedb model pull hf-hub:timm/ViT-B-16-SigLIP2-256",
    )
)
def pull(
    context: typer.Context,
    spec: Annotated[
        str | None,
        typer.Argument(
            metavar="SPEC",
            help="As `imagedb model list` prints it. The model in the settings if left out.",
            autocompletion=completion.models,
        ),
    ] = None,
) -> None:
    """Download a model's weights, and see that they load."""
    target = target_of(context)
    model = target.settings.model if spec is None else checked_model(spec)
    output.say(f"Getting {output.printable(model)}.")
    info = fetch(model)
    output.say(
        f"{output.printable(info['spec'])} is on this machine; its vectors have {info['dimension']} numbers."
    )
    _tell_daemon(target, model)


@app.command(
    epilog=examples(
        "imagedb model use ViT-L-14/laion2b_s32b_b82k",
        "imagedb model use hf-hub:timm/ViT-B-16-SigLIP2-256 --wait",
    )
)
def use(
    context: typer.Context,
    spec: Annotated[
        str,
        typer.Argument(
            metavar="SPEC", help="As `imagedb model list` prints it.", autocompletion=completion.models
        ),
    ],
    wait: flags.WaitForSwitch = False,
) -> None:
    """Answer with another model.

    All pictures are embedded once more in the background. The old model answers until that is complete, and
    its index is kept to go back to. Naming the model that answers gives up a switch under way.
    """
    target = target_of(context)
    model = checked_model(spec)
    status = target.client.status()
    with output.busy("The daemon is loading the model…"):
        answer = target.client.use_model(model)
    switching.keep_settings(target, answer, status)
    switching.report(target, answer, wait=wait)


@app.command(epilog=examples("imagedb model rollback"))
def rollback(context: typer.Context) -> None:
    """Answer with the model and the store before the last switch.

    Nothing is embedded for it: pictures that came since wait, and are embedded afterwards.
    """
    target = target_of(context)
    status = target.client.status()
    with output.busy("The daemon is loading the model…"):
        answer = target.client.roll_back()
    switching.keep_settings(target, answer, status)
    switching.report(target, answer, wait=True)


@app.command(epilog=examples("imagedb model remove", "imagedb model remove --yes"))
def remove(
    context: typer.Context,
    yes: flags.Yes = False,
) -> None:
    """Delete the index that is kept to go back to.

    The weights of its model stay; they are in the cache of Hugging Face.
    """
    target = target_of(context)
    previous = target.client.status()["previous"]
    if previous is None:
        raise NothingMatchedError("No earlier index is kept.")
    what = f"{previous['kind']} with {output.printable(str(previous['model']))}"
    if not yes:
        switching.confirm(f"Delete the index that is kept to go back to, {what}?")
    target.client.remove_previous()
    output.say(f"Deleted the index for {what}.")


def _print_models(models: list[dict[str, Any]], configured: str) -> None:
    columns = [tables.Column("model"), tables.Column("here"), tables.Column("", room=60)]
    rows = [
        [
            output.printable(model["spec"]),
            "yes" if model["local"] else "",
            "in the settings" if model["spec"] == configured else "",
        ]
        for model in models
    ]
    tables.print_table(columns, rows)


def checked_model(spec: str) -> str:
    """The spec as settings would hold it; here a fault in it is a fault of the command line."""
    from imagedbd.config import load_settings

    try:
        return load_settings({"model": spec}, environ={}).model
    except ConfigError as error:
        raise UsageError(error.message.removeprefix("--model: model: ")) from error


def listed() -> list[dict[str, Any]]:
    """Every model that OpenCLIP knows: ``spec``, and whether its weights are ``local``.

    :raises EmbedderError: OpenCLIP cannot be asked.
    """
    models: list[dict[str, Any]] = _child_json("list")
    return models


def _command(*arguments: str) -> list[str]:
    return python("imagedbd.embedder_worker", *arguments)


def _child_json(*arguments: str) -> Any:
    done = subprocess.run(
        _command(*arguments), capture_output=True, text=True, check=False, env=environment()
    )
    if done.returncode != 0:
        raise EmbedderError(f"OpenCLIP cannot be asked: {_last_line(done.stderr) or 'it said nothing'}")
    return json.loads(done.stdout)


def fetch(model: str) -> dict[str, Any]:
    """Download a model's weights with a progress bar, and see that they load.

    :returns: ``spec``, ``dimension`` and ``weights_hash``.
    :raises ModelUnavailableError: they cannot be had.
    """
    from imagedbd.cli.pulling import run_showing_progress

    done = run_showing_progress(_command("pull", model))
    if done.code != 0:
        reason = _last_line(done.words) or f"its process ended with code {done.code}"
        raise ModelUnavailableError(reason if model in reason else f"{model} cannot be had: {reason}")
    info: dict[str, Any] = json.loads(done.data)
    return info


def _last_line(text: str) -> str:
    lines = [line for line in text.replace("\r", "\n").splitlines() if line.strip()]
    return lines[-1].strip() if lines else ""


def _tell_daemon(target: Target, model: str) -> None:
    try:
        status = target.client.status()
    except DaemonNotRunningError:
        output.say("The daemon is not running: it finds the model when it starts.")
        return
    switch = status.get("switch")
    if status["model"]["name"] != model and not (switch and switch["model"] == model):
        output.say(f"The daemon works with {output.printable(status['model']['name'])} and goes on with it.")
        return
    try:
        with output.busy("The daemon is loading it…"):
            target.client.load_model()
    except ImagedbError as error:
        raise ModelUnavailableError(
            f"The weights are here, but the daemon cannot load them: {error.message}"
        ) from error
    output.say("The daemon has it loaded.")
