"""Mixtures of hidden Chow-Liu trees, each of a cluster of the rows, as one circuit."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

import dspc_jax as pc
from dspc_jax.parameters import CircuitParams
from dspc_jax.starts import clusters
from dspc_jax.structure.region_graph import RegionGraph, RegionGraphBuilder

_LEAST_ROWS = 50  # of a cluster that has a tree of its own
_MOST_ROWS = 8000  # that the start looks at
_NUM_STEPS = 3  # of EM in which every tree sees its own cluster only


def joined(graphs: list[RegionGraph]) -> RegionGraph:
    """The mixture of region graphs: its root has the partitions of all roots."""
    builder = RegionGraphBuilder(graphs[0].num_variables)
    for graph in graphs:
        numbers = {graph.root: 0}
        for region, scope in enumerate(graph.scopes):
            if region != graph.root:
                numbers[region] = builder.add_region(scope)
        for p in graph.partitions:
            builder.add_partition(*(numbers[r] for r in (p.region, *p.children)))
    return builder.build()


def started(
    key: jax.Array, x: np.ndarray, num_trees: int, num_units: int
) -> tuple[pc.Circuit, CircuitParams]:
    """A circuit on binary rows, and its parameters before training.

    The rows are clustered, and every cluster gives the structure of one tree. Latents
    start as clusters of their variables over all rows (``method="distill"``); a few
    full steps of EM then move each tree to its own cluster.

    Args:
        key: of the clusters.
        x: ``[N, V, 1]`` of 0 and 1.
        num_trees: M; fewer where clusters are small.
        num_units: values of a latent.

    Returns:
        The circuit with M trees, and parameters.
    """
    cluster_key, start_key, row_key = jax.random.split(key, 3)
    groups = _groups(cluster_key, x, num_trees)
    circuit = pc.build(
        pc.CircuitConfig(
            joined([pc.hidden_chow_liu_tree(x[rows]) for rows in groups]),
            pc.Bernoulli(),
            num_leaves=num_units,
            num_sums=num_units,
            sum_layer="cp_t",
        )
    )
    some = x[:: -(-len(x) // _MOST_ROWS)]
    params = circuit.init(start_key, some, method="distill")
    if len(groups) == 1:
        return circuit, params
    rng = np.random.default_rng(jax.random.bits(row_key, dtype=jnp.uint32).item())
    size = min(_MOST_ROWS, len(x)) // len(groups)
    parts = [x[rng.choice(rows, size)] for rows in groups]
    em = pc.em(circuit, pseudocount=1.0, smooth_towards="uniform")
    for _ in range(_NUM_STEPS):
        counts = [
            pc.expected_counts(circuit, _of_tree(circuit, params, tree), part)
            for tree, part in enumerate(parts)
        ]
        total = jax.tree.map(lambda *each: sum(each), *counts)
        change, _ = em.update(total, optax.EmptyState(), params)
        assert isinstance(change, CircuitParams)
        params = jax.tree.map(jnp.add, params, change)
    shares = np.log([len(rows) / len(x) for rows in groups])
    return circuit, _with_trees(circuit, params, shares)


def _groups(key: jax.Array, x: np.ndarray, num_trees: int) -> list[np.ndarray]:
    """Numbers of the rows of each cluster; of all rows if there is one."""
    if num_trees == 1:
        return [np.arange(len(x))]
    variables = np.arange(x.shape[1])
    (labels,) = clusters.labels(key, jnp.asarray(x[..., 0]), [variables], num_trees)
    groups = [np.flatnonzero(labels == label) for label in range(num_trees)]
    return [rows for rows in groups if len(rows) >= _LEAST_ROWS]


def _of_tree(circuit: pc.Circuit, params: CircuitParams, tree: int) -> CircuitParams:
    """Parameters of one tree alone: a logit of -inf is a weight of 0."""
    count = len(circuit.config.structure.region_graph().partitions_of[0])
    alone = np.where(np.arange(count) == tree, 0.0, -np.inf)
    return _with_trees(circuit, params, alone)


def _with_trees(
    circuit: pc.Circuit, params: CircuitParams, logits: np.ndarray
) -> CircuitParams:
    """Parameters with these logits of the trees."""
    graph = circuit.config.structure.region_graph()
    rows = pc.parameter_rows(circuit).mixtures
    mixture = np.array(params.mixtures[-1])
    for number, logit in zip(graph.partitions_of[0], logits, strict=True):
        place = rows[number]
        assert place is not None
        mixture[place[1], :, place[2]] = logit
    new = jnp.asarray(mixture, jnp.float32)
    return params._replace(mixtures=(*params.mixtures[:-1], new))
