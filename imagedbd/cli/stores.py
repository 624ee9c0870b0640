"""``imagedb store``: which kind of store holds the index."""

from __future__ import annotations

from typing import Annotated

import typer

from imagedbd.cli import completion, flags, output, switching
from imagedbd.cli.entry import examples
from imagedbd.cli.models import checked_model
from imagedbd.cli.target import target_of
from imagedbd.errors import UsageError

app = typer.Typer(
    name="store",
    help="Choose the store that holds the index.",
    epilog=examples("imagedb store use faiss", "imagedb store use lance --wait"),
    no_args_is_help=True,
)


@app.command(
    epilog=examples(
        "imagedb store use faiss",
        "imagedb store use faiss --model ViT-L-14/laion2b_s32b_b82k",
        "imagedb store use lance --wait",
    )
)
def use(
    context: typer.Context,
    kind: Annotated[
        str,
        typer.Argument(
            metavar="lance|faiss",
            help="LanceDB, or Faiss with pandas.",
            autocompletion=completion.one_of("lance", "faiss"),
        ),
    ],
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            metavar="SPEC",
            help="Embed all pictures with this model meanwhile.",
            autocompletion=completion.models,
        ),
    ] = None,
    wait: flags.WaitForSwitch = False,
) -> None:
    """Answer from the other kind of store.

    The pictures are copied with their vectors; no picture is embedded again unless --model names another
    model than theirs. The old store answers until the new one is complete, and is kept to go back to.
    """
    from imagedbd.stores import KINDS

    if kind not in KINDS:
        raise UsageError(f"There is no store called {output.printable(kind)}: {' or '.join(KINDS)}.")
    target = target_of(context)
    status = target.client.status()
    spec = None if model is None else checked_model(model)
    with output.busy("Opening the store…"):
        answer = target.client.use_store(kind, spec)
    switching.keep_settings(target, answer, status)
    switching.report(target, answer, wait=wait)
