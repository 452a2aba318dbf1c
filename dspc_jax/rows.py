"""Whose parameters are where, and how many there are."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dspc_jax.circuit import Circuit
from dspc_jax.structure.region_graph import RegionGraph


class ParameterRows(NamedTuple):
    """Where the parameters of every region and partition are.

    Numbers of regions and partitions are those of the circuit's region graph. What its
    sum layer adds to it comes after them, in ``graph``.

    Attributes:
        graph: the circuit's region graph, with more regions and partitions at the ends
            of its lists. With ``tucker`` a product of more than two regions is one of
            two, whose children are products again. There, and where ``num_leaves`` is
            not ``num_sums``, an input region beside an inner one has a sum layer over
            it; with ``cp`` every factor has. Where parameters are tied, several
            have the same places.
        leaves: for each input region and variable in it, ``(i, row, place)``: the
            leaves of its units are ``[row, :, place]`` of the arrays of
            ``params.leaves[i]``, that is ``[K, C]``, or tables ``[K, C, M]`` (of a
            categorical variable the first ``num_values`` count, the rest is padding).
        sums: for each partition, ``(i, j, row)``: its logits are
            ``params.sums[i][j][row]``, ``[O, K, K]`` (unit of the region, of the first,
            of the second child; tucker) or ``[O, K]`` (cp, or one child).
        mixtures: for each partition, ``(i, row, place)``: its logits among the
            partitions of its region are ``params.mixtures[i][row, :, place]``, ``[K]``;
            None where regions of this level have one partition each, or where all
            partitions of a region have equal weights.
    """

    graph: RegionGraph
    leaves: dict[tuple[int, int], tuple[int, int, int]]
    sums: tuple[tuple[int, int, int], ...]
    mixtures: tuple[tuple[int, int, int] | None, ...]


def count_params(params: Any) -> int:
    """How many numbers there are in parameters, or in any pytree of arrays.

    Joined leaf families (columns of different sizes) have padding, which counts.

    Args:
        params: such as a circuit's.

    Returns:
        The sum of the arrays' sizes.
    """
    return sum(math.prod(jnp.shape(leaf)) for leaf in jax.tree.leaves(params))


def parameter_rows(circuit: Circuit) -> ParameterRows:
    """The rows of a circuit, for weights set by hand, ports and inspection.

    The weights are the softmax of the logits: over ``[K, K]`` or ``[K]`` of a sum, over
    the places of a mixture, and over ``params.classes``.

    Args:
        circuit: of `dspc_jax.build`; one behind a flow has it as ``circuit``.

    Returns:
        The rows.
    """
    layout = circuit.layout
    ties = layout.tied_sums
    graph, regions, partitions = layout.graph.places
    leaves = {}
    for region, (level, row) in enumerate(regions):
        if level > 0:
            continue
        for i, block in enumerate(layout.blocks):
            for place, variable in enumerate(block.scopes[row]):
                if not block.valid[row, place]:
                    continue
                at = (i, row, place)
                if layout.tied_leaves is not None:
                    at = (i, int(layout.tied_leaves[i][1][row, place]), 0)
                leaves[region, int(variable)] = at
    mixtures = []
    for partition, (level, fold, row) in zip(graph.partitions, partitions, strict=True):
        folded = layout.graph.levels[level - 1]
        if folded.mixture is None or layout.mixing == "uniform":
            mixtures.append(None)
            continue
        number = row + sum(other.size for other in folded.folds[:fold])
        region_row = regions[partition.region][1]
        (place,) = (folded.mixture[region_row] == number).nonzero()[0]
        if ties is not None and (shared := ties.mixture_rows[level - 1]) is not None:
            region_row = int(shared[region_row])
        mixtures.append((level - 1, region_row, int(place)))
    sums = tuple((level - 1, fold, row) for level, fold, row in partitions)
    if ties is not None:
        tables = [(*ties.rows[level][fold], row) for level, fold, row in sums]
        sums = tuple((0, table, int(rows[row])) for table, rows, row in tables)
    return ParameterRows(graph, leaves, sums, tuple(mixtures))
