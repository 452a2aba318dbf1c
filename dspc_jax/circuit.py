"""The public bundle: `build` turns a configuration into pure functions."""

from collections.abc import Callable
import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dspc_jax import inference, parameters
from dspc_jax.batching import foldable
from dspc_jax.folding import fold
from dspc_jax.layers import input_layer, sum_layer
from dspc_jax.leaves import Leaf
from dspc_jax.parameters import Layout
from dspc_jax.region_graph import RegionGraph
from dspc_jax.structures import QuadTree, RandomBinaryTrees
from dspc_jax.types import Array, Key

Structure = RandomBinaryTrees | QuadTree | RegionGraph


@dataclasses.dataclass(frozen=True)
class CircuitConfig:
    """Everything that makes a circuit, hashable.

    Attributes:
      structure: `RandomBinaryTrees`, `QuadTree`, or any `RegionGraph`.
      leaf: one leaf family, or a tuple with one per variable (mixed data).
      num_channels: C; the channels of a variable are independent given a leaf.
      num_leaves: K of input regions.
      num_sums: K of inner regions.
      num_classes: Y, the number of roots.
      sum_layer: ``"tucker"`` (all pairs of child units) or ``"cp"`` (unit by unit).

    Raises:
      ValueError: a number is too small, the sum layer is unknown, or the tuple of
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
            if getattr(self, name) < 1:
                raise ValueError(
                    f"{name}: must be at least 1, got {getattr(self, name)}"
                )
        if self.sum_layer not in sum_layer.KINDS:
            raise ValueError(
                f"sum_layer: must be one of {sum_layer.KINDS}, got {self.sum_layer!r}"
            )
        num_variables = self.structure.num_variables
        if isinstance(self.leaf, tuple) and len(self.leaf) != num_variables:
            raise ValueError(
                f"leaf: a tuple must have one family per variable ({num_variables}), "
                f"got {len(self.leaf)}"
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
    """

    config: CircuitConfig
    layout: Layout
    init: Callable[..., Any]
    log_prob: Callable[..., Array]
    class_log_probs: Callable[..., Array]
    class_posterior: Callable[..., Array]


@functools.lru_cache(maxsize=64)
def build(config: CircuitConfig) -> Circuit:
    """Builds a circuit; equal configurations give the same function objects."""
    graph = fold(config.structure.region_graph())
    layout = Layout(
        graph=graph,
        blocks=input_layer.make_blocks(graph.input_scopes, config.leaves),
        num_channels=config.num_channels,
        num_leaves=config.num_leaves,
        num_sums=config.num_sums,
        num_classes=config.num_classes,
        sum_layer=config.sum_layer,
    )

    def init(key: Key, data: Array | None = None, spread: float = 0.5):
        if data is not None:
            data = jnp.asarray(data, jnp.float32)
            _check_shape(layout, "data", data.shape[1:])
        return parameters.init(layout, key, data, spread)

    def query(function):
        """A query of one example from a function of normalised weights and a batch."""

        @foldable
        def complete(params, x):
            return function(layout, parameters.normalize(layout, params), x, None)

        @foldable
        def partial(params, x, observed):
            return function(layout, parameters.normalize(layout, params), x, observed)

        def single(params, x, observed=None):
            x = jnp.asarray(x, jnp.float32)
            _check_shape(layout, "x", x.shape)
            if observed is None:
                return complete(params, x)
            observed = jnp.asarray(observed)
            _check_observed(layout, observed)
            return partial(params, x, observed)

        return single

    return Circuit(
        config=config,
        layout=layout,
        init=init,
        log_prob=query(inference.log_prob),
        class_log_probs=query(inference.class_log_probs),
        class_posterior=query(inference.class_posterior),
    )


def _check_shape(layout: Layout, name: str, shape: tuple[int, ...]) -> None:
    wanted = (layout.graph.num_variables, layout.num_channels)
    if tuple(shape) != wanted:
        raise ValueError(
            f"{name}: must have shape [V, C] = {wanted} (one example; batch with "
            f"jax.vmap), got {tuple(shape)}"
        )


def _check_observed(layout: Layout, observed: Array) -> None:
    wanted = (layout.graph.num_variables,)
    if observed.shape != wanted or observed.dtype != jnp.bool_:
        raise ValueError(
            f"observed: must be bool of shape [V] = {wanted}, got "
            f"{observed.dtype} of shape {observed.shape}"
        )
