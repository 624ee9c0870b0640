"""Vectors by row number, in Faiss: exact, and above a size also approximate.

The exact index is flat: float16 codes, one after the other, which are the vectors themselves as they are
stored. Where it grows too large to be compared as a whole, an inverted file (IVF) of 8-bit codes finds the
candidates. Scores are inner products; whoever asks ranks anew by the exact vectors.

Faiss crashes if an index is searched while it changes, so a search holds a lock that excludes changes.
"""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any, Final

import faiss
import numpy as np

if TYPE_CHECKING:
    from typing import BinaryIO

    from numpy.typing import NDArray

    from imagedbd.datatypes import Vector

_TRAINING_ROWS: Final = 40
"""Vectors for each centroid that the training of an IVF sees: Faiss asks for 39 at least."""
_TRAINING_ROUNDS: Final = 10
_CENTROIDS: Final = 2
"""Centroids for each square root of the number of rows."""
_MAX_CENTROIDS: Final = 4096
_PROBED: Final = 6
"""One in so many lists is looked at …"""
_LEAST_PROBED: Final = 64
"""… and this many at least."""
_REFINED: Final = 8
"""Candidates for each one that is asked for, which make up for what eight bits cannot tell apart."""
_ADDED_AT_ONCE: Final = 50_000
"""Vectors that are widened to float32 at a time."""
_EXACT_SHARE: Final = 2
"""A condition that leaves less than one row in so many is met by comparing those: what it leaves may lie
anywhere but in the lists that are nearest to the query."""


