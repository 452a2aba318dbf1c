"""Rows of regions in the levels of a folded graph."""

from typing import NamedTuple

import numpy as np


class Piece(NamedTuple):
    """The ``rows`` of the regions of ``level``; a run of neighbors is a slice."""

    level: int
    rows: np.ndarray | slice


def in_pieces(rows: list[tuple[int, int]]) -> tuple[Piece, ...]:
    """Runs of one level; neighboring rows become a slice."""
    pieces, start = [], 0
    for end in range(1, len(rows) + 1):
        if end == len(rows) or rows[end][0] != rows[start][0]:
            index = np.array([row for _, row in rows[start:end]])
            first = int(index[0])
            run = (index == first + np.arange(len(index))).all()
            pieces.append(
                Piece(
                    rows[start][0], slice(first, first + len(index)) if run else index
                )
            )
            start = end
    return tuple(pieces)
