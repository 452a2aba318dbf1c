"""Trees from data: Chow-Liu trees, and the hidden ones as region graphs."""

from typing import Any

import numpy as np

from dspc_jax.arguments import real_number, shown, whole_number
from dspc_jax.structure.mutual_information import binned, mutual_information
from dspc_jax.structure.region_graph import RegionGraph, RegionGraphBuilder

_MOST_BINS = 256


def hidden_chow_liu_tree(
    x: Any,
    observed: Any = None,
    *,
    num_bins: int = 16,
    pseudocount: float = 0.1,
    root: int | str = "center",
) -> RegionGraph:
    """A tree of latents from data, one behind each variable: the hidden Chow-Liu tree.

    Latents are joined as the variables are in their `chow_liu_tree`. The region of a
    variable, whose units are the values of its parent's latent, has one partition: the
    input region of the variable and the regions of its neighbors below. With
    ``sum_layer="cp_t"`` and ``num_leaves=num_sums`` it is the literature's circuit: the
    sum over it is the distribution of the variable's own latent.

    With other sum layers, and with leaves of another number, there are more latents:
    one between each variable and its latent, except at the ends of the tree, and with
    ``"tucker"`` one for each neighbor below after the first (`dspc_jax.Partition`).
    Deep neighbors come last, where they get the fewest of these.

    Columns of one value are independent of all others and hang from them in turn, one
    each.

    Args:
        x: data ``[N, V]`` or ``[N, V, 1]``, N at least 2. Of images with 256 levels,
            the literature takes ``x // 16``.
        observed: bool ``[N, V]``, which of the data there are (the others may be NaN),
            or None for all. Pairs are counted over the rows that have both.
        num_bins: 2 to 256. A column of at most so many distinct values has a bin for
            each, another has bins of about equally many rows.
        pseudocount: added to the count of every pair of bins (Laplace), at least 0.
        root: a variable, or ``"center"``, from which the farthest one is nearest.

    Returns:
        The region graph. Its input regions are single variables; it is structured
        decomposable.

    Raises:
        ValueError: the data or the mask have another shape or type, there are fewer
            than two rows, an observed value is not finite, or an option is out of its
            range.

    References:
        Chow and Liu, "Approximating discrete probability distributions with dependence
        trees", 1968.
        Liu and Van den Broeck, "Tractable regularization of probabilistic circuits",
        NeurIPS 2021 (hidden Chow-Liu trees).
    """
    return latent_tree(
        chow_liu_tree(
            x, observed, num_bins=num_bins, pseudocount=pseudocount, root=root
        )
    )


def chow_liu_tree(
    x: Any,
    observed: Any = None,
    *,
    num_bins: int = 16,
    pseudocount: float = 0.1,
    root: int | str = "center",
) -> np.ndarray:
    """The tree of variables whose joined pairs have the most mutual information.

    Args:
        x: see `hidden_chow_liu_tree`, as the others.
        observed: mask.
        num_bins: the most bins of a column.
        pseudocount: added to every count.
        root: where the tree hangs from.

    Returns:
        The parent of every variable, ``[V]``, -1 at the root.

    Raises:
        ValueError: see `hidden_chow_liu_tree`.
    """
    x, observed = checked(x, observed)
    num_bins = whole_number("num_bins", num_bins, least=2)
    if num_bins > _MOST_BINS:
        raise ValueError(f"num_bins must be at most {_MOST_BINS}, got {num_bins}")
    return tree_of_codes(*binned(x, observed, num_bins), pseudocount, root)


def tree_of_codes(
    codes: np.ndarray, sizes: np.ndarray, pseudocount: float, root: int | str
) -> np.ndarray:
    """The `chow_liu_tree` of values that are numbers already.

    Args:
        codes: ``[V, N]`` whole numbers, -1 where not observed.
        sizes: ``[V]``, how many values there are.
        pseudocount: added to the count of every pair of values.
        root: where the tree hangs from.

    Returns:
        The parent of every variable, ``[V]``, -1 at the root.

    Raises:
        ValueError: an option is out of its range.
    """
    pseudocount = real_number("pseudocount", pseudocount)
    if pseudocount < 0:
        raise ValueError(f"pseudocount must be at least 0, got {pseudocount}")
    if root != "center":
        root = whole_number("root", root, least=0)
        if root >= len(codes):
            raise ValueError(
                f'root must be "center" or a variable 0..{len(codes) - 1}, got {root}'
            )
    weights = mutual_information(codes, sizes, pseudocount)
    _hang_constants(weights, sizes)
    neighbors = _spanning_tree(weights)
    if root == "center":
        root = _center(neighbors)
    return _walk(neighbors, int(root))[1]


