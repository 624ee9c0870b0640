"""A contact sheet: one HTML file that needs nothing from elsewhere, for the screen and for paper."""

from __future__ import annotations

import base64
import html
import io
import os
import time
from collections.abc import Mapping, Sequence
from string import Template
from typing import Any, Final
from urllib.parse import quote_from_bytes

from imagedbd import __version__
from imagedbd.cli import output, progress, tables
from imagedbd.cli.thumbnails import Thumbnail, thumbnails

AREA: Final = 500 * 400
"""Pixels of a thumbnail: twice what a screen shows each way, for those of high density and for paper."""
QUALITY: Final = 80
_GENERATOR: Final = '<meta name="generator" content="imagedb '
"""By this a sheet knows another one, which it may replace."""


def is_sheet(path: str) -> bool:
    """Whether this is a sheet from here.

    :raises OSError: it cannot be told.
    """
    with open(path, encoding="utf-8", errors="replace") as file:
        return _GENERATOR in file.read(1000)


def write_sheet(path: str, hits: Sequence[Mapping[str, Any]], *, title: str, command: str) -> int:
    """Write the sheet whole, or not at all.

    :param title: what was looked for, in words.
    :param command: the whole query, as it can be typed again.
    :returns: of how many pictures there is no thumbnail.
    :raises OSError: it cannot be written.
    """
    figures, lacking = [], 0
    digits = tables.score_digits(hits) if any(hit.get("score") for hit in hits) else None
    with progress.bar("Making thumbnails", len(hits)) as advance:
        for thumbnail in thumbnails(hits, AREA):
            figures.append(_figure(thumbnail, digits))
            lacking += thumbnail.image is None
            advance(len(figures))
    page = _PAGE.substitute(
        title=html.escape(output.printable(title)),
        command=html.escape(output.printable(command)),
        count=output.count(len(hits), "picture"),
        date=time.strftime("%Y-%m-%d %H:%M"),
        generator=_GENERATOR,
        version=__version__,
        figures="\n".join(figures),
    )
    draft = f"{path}.part"
    with open(draft, "w", encoding="utf-8") as file:
        file.write(page)
    os.replace(draft, path)
    return lacking


def _figure(thumbnail: Thumbnail, digits: int | None) -> str:
    """:param digits: decimals of its score; ``None`` where nothing was ranked."""
    hit = thumbnail.hit
    name = html.escape(output.printable(str(hit["name"])))
    path = html.escape(output.printable(str(hit["path"])), quote=True)
    address = html.escape("file://" + quote_from_bytes(os.fsencode(hit["path"])), quote=True)
    said = [tables.date_of(hit), tables.size_of(hit), tables.camera_of(hit)]
    details = " · ".join(html.escape(part) for part in said if part)
    caption = html.escape(output.printable(str(hit.get("caption") or "")))
    score = f"<b>{hit['score']:.{digits}f}</b> " if digits else ""
    return (
        f'<figure style="--ratio:{_ratio(hit):.3f}">'
        f'<a href="{address}" title="{path}">{_picture(thumbnail)}</a>'
        f"<figcaption><span class=rank>{hit['rank']}</span> {score}<span class=name>{name}</span>"
        f"<small>{details}</small>{f'<small class=said>{caption}</small>' if caption else ''}"
        "</figcaption></figure>"
    )


def _picture(thumbnail: Thumbnail) -> str:
    if thumbnail.image is None:
        reason = html.escape(output.printable(thumbnail.reason or "It cannot be read."))
        return f"<span class=lacking>{reason}</span>"
    stream = io.BytesIO()
    thumbnail.image.save(stream, "JPEG", quality=QUALITY)
    data = base64.b64encode(stream.getvalue()).decode("ascii")
    width, height = thumbnail.image.size
    name = html.escape(output.printable(str(thumbnail.hit["name"])), quote=True)
    return f'<img width={width} height={height} alt="{name}" src="data:image/jpeg;base64,{data}">'


def _ratio(hit: Mapping[str, Any]) -> float:
    """Width by height, within what a row can hold."""
    width, height = hit.get("width") or 1, hit.get("height") or 1
    return min(4.0, max(0.5, width / height))


_PAGE: Final = Template("""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
$generator$version">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>$title</title>
<style>
:root { color-scheme: light dark; --row: 12.5rem;
  --paper: #fafaf8; --ink: #1c1c1a; --faint: #6d6d68; --tile: #ecece8 }
@media (prefers-color-scheme: dark) {
  :root { --paper: #161617; --ink: #ebebe7; --faint: #98988f; --tile: #232325 }
}
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 110rem; padding: 2rem clamp(1rem, 3vw, 3rem); background: var(--paper);
  color: var(--ink); font: 15px/1.45 system-ui, sans-serif }
header { margin-bottom: 1.8rem }
h1 { margin: 0 0 .3rem; font-size: clamp(1.4rem, 3vw, 2.1rem); font-weight: 650; letter-spacing: -.01em;
  overflow-wrap: anywhere }
header p { margin: 0; color: var(--faint) }
code { font: .88em/1.5 ui-monospace, monospace; overflow-wrap: anywhere }
main { display: flex; flex-wrap: wrap; gap: 1.1rem .9rem }
main::after { content: ""; flex: 1e9 1 0 }
figure { margin: 0; flex: var(--ratio) 1 calc(var(--ratio) * var(--row)); min-width: 9rem;
  max-width: min(100%, calc(var(--ratio) * var(--row) * 1.7)) }
a { display: block; aspect-ratio: var(--ratio); border-radius: .35rem; overflow: hidden;
  background: var(--tile); color: inherit; text-decoration: none }
a:hover, a:focus-visible { outline: 3px solid Highlight; outline-offset: 2px }
img { display: block; width: 100%; height: 100%; object-fit: contain }
.lacking { display: grid; place-content: center; height: 100%; padding: 1rem; text-align: center;
  color: var(--faint); font-size: .85em }
figcaption { padding: .4rem .1rem 0; font-size: .85rem; overflow-wrap: anywhere }
figcaption b { font-variant-numeric: tabular-nums }
.rank { color: var(--faint); font-variant-numeric: tabular-nums }
small { display: block; color: var(--faint) }
.said { font-style: italic }
@media print {
  :root { --paper: #fff; --ink: #000; --faint: #555; --tile: #fff; --row: 8rem }
  body { padding: 0; max-width: none; font-size: 10pt }
  figure { break-inside: avoid }
  @page { margin: 12mm }
}
</style>
<header>
<h1>$title</h1>
<p>$count · $date</p>
<p><code>$command</code></p>
</header>
<main>
$figures
</main>
</html>
""")
