"""Small versions of the pictures that were found.

The daemon's own decoder makes them: upright, in the colours that are meant, and in processes of its own, so
that a broken file costs no more than its thumbnail.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from PIL import Image

from imagedbd.datatypes import Preprocess
from imagedbd.decoder import Decoder
from imagedbd.errors import ImagedbError

if TYPE_CHECKING:
    from concurrent.futures import Future

    from imagedbd.datatypes import Decoded

AHEAD: Final = 4
"""Pictures for each process that are read before they are asked for."""


@dataclass(frozen=True, slots=True, eq=False)
class Thumbnail:
    """:param image: ``None`` if the file cannot be read; then ``reason`` says why."""

    hit: Mapping[str, Any]
    image: Image.Image | None
    reason: str | None = None


def thumbnails(hits: Iterable[Mapping[str, Any]], area: int) -> Iterator[Thumbnail]:
    """A small version of each picture, in the order given; none is made larger than it is.

    :param area: pixels of each, at most: a panorama is as large as an upright picture then.
    """
    with Decoder() as decoder:
        begun: deque[tuple[Mapping[str, Any], Future[Decoded]]] = deque()
        for hit in hits:
            begun.append((hit, decoder.submit(hit["path"], frozenset(), _wanted(hit, area))))
            if len(begun) > AHEAD * decoder.capacity:
                yield _finished(*begun.popleft())
        while begun:
            yield _finished(*begun.popleft())


def _wanted(hit: Mapping[str, Any], area: int) -> Preprocess:
    """The picture squeezed into its own proportions; on a white square where they are not known."""
    width, height = hit.get("width"), hit.get("height")
    if not width or not height:
        edge = math.isqrt(area)
        return Preprocess(edge, edge, resize_mode="longest", fill_color=255)
    scale = min(1.0, math.sqrt(area / (width * height)))
    return Preprocess(max(1, round(width * scale)), max(1, round(height * scale)), resize_mode="squash")


def _finished(hit: Mapping[str, Any], future: Future[Decoded]) -> Thumbnail:
    try:
        pixels = future.result().pixels
    except ImagedbError as error:
        return Thumbnail(hit, None, error.message)
    if pixels is None:
        return Thumbnail(hit, None, "It has no pixels.")
    return Thumbnail(hit, Image.fromarray(pixels))
