"""Rows of regions in the levels of a folded graph."""

from typing import NamedTuple

import numpy as np

ROW_TYPE = np.int32
"""Of rows and variables in the arrays of a structure.

JAX takes an array of NumPy's 64-bit numbers as one of 32 bits. When x64 is switched on
later it still does so for this array, and then refuses it as an index.
"""


ABSENT = -1
"""In place of a level: nothing. Some partitions have fewer children than others."""


class Piece(NamedTuple):
    """The ``rows`` of the regions of ``level``; a run of neighbors is a slice."""

    level: int
    rows: np.ndarray | slice

    @property
    def size(self) -> int:
        """The number of rows."""
        if isinstance(self.rows, slice):
            return self.rows.stop - self.rows.start
        return len(self.rows)


def in_pieces(rows: list[tuple[int, int]]) -> tuple[Piece, ...]:
    """Runs of one level; neighboring rows become a slice."""
    pieces, start = [], 0
    for end in range(1, len(rows) + 1):
        if end == len(rows) or rows[end][0] != rows[start][0]:
            index = np.array([row for _, row in rows[start:end]], ROW_TYPE)
            first = int(index[0])
            run = (index == first + np.arange(len(index))).all()
            pieces.append(
                Piece(
                    rows[start][0], slice(first, first + len(index)) if run else index
                )
            )
            start = end
    return tuple(pieces)
