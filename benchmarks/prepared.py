"""A data folder and a gallery as a daemon would have left them, made without one.

Embedding a hundred thousand pictures takes hours here. The files are real (tiny JPEGs, no two the same), and
store and ledger know each by its signature and hash; only the vectors are made up.
"""

from __future__ import annotations

import io
import os
from dataclasses import dataclass, replace

import numpy as np
from blake3 import blake3
from library import make_library
from PIL import Image

from imagedbd.datatypes import Batch, LedgerEntry, ModelInfo, PictureState, Signature, StoredPicture
from imagedbd.ledger import Ledger
from imagedbd.stores import open_store

FOLDER_SIZE = 500
BATCH = 5_000


@dataclass(frozen=True)
class Prepared:
    """
    :param home: what a private daemon is given; its ``data`` folder is filled.
    :param model: spec of the model that the vectors pass for.
    """

    home: str
    gallery: str
    model: str


def prepare(home: str, model: str, count: int, kind: str) -> Prepared:
    """To be called in a process of its own: it loads torch, to learn what model this is."""
    from imagedbd.openclip import OpenClip

    info = OpenClip(model, device="cpu", dtype="fp32").info
    gallery = os.path.join(home, "gallery")
    _fill(os.path.join(home, "data"), kind, info, _pictures(gallery, count, info))
    return Prepared(home, gallery, model)


def _pictures(gallery: str, count: int, info: ModelInfo) -> list[StoredPicture]:
    library = make_library(count, dimension=info.dimension, model=info)
    spare = library.vectors
    pictures = []
    for number, picture in enumerate(library.pictures):
        folder = os.path.join(gallery, f"{number // FOLDER_SIZE:04}")
        path = os.path.join(folder, f"IMG_{number:06}.jpg")
        content_hash = _write(path, number)
        record = replace(
            picture.record, path=path, content_hash=content_hash, signature=Signature.of(os.lstat(path))
        )
        vector = picture.vector if picture.vector is not None else spare[number % len(spare)]
        pictures.append(StoredPicture(record, np.asarray(vector)))
    return pictures


def _write(path: str, number: int) -> str:
    if number % FOLDER_SIZE == 0:
        os.makedirs(os.path.dirname(path))
    data = _TINY + number.to_bytes(8, "big")
    with open(path, "wb") as file:
        file.write(data)
    return blake3(data).hexdigest()


def _tiny_jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), (90, 120, 150)).save(buffer, "JPEG")
    return buffer.getvalue()


_TINY = _tiny_jpeg()
"""What follows the end of a JPEG is nobody's business, and makes each file another one."""


def _fill(data: str, kind: str, info: ModelInfo, pictures: list[StoredPicture]) -> None:
    os.makedirs(data, mode=0o700)
    store = open_store(kind, os.path.join(data, kind), exclusive=True)
    store.bind(info)
    ledger = Ledger(os.path.join(data, "ledger.sqlite3"))
    for at in range(0, len(pictures), BATCH):
        some = pictures[at : at + BATCH]
        store.apply(Batch(upserts=tuple(some)))
        store.maintain()
        ledger.put(_entry(picture) for picture in some)
    store.maintain(idle=True)
    store.close()
    ledger.close()


def _entry(picture: StoredPicture) -> LedgerEntry:
    record = picture.record
    return LedgerEntry(
        record.path, record.signature, PictureState.INDEXED, record.id, record.content_hash, attempts=0
    )
