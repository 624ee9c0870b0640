"""The process that holds the model: loads OpenCLIP once, then answers one request after another.

``python -m imagedbd.embedder_worker serve FD SPEC DEVICE DTYPE`` is what :mod:`imagedbd.embedder` starts;
``pull SPEC`` and ``list`` serve ``imagedb model``. torch is imported here, where a model is loaded, and never
in the daemon or the command line.
"""

from __future__ import annotations

import json
import logging
import signal
import sys
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, TypeAlias

from imagedbd.errors import ConfigError, ModelUnavailableError, ModelUnknownError
from imagedbd.processes import be_killed_early, die_with_parent, give_memory_back

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from imagedbd.datatypes import ModelInfo
    from imagedbd.openclip import OpenClip


@dataclass(frozen=True, slots=True)
class Ready:
    info: ModelInfo
    device: str
    dtype: str


@dataclass(frozen=True, slots=True)
class Refused:
    """:param is_unknown: there is no model of that name."""

    reason: str
    is_unknown: bool = False


@dataclass(frozen=True, slots=True)
class EmbedPrompts:
    prompts: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class EmbedPictures:
    pictures: NDArray[np.uint8]
    """Shape ``(n, height, width, 3)``, RGB."""


@dataclass(frozen=True, slots=True)
class KeepOnlyPrompts:
    """Give up what embeds pictures, and its memory; answered with :class:`Done`."""


@dataclass(frozen=True, slots=True)
class Done:
    """There is nothing else to say."""


Request: TypeAlias = EmbedPrompts | EmbedPictures | KeepOnlyPrompts


@dataclass(frozen=True, slots=True, eq=False)
class Vectors:
    rows: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Failed:
    """The request failed and the process lives on.

    :param of_memory: there was too little of it; fewer pictures at once may go well.
    """

    reason: str
    of_memory: bool = False


def serve(connection: Connection, spec: str, device: str, dtype: str) -> None:
    """Answer until the other end closes, which it may do while the model is being loaded."""
    try:
        model = _load(connection, spec, device, dtype)
        while model is not None:
            connection.send(_answer(model, connection.recv()))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return


def pull(spec: str) -> int:
    """Download what the model needs, with OpenCLIP's own progress bar, and see that it loads.

    Whether there is a network is found out first: that takes no torch.
    """
    from imagedbd.pretrained import check_hub

    try:
        check_hub(spec)
        from imagedbd.openclip import OpenClip

        info = OpenClip(spec, device="cpu", dtype="fp32").info
    except ModelUnavailableError as error:
        print(error.message, file=sys.stderr)
        return error.exit_code
    print(json.dumps({"spec": info.spec, "dimension": info.dimension, "weights_hash": info.weights_hash}))
    return 0


def list_all() -> int:
    from imagedbd.pretrained import list_models

    print(json.dumps(list(list_models())))
    return 0


def _load(connection: Connection, spec: str, device: str, dtype: str) -> OpenClip | None:
    from imagedbd.openclip import OpenClip

    try:
        model = OpenClip(spec, device, dtype)
    except (ModelUnavailableError, ConfigError) as error:
        connection.send(Refused(error.message, isinstance(error, ModelUnknownError)))
        return None
    connection.send(Ready(model.info, model.device, model.dtype))
    return model


def _answer(model: OpenClip, request: Request) -> Vectors | Done | Failed:
    try:
        match request:
            case EmbedPrompts(prompts):
                return Vectors(model.embed_prompts(prompts))
            case EmbedPictures(pictures):
                return Vectors(model.embed_pictures(pictures))
            case KeepOnlyPrompts():
                model.keep_only_prompts()
                give_memory_back()
                return Done()
    # torch reports a full device, a bad shape and a broken driver alike: the request fails, not the process.
    except (RuntimeError, MemoryError, ValueError, TypeError) as error:
        return Failed(f"{type(error).__name__}: {error}", of_memory=_is_of_memory(error))


def _is_of_memory(error: Exception) -> bool:
    """A GPU's has a class of its own in torch, and a CPU's just words."""
    words = str(error).lower()
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "out of memory" in words
        or "can't allocate memory" in words
    )


def main(arguments: list[str]) -> int:
    # What libraries would log of a model that cannot be had, retry by retry, comes back as one reason.
    logging.disable(logging.CRITICAL)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # who stops a download wants no traceback of it
    match arguments:
        case ["serve", fd, spec, device, dtype]:
            # The daemon decides when to stop; what its terminal sends reaches its whole process group.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            # Also while a model loads or hangs, when nobody looks whether the daemon is there.
            die_with_parent()
            be_killed_early(500)
            serve(Connection(int(fd)), spec, device, dtype)
            return 0
        case ["pull", spec]:
            return pull(spec)
        case ["list"]:
            return list_all()
    print("usage: serve FD SPEC DEVICE DTYPE | pull SPEC | list", file=sys.stderr)
    return 2


if __name__ == "__main__":
    # Under ``-m`` this file is ``__main__``: messages must pickle under the name that the parent knows.
    from imagedbd import embedder_worker  # noqa: PLW0406 - the same file under its other name

    sys.exit(embedder_worker.main(sys.argv[1:]))
