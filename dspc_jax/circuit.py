"""The public bundle: `build` turns a configuration into pure functions."""

from collections.abc import Callable
import dataclasses
import functools
from typing import Any, NamedTuple

from dspc_jax.arguments import instance, shown, store, whole_number
from dspc_jax.layers import input_layer, sum_layer
from dspc_jax.leaves import DirectLeaf, ExponentialLeaf, Leaf
from dspc_jax.parameters import Layout
from dspc_jax.queries import QUERIES
from dspc_jax.structure.families import QuadTree, RandomBinaryTrees
from dspc_jax.structure.folding import fold
from dspc_jax.structure.region_graph import RegionGraph
from dspc_jax.types import Array

Structure = RandomBinaryTrees | QuadTree | RegionGraph


@dataclasses.dataclass(frozen=True)
class CircuitConfig:
    """Everything that makes a circuit, hashable.

    Attributes:
      structure: `RandomBinaryTrees`, `QuadTree`, or any `RegionGraph`.
      leaf: one leaf family, or a tuple (or list) with one per variable (mixed data).
      num_channels: C; the channels of a variable are independent given a leaf.
      num_leaves: K of input regions.
      num_sums: K of inner regions.
      num_classes: Y, the number of roots.
      sum_layer: ``"tucker"`` (all pairs of child units) or ``"cp"`` (unit by unit).

    Raises:
      ValueError: a number is too small or no integer, the sum layer is unknown, a
        structure or a leaf is none (a class in place of an instance), or the tuple of
        leaves does not have one entry per variable.
    """

    structure: Structure
    leaf: Leaf | tuple[Leaf, ...]
    num_channels: int = 1
    num_leaves: int = 16
    num_sums: int = 16
    num_classes: int = 1
    sum_layer: str = "cp"

    def __post_init__(self):
        for name in ("num_channels", "num_leaves", "num_sums", "num_classes"):
            value = whole_number(name, getattr(self, name), least=1)
            store(self, **{name: value})
        if self.sum_layer not in sum_layer.KINDS:
            raise ValueError(
                f"sum_layer must be one of {sum_layer.KINDS}, got "
                f"{shown(self.sum_layer)}"
            )
        structure = self.structure
        if isinstance(structure, type) or not hasattr(structure, "region_graph"):
            raise ValueError(
                "structure must be RandomBinaryTrees(...), QuadTree(...) or a "
                f"RegionGraph, got {shown(structure)}"
            )
        if isinstance(self.leaf, list):
            store(self, leaf=tuple(self.leaf))
        for leaf in self.leaf if isinstance(self.leaf, tuple) else (self.leaf,):
            known = isinstance(leaf, ExponentialLeaf | DirectLeaf)
            if isinstance(leaf, type) or not known:
                raise ValueError(
                    "leaf must be a leaf family such as Normal(), or a tuple of them, "
                    f"got {shown(leaf)}"
                )
        num_variables = self.structure.num_variables
        if isinstance(self.leaf, tuple) and len(self.leaf) != num_variables:
            raise ValueError(
                f"leaf must be a family or a tuple of {num_variables}, one a variable, "
                f"got a tuple of {len(self.leaf)}"
            )

    @property
    def leaves(self) -> tuple[Leaf, ...]:
        """The family of every variable."""
        if isinstance(self.leaf, tuple):
            return self.leaf
        return (self.leaf,) * self.structure.num_variables


class Circuit(NamedTuple):
    """Pure functions of one circuit; every one takes one example (batch by vmap).

    Attributes:
      config: what it was built from.
      init: ``(key, data=None, spread=0.5) -> params``.
      log_prob: ``(params, x, observed=None) -> []`` nats.
      class_log_probs: ``(params, x, observed=None) -> [Y]`` nats.
      class_posterior: ``(params, x, observed=None) -> [Y]``.
      sample: ``(key, params, x=None, observed=None, leaf_mode="sample") -> [V, C]``;
        ancestral, conditional on the observed values if they are given.
      sample_differentiable: ``(key, params, relaxation=..., temperature=..., x=None,
        observed=None, leaf_mode="sample") -> [V, C]``, with gradients to ``params``.
      mpe: ``(params, x=None, observed=None) -> [V, C]``: max-product with
        backtracking. It maximizes jointly over variables and latent choices, which is
        the most probable explanation of a deterministic circuit and a lower bound on
        others.
      mean: ``(params, x=None, observed=None) -> [V, C]``: the exact conditional mean
        of every variable given the observed ones, which are returned as given.
        Differentiable in ``params`` and ``x``.
    """

    config: CircuitConfig
    layout: Layout
    init: Callable[..., Any]
    log_prob: Callable[..., Array]
    class_log_probs: Callable[..., Array]
    class_posterior: Callable[..., Array]
    sample: Callable[..., Array]
    sample_differentiable: Callable[..., Array]
    mpe: Callable[..., Array]
    mean: Callable[..., Array]


def build(config: CircuitConfig) -> Circuit:
    """Builds a circuit; equal configurations give the same function objects.

    Args:
        config: a `CircuitConfig`; it has been checked when it was made.

    Returns:
        The circuit. The last 64 are kept.

    Raises:
        ValueError: the structure's region graph is not smooth or not decomposable, or
            the configuration is none.
    """
    instance("config", config, CircuitConfig)
    return _build(config)


@functools.lru_cache(maxsize=64)
def _build(config: CircuitConfig) -> Circuit:
    layout = make_layout(config)
    bound = {query.__name__: _bind(query, layout) for query in QUERIES}
    return Circuit(config=config, layout=layout, **bound)


def make_layout(config: CircuitConfig) -> Layout:
    """The static side of a circuit: its folded region graph, leaves and sizes."""
    graph = fold(config.structure.region_graph())
    return Layout(
        graph=graph,
        blocks=input_layer.make_blocks(graph.input_scopes, config.leaves),
        num_channels=config.num_channels,
        num_leaves=config.num_leaves,
        num_sums=config.num_sums,
        num_classes=config.num_classes,
        sum_layer=config.sum_layer,
    )


def _bind(query: Callable[..., Any], layout: Layout) -> Callable[..., Any]:
    """The query of this layout, under its name and with its documentation."""
    bound = functools.partial(query, layout)
    for name in ("__module__", "__name__", "__qualname__", "__doc__"):
        setattr(bound, name, getattr(query, name))
    return bound