class VectorIndex:
    """The vectors of rows that are numbered from 0; a row without a vector has zeros.

    It does no locking.
    """

    def __init__(self, dimension: int, *, codes: NDArray[np.float16] | None = None) -> None:
        """:param codes: the vectors of the first rows, shape ``(n, dimension)``."""
        self.dimension = dimension
        self._flat: Any = faiss.IndexScalarQuantizer(
            dimension, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
        )
        self._ivf: Any = None
        self._trained_rows = 0
        self._added_rows = 0
        if codes is not None:
            self._add_codes(codes)

    def __len__(self) -> int:
        return int(self._flat.ntotal)

    @property
    def approximate(self) -> bool:
        return self._ivf is not None

    @property
    def trained_rows(self) -> int:
        """How many rows there were when the approximate index was trained."""
        return self._trained_rows

    @property
    def added_rows(self) -> int:
        """How many have been added to it since: its lists fit them less and less."""
        return self._added_rows

    def codes(self) -> NDArray[np.float16]:
        """All vectors as they are stored, shape ``(rows, dimension)``: a view that the next change ends."""
        if not len(self):
            return np.empty((0, self.dimension), dtype=np.float16)
        raw = faiss.rev_swig_ptr(self._flat.codes.data(), self._flat.codes.size())
        view: NDArray[np.float16] = raw.view(np.float16).reshape(len(self), self.dimension)
        return view

    def append(self, codes: NDArray[np.float16]) -> None:
        """Add rows at the end; shape ``(n, dimension)``, zeros for a row without a vector."""
        start = len(self)
        self._add_codes(codes)
        if self._ivf is not None:
            self._add_to_ivf(codes, start)

    def _add_codes(self, codes: NDArray[np.float16]) -> None:
        if len(codes):
            raw = np.ascontiguousarray(codes).view(np.uint8).reshape(len(codes), -1)
            self._flat.add_sa_codes(raw)

    def remove(self, rows: NDArray[np.int64]) -> None:
        """Take rows out of the approximate index; the exact one passes them over until it is made anew."""
        if self._ivf is not None and len(rows):
            self._ivf.remove_ids(rows)

    # Searching.

    def search(
        self, query: Vector, limit: int, among: NDArray[np.bool_]
    ) -> tuple[NDArray[np.int64], float | None]:
        """The rows most similar to a query of length one.

        :param among: for each row, whether it takes part; at least all without a vector must not.
        :returns: row numbers, best first; and the similarity of the last, or ``None`` if it is not certain
            that all others are less similar.
        """
        # OpenMP would spread a search of milliseconds over cores that are busy otherwise.
        faiss.omp_set_num_threads(1)
        selected = int(np.count_nonzero(among))
        if not selected:
            return np.empty(0, dtype=np.int64), None
        if self._ivf is None or selected * _EXACT_SHARE < len(among):
            return self._search_flat(query, min(limit, selected), among)
        found = self._search_ivf(query, min(limit, selected), among)
        if len(found) < min(limit, selected):
            return self._search_flat(query, min(limit, selected), among)
        return found, None

    def _search_flat(
        self, query: Vector, limit: int, among: NDArray[np.bool_]
    ) -> tuple[NDArray[np.int64], float | None]:
        parameters = faiss.SearchParameters(sel=_selector(among))
        scores, rows = self._flat.search(query[np.newaxis], limit, params=parameters)
        found = rows[0] >= 0
        return rows[0][found], float(scores[0][found][-1])

    def _search_ivf(self, query: Vector, limit: int, among: NDArray[np.bool_]) -> NDArray[np.int64]:
        probed = min(self._ivf.nlist, _EXACT_SHARE * max(_LEAST_PROBED, self._ivf.nlist // _PROBED))
        parameters = faiss.SearchParametersIVF(sel=_selector(among), nprobe=probed)
        _, rows = self._ivf.search(query[np.newaxis], limit * _REFINED, params=parameters)
        found: NDArray[np.int64] = rows[0][rows[0] >= 0]
        # The order of 8-bit codes says little among near ones: the exact vectors decide who is kept.
        scores = self.codes()[found].astype(np.float32) @ query
        return found[np.argsort(-scores, kind="stable")[:limit]]

    # The approximate index.

    def trained(self, rows: NDArray[np.int64]) -> Any:
        """An approximate index of these rows, for :meth:`adopt`.

        It takes seconds to minutes, and changes nothing here.
        """
        # It is done while others search and decode: for OpenMP to take all cores would hold them up.
        faiss.omp_set_num_threads(1)
        enough = min(_MAX_CENTROIDS, int(_CENTROIDS * math.sqrt(len(rows))))
        centroids = max(1, min(enough, len(rows) // _TRAINING_ROWS))
        quantizer = faiss.IndexFlatIP(self.dimension)
        ivf = faiss.IndexIVFScalarQuantizer(
            quantizer,
            self.dimension,
            centroids,
            faiss.ScalarQuantizer.QT_8bit,
            faiss.METRIC_INNER_PRODUCT,
        )
        ivf.cp.niter = _TRAINING_ROUNDS
        ivf.cp.min_points_per_centroid = 1
        chosen = np.random.default_rng(0).permutation(rows)[: centroids * _TRAINING_ROWS]
        ivf.train(self.codes()[np.sort(chosen)].astype(np.float32))
        ivf.set_direct_map_type(faiss.DirectMap.Hashtable)
        for start in range(0, len(rows), _ADDED_AT_ONCE):
            some = rows[start : start + _ADDED_AT_ONCE]
            ivf.add_with_ids(self.codes()[some].astype(np.float32), some)
        return ivf

    def adopt(self, approximate: Any, trained_rows: int, added_rows: int = 0) -> None:
        """From now on find candidates by this index."""
        self._ivf, self._trained_rows, self._added_rows = approximate, trained_rows, added_rows

    def _add_to_ivf(self, codes: NDArray[np.float16], start: int) -> None:
        present = np.flatnonzero(codes.any(axis=1))
        self._added_rows += len(present)
        if len(present):
            self._ivf.add_with_ids(codes[present].astype(np.float32), present + start)

    def compacted(self, rows: NDArray[np.int64]) -> VectorIndex:
        """A new index of these rows, numbered anew in their order. This one stays as it is."""
        made = VectorIndex(self.dimension, codes=self.codes()[rows])
        if self._ivf is not None:
            made.adopt(self._renumbered(rows), self._trained_rows, self._added_rows)
        return made

    def _renumbered(self, rows: NDArray[np.int64]) -> Any:
        numbers = np.full(len(self), -1, dtype=np.int64)
        numbers[rows] = np.arange(len(rows))
        copy = faiss.clone_index(self._ivf)
        copy.set_direct_map_type(faiss.DirectMap.NoMap)
        lists = copy.invlists
        for number in range(copy.nlist):
            if size := lists.list_size(number):
                ids = faiss.rev_swig_ptr(lists.get_ids(number), size)
                ids[:] = numbers[ids]
        copy.set_direct_map_type(faiss.DirectMap.Hashtable)
        return copy

    # Files.

    def write_approximate(self, file: BinaryIO) -> None:
        """:raises OSError: if the disk refuses."""
        faiss.write_index(self._ivf, faiss.PyCallbackIOWriter(file.write))

    def read_approximate(self, path: str, trained_rows: int, added_rows: int) -> None:
        """Faiss takes what it reads for whole: the file's checksum must have been compared before.

        :raises RuntimeError: if this is no such index.
        """
        ivf = faiss.read_index(path)
        if not isinstance(ivf, faiss.IndexIVFScalarQuantizer) or ivf.d != self.dimension:
            raise RuntimeError(f"{os.path.basename(path)} is no index of {self.dimension} dimensions")
        ivf.set_direct_map_type(faiss.DirectMap.Hashtable)
        self.adopt(ivf, trained_rows, added_rows)


def _selector(among: NDArray[np.bool_]) -> Any:
    return faiss.IDSelectorBitmap(np.packbits(among, bitorder="little"))