def checked(x: Any, observed: Any) -> tuple[np.ndarray, np.ndarray]:
    """Data ``[N, V]`` and their mask, or ValueError; see `hidden_chow_liu_tree`."""
    x = np.asarray(x)
    if x.dtype.kind not in "biuf" and x.dtype.name != "bfloat16":
        raise ValueError(f"x must be an array of real numbers, got {shown(x)}")
    if x.dtype.name == "bfloat16":
        x = x.astype(np.float32)
    if x.ndim == 3 and x.shape[2] == 1:
        x = x[..., 0]
    if x.ndim != 2 or x.shape[1] == 0:
        raise ValueError(f"x must have shape [N, V] or [N, V, 1], got {x.shape}")
    if len(x) < 2:
        raise ValueError(f"x must hold at least two examples, got {len(x)}")
    if observed is None:
        observed = np.ones(x.shape, bool)
    observed = np.asarray(observed)
    if observed.dtype != bool or observed.shape != x.shape:
        raise ValueError(
            f"observed must be bool of shape [N, V] = {x.shape}, got {shown(observed)}"
        )
    wrong = observed & ~np.isfinite(x)
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise ValueError(
            "x must be finite where observed, got "
            f"{x[row, column]} in row {row} of column {column}"
        )
    return x, observed


def _hang_constants(weights: np.ndarray, sizes: np.ndarray) -> None:
    """Lets columns of one value be children of the others in turn, by tiny weights."""
    constant, others = np.flatnonzero(sizes == 1), np.flatnonzero(sizes > 1)
    if len(others):
        owners = np.resize(others, len(constant))
        weights[constant, owners] = weights[owners, constant] = np.finfo(float).tiny


def _spanning_tree(weights: np.ndarray) -> list[list[int]]:
    """Every variable's neighbors in a spanning tree of the greatest weight (Prim)."""
    count = len(weights)
    neighbors: list[list[int]] = [[] for _ in range(count)]
    outside = np.arange(count) > 0
    best, link = weights[0].copy(), np.zeros(count, int)
    for _ in range(count - 1):
        new = int(np.where(outside, best, -1.0).argmax())
        neighbors[new].append(int(link[new]))
        neighbors[link[new]].append(new)
        outside[new] = False
        better = weights[new] > best
        best[better], link[better] = weights[new, better], new
    return neighbors


def _walk(neighbors: list[list[int]], root: int) -> tuple[list[int], np.ndarray]:
    """All variables, nearest first, and their parents (-1 at the root)."""
    order, parents = [root], np.full(len(neighbors), -1)
    for variable in order:
        below = [v for v in neighbors[variable] if v != parents[variable]]
        parents[below] = variable
        order += below
    return order, parents


def _center(neighbors: list[list[int]]) -> int:
    """The middle of a longest path."""
    end = _walk(neighbors, 0)[0][-1]
    order, parents = _walk(neighbors, end)
    path = [order[-1]]
    while path[-1] != end:
        path.append(int(parents[path[-1]]))
    return path[len(path) // 2]


def latent_tree(parents: np.ndarray) -> RegionGraph:
    """The region graph of the latents of a tree of variables.

    The first child of every partition is the input region of its variable.
    """
    children: list[list[int]] = [[] for _ in parents]
    for variable, parent in enumerate(parents.tolist()):
        if parent >= 0:
            children[parent].append(variable)
    order = np.flatnonzero(parents < 0).tolist()
    for variable in order:
        order += children[variable]
    scopes: dict[int, list[int]] = {}
    heights: dict[int, int] = {}
    for variable in reversed(order):
        below = children[variable]
        below.sort(key=heights.__getitem__)
        scopes[variable] = sorted([variable, *(v for c in below for v in scopes[c])])
        heights[variable] = 1 + max((heights[c] for c in below), default=0)
    builder = RegionGraphBuilder(len(parents))
    regions = {
        v: builder.add_region(scopes[v]) if n else 0 for n, v in enumerate(order)
    }
    for variable in order:
        parts = [builder.add_region([variable])]
        parts += [regions[child] for child in children[variable]]
        builder.add_partition(regions[variable], *parts)
    return builder.build()
