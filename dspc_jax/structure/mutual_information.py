"""Mutual information of all pairs of variables, from values in bins."""

import numpy as np

_MOST_COLUMNS = 2048
"""Of a matrix of indicators; two of them have counts of 32 MiB."""
_MOST_INDICATORS = 2**25
"""128 MiB of them at once."""


def binned(
    x: np.ndarray, observed: np.ndarray, num_bins: int
) -> tuple[np.ndarray, np.ndarray]:
    """Every variable's values as the numbers of bins.

    A variable of at most ``num_bins`` distinct values has a bin for each. Another has
    bins of neighboring values that are seen about equally often, where a value seen
    more often than one bin's share counts as one share: the zeros of an image take one
    bin or a few, not nearly all of them.

    Args:
        x: ``[N, V]``, finite where observed.
        observed: bool ``[N, V]``.
        num_bins: the most bins of a variable.

    Returns:
        int16 ``[V, N]``, -1 where not observed, and the number of bins ``[V]``, at
        least 1; none of them is empty.
    """
    codes = np.full(x.shape[::-1], -1, np.int16)
    for variable, there in enumerate(observed.T):
        values = x[there, variable]
        if values.size:
            codes[variable, there] = _bins(values, num_bins)
    return codes, np.maximum(codes.max(axis=1).astype(int) + 1, 1)


def _bins(values: np.ndarray, num_bins: int) -> np.ndarray:
    distinct, inverse, counts = np.unique(
        values, return_inverse=True, return_counts=True
    )
    if len(distinct) <= num_bins:
        return inverse
    weights = np.minimum(counts, len(values) / num_bins)
    middles = np.cumsum(weights) - weights / 2
    bins = np.floor(middles * (num_bins / weights.sum()))
    return np.unique(bins, return_inverse=True)[1][inverse]


def mutual_information(
    codes: np.ndarray, sizes: np.ndarray, pseudocount: float
) -> np.ndarray:
    """Mutual information of every pair of variables, over the rows that have both.

    All pairs are counted by products of matrices of indicators, in blocks.

    Args:
        codes: ``[V, N]`` bins, -1 where not observed.
        sizes: ``[V]`` numbers of bins.
        pseudocount: added to the count of every pair of bins.

    Returns:
        In nats, at least 0, ``[V, V]``; 0 on the diagonal, of variables with one bin,
        and of pairs that no row has if nothing is added.
    """
    blocks = []
    for size in np.unique(sizes[sizes > 1]):
        members = np.flatnonzero(sizes == size)
        width = max(_MOST_COLUMNS // size, 1)
        blocks += [members[i : i + width] for i in range(0, len(members), width)]
    out = np.zeros((len(codes), len(codes)))
    for number, left in enumerate(blocks):
        for right in blocks[number:]:
            counts = _joint_counts(codes, sizes, left, right)
            values = _of_counts(counts + pseudocount)
            out[np.ix_(left, right)] = values
            out[np.ix_(right, left)] = values.T
    np.fill_diagonal(out, 0.0)
    return out


def _joint_counts(codes, sizes, left, right) -> np.ndarray:
    """``[V1, M1, V2, M2]`` rows for each pair of bins of two blocks of variables."""
    num_columns = max(len(block) * sizes[block[0]] for block in (left, right))
    step = max(_MOST_INDICATORS // num_columns, 1)  # counts below 2**24: exact
    shape = (len(left), sizes[left[0]], len(right), sizes[right[0]])
    total = np.zeros((shape[0] * shape[1], shape[2] * shape[3]))
    for start in range(0, codes.shape[1], step):
        rows = slice(start, start + step)
        first = _indicators(codes[left, rows], shape[1])
        second = first  # the same array: half the work
        if left is not right:
            second = _indicators(codes[right, rows], shape[3])
        total += first @ second.T
    return total.reshape(shape)


def _indicators(codes: np.ndarray, size: int) -> np.ndarray:
    """``[V * M, N]``, 1 where a variable is in a bin."""
    bins = np.arange(size, dtype=codes.dtype)
    equal = codes[:, None] == bins[:, None]
    return equal.reshape(-1, codes.shape[1]).astype(np.float32)


def _of_counts(counts: np.ndarray) -> np.ndarray:
    total = counts.sum(axis=(1, 3), keepdims=True)
    p = counts / np.where(total > 0, total, 1.0)
    joint = _x_log_x(p).sum(axis=(1, 3))
    first = _x_log_x(p.sum(axis=3)).sum(axis=1)
    second = _x_log_x(p.sum(axis=1)).sum(axis=2)
    return np.maximum(joint - first - second, 0.0)


def _x_log_x(p: np.ndarray) -> np.ndarray:
    return p * np.log(np.where(p > 0, p, 1.0))
