"""Free text in a file's own structures: PNG text chunks, the comment segments of JPEG and GIF.

PNG 1.2, 11.3.4, reserves some keywords. Picture generators use others, for the prompt and its settings:
``parameters`` (Stable Diffusion web UIs), ``prompt`` (a graph as JSON, from ComfyUI), ``Comment`` and
``Description`` (NovelAI), ``Dream`` and ``invokeai_metadata`` (InvokeAI).
"""

from __future__ import annotations

import json
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from imagedbd.datatypes import Metadata
from imagedbd.tag_values import joined, moment, text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from PIL.ImageFile import ImageFile

_CAPTIONS = ("Title", "Description")
_COMMENTS = ("comment", "Comment", "parameters", "Dream", "invokeai_metadata", "sd-metadata", "prompt")
_PROMPT_KEYS = frozenset(
    {"text", "text_g", "text_l", "prompt", "positive", "negative", "positive_prompt", "negative_prompt", "uc"}
)
_CREATION_TIME = "Creation Time"


def read_file_text(image: ImageFile) -> Metadata:
    """Read what is there before the pixels. Never raises."""
    info = image.info
    return Metadata(
        taken_at=_creation_time(info.get(_CREATION_TIME)),
        caption=joined((text(_string(info.get(name))) for name in _CAPTIONS), " — "),
        comment=joined((_comment(info, name) for name in _COMMENTS), "\n"),
    )


def _comment(info: Mapping[Any, Any], name: str) -> str | None:
    value = _string(info.get(name))
    if isinstance(value, str) and value.lstrip().startswith("{"):
        return text("\n".join(_prompts(value))) or text(value)
    return text(value)


def _string(value: object) -> bytes | str | None:
    return value if isinstance(value, (bytes, str)) else None


def _prompts(graph: str) -> Iterator[str]:
    """What a person wrote into a generator's JSON; the nodes around it would only be noise in a search."""
    try:
        waiting = [json.loads(graph)]
    except (ValueError, RecursionError):
        return
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            yield from (v for k, v in node.items() if k in _PROMPT_KEYS and isinstance(v, str) and v.strip())
            waiting.extend(reversed(node.values()))
        elif isinstance(node, list):
            waiting.extend(reversed(node))


def _creation_time(value: object) -> str | None:
    """PNG suggests the form of RFC 1123; many write ISO 8601 or Exif's form."""
    if not isinstance(value, str):
        return None
    if (date := moment(value)) is not None:
        return date
    try:
        return parsedate_to_datetime(value).isoformat(timespec="seconds")
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
