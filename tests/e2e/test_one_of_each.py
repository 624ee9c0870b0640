"""One file of each format, below one daemon."""

from __future__ import annotations

from typing import TYPE_CHECKING

from negatives import dng
from pictures import exif, picture

from imagedbd.readers import HEIF, JXL, loaded

if TYPE_CHECKING:
    from machine import Machine

TAKEN = "2024:05:06 07:08:09"
TURNED = {
    "a.jpg": "JPEG",
    "b.png": "PNG",
    "c.webp": "WEBP",
    "d.tif": "TIFF",
    "e.avif": "AVIF",
    "f.heic": "HEIF",
}
PLAIN = {"g.gif": "GIF", "h.bmp": "BMP", "i.jp2": "JPEG2000", "j.ppm": "PPM"}


def test_each_is_indexed_with_its_size_date_and_orientation(machine: Machine) -> None:
    loaded(HEIF)
    loaded(JXL)
    stored, tags = picture(3, (320, 240)), exif(taken=TAKEN)
    tags[0x0112] = 6
    for name, kind in TURNED.items():
        stored.save(machine.photos / name, kind, exif=tags.tobytes())
    for name, kind in PLAIN.items():
        stored.save(machine.photos / name, kind)
    # What turns it is its codestream, not its Exif.
    stored.save(machine.photos / "k.jxl", "JXL", exif=tags.tobytes())
    (machine.photos / "l.dng").write_bytes(dng(stored, preview=stored, orientation=6, taken=TAKEN))
    machine.start()
    machine.wait()
    assert machine.json("failures") == []
    rows = {row["name"]: row for row in machine.json("search", "--where", "width > 0", "-n", "50")}
    seen = {
        name: (row["format"], row["width"], row["height"], row["taken_at"], row["orientation"])
        for name, row in rows.items()
    }
    taken = "2024-05-06T07:08:09"
    assert {name: of for name, of in seen.items() if name != "k.jxl"} == {
        **{name: (kind, 240, 320, taken, 6) for name, kind in (TURNED | {"l.dng": "DNG"}).items()},
        **{name: (kind, 320, 240, None, None) for name, kind in PLAIN.items()},
    }
    assert seen["k.jxl"][:4] == ("JXL", 320, 240, taken)
    # By what is to be seen, they are one picture; what is left are their tones.
    hits = machine.json("similar", str(machine.photos / "b.png"), "-n", "50")
    assert len(hits) == len(rows) - 1
