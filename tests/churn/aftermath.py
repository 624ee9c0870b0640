"""What ledger and store hold after a clean end: the pictures that are in the folders, and nothing else."""

from __future__ import annotations

import importlib.util
import os
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from churn.contents import Said
from churn.oracle import compare_said

from imagedbd.datatypes import Limits, PictureState
from imagedbd.decoder_worker import decode_bytes
from imagedbd.ledger import Ledger
from imagedbd.sidecars import has_its_sidecars
from imagedbd.stores import open_store

if TYPE_CHECKING:
    from churn.contents import Contents
    from churn.oracle import Expected

    from imagedbd.datatypes import ModelInfo, StoredPicture

_STATES = {PictureState.INDEXED, PictureState.FAILED}


def leftovers(data: str, active: dict[str, Any], expected: Expected, contents: Contents) -> list[str]:
    """What is wrong, a line each.

    :param data: the daemon's folder.
    :param active: the store that answered last, as the status has it.
    """
    ledger = Ledger(os.path.join(data, "ledger.sqlite3"))
    try:
        entries = {entry.path: entry for entry in ledger.under("/")}
    finally:
        ledger.close()
    store = open_store(active["kind"], active["uri"], exclusive=True)
    try:
        rows = list(store.pictures())
        model = store.model
    finally:
        store.close()
    faults = [f"ledger: {p!r} is {entry.state}" for p, entry in entries.items() if entry.state not in _STATES]
    there = {path for path, entry in entries.items() if entry.id is not None}
    known = expected.pictures.keys() | expected.either.keys()
    faults += [f"ledger: {path!r} too much" for path in entries.keys() - known - expected.failed]
    faults += [f"ledger: {path!r} missing" for path in (known | expected.failed) - entries.keys()]
    faults += [f"store: {path!r} has no entry in the ledger" for path in _paths(rows) - there]
    faults += [f"store: {path!r} missing" for path in there - _paths(rows)]
    if len(_paths(rows)) != len(rows):
        faults.append("store: a path is there twice")
    for row in rows:
        entry = entries.get(row.record.path)
        if entry and (entry.id, entry.content_hash, entry.signature) != (
            row.record.id,
            row.record.content_hash,
            row.record.signature,
        ):
            faults.append(f"{row.record.path!r}: ledger {entry} and store {row.record} differ")
        if entry and row.record.path in expected.said and not has_its_sidecars(entry):
            faults.append(f"{row.record.path!r}: ledger has the mark {entry.sidecar!r} of its sidecars")
    records = {r.record.path: r.record.metadata for r in rows}
    said = {path: Said(m.rating, m.caption, m.keywords) for path, m in records.items()}
    faults += [f"{path!r}: {fault}" for path, fault in compare_said(said, expected).items()]
    return faults + [f"vector of {path!r} is another's" for path in _wrong_vectors(rows, model, contents)]


def _paths(rows: list[StoredPicture]) -> set[str]:
    return {row.record.path for row in rows}


def _wrong_vectors(rows: list[StoredPicture], model: ModelInfo | None, contents: Contents) -> list[str]:
    """Those that are not of what the file holds, as the stub's model says. The real one is not asked."""
    if model is None or "stub-model" not in model.spec:
        return []
    stub = _stub().OpenClip(model.spec)
    wrong = []
    for row in rows:
        data = contents.good.get(row.record.content_hash)
        if data is None:
            continue
        _, _, pixels = decode_bytes(data, model.preprocess, Limits())
        assert pixels is not None
        (vector,) = stub.embed_pictures(np.stack([pixels]))
        if row.vector is None or float(vector @ row.vector) < 0.9999:
            wrong.append(row.record.path)
    return wrong


@cache
def _stub() -> Any:
    file = Path(__file__).parents[1] / "stub" / "openclip.py"
    spec = importlib.util.spec_from_file_location("stub_openclip", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
