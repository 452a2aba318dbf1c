"""The public bundle: `build` turns a configuration into pure functions."""

from collections.abc import Callable
import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dspc_jax import parameters
from dspc_jax.inference import upward as inference
from dspc_jax.layers import input_layer, sum_layer
from dspc_jax.leaves import DirectLeaf, ExponentialLeaf, Leaf
from dspc_jax.ops.batching import foldable
from dspc_jax.parameters import Layout
from dspc_jax.sampling import dense as dense_sampling
from dspc_jax.sampling import downward, implicit, moments, noise
from dspc_jax.sampling import path as path_sampling
from dspc_jax.sampling import relaxation as rx
from dspc_jax.structure.families import QuadTree, RandomBinaryTrees
from dspc_jax.structure.folding import fold
from dspc_jax.structure.region_graph import RegionGraph
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
        if not hasattr(self.structure, "region_graph"):
            raise ValueError(
                "structure: must be RandomBinaryTrees, QuadTree or a RegionGraph, "
                f"got {self.structure!r}"
            )
        leaves_given = self.leaf if isinstance(self.leaf, tuple) else (self.leaf,)
        for leaf in leaves_given:
            if not isinstance(leaf, ExponentialLeaf | DirectLeaf):
                raise ValueError(
                    f"leaf: must be a leaf family such as Normal(), got {leaf!r}"
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
      sample: ``(key, params, x=None, observed=None, leaf_mode="sample") -> [V, C]``;
        ancestral, conditional on the observed values if they are given.
      sample_differentiable: ``(key, params, relaxation=..., temperature=..., x=None,
        observed=None, leaf_mode="sample") -> [V, C]``, with gradients to ``params``.
      mpe: ``(params, x=None, observed=None) -> [V, C]``: max-product with
        backtracking. It maximises jointly over variables and latent choices, which is
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

    def drawn(function, finish=None):
        """A sampler of one example from a function of a batch of keys and evidence.

        ``finish`` then sees the samples, with what was observed.
        """

        @foldable
        def free(params, key):
            weights = parameters.normalize(layout, params.circuit)
            out = function(params, weights, None, noise.draw(layout, key))
            if finish is None:
                return out
            return finish(layout, params.circuit, weights, out, None)

        @foldable
        def given(params, key, x, observed):
            weights = parameters.normalize(layout, params.circuit)
            evidence = inference.upward(layout, weights, x, observed)
            out = function(params, weights, evidence, noise.draw(layout, key))
            out = downward.keep_observed(out, x, observed)
            if finish is None:
                return out
            return finish(layout, params.circuit, weights, out, observed)

        def single(key, params, x, observed):
            _check_key(key)
            if x is None and observed is None:
                return free(params, key)
            return given(params, key, *_evidence(layout, x, observed))

        return single

    @functools.cache
    def ancestral(leaf_mode, finish=None):
        def function(params, weights, evidence, noise_):
            if graph.alternatives is not None:
                return path_sampling.sample(
                    layout, params.circuit, weights, evidence, noise_, leaf_mode
                )
            chosen = downward.select(layout, weights, evidence, noise_, "hard", 1.0)
            return downward.blend(
                layout, params.circuit, chosen, noise_.leaves, leaf_mode
            )

        return drawn(function, finish)

    @functools.cache
    def relaxed(relaxation, leaf_mode):
        def function(params, weights, evidence, noise_):
            if relaxation == "dense":
                return dense_sampling.sample(
                    layout,
                    params.circuit,
                    weights,
                    evidence,
                    noise_,
                    params.temperature,
                    leaf_mode,
                )
            chosen = downward.select(
                layout, weights, evidence, noise_, relaxation, params.temperature
            )
            return downward.blend(
                layout, params.circuit, chosen, noise_.leaves, leaf_mode
            )

        return drawn(function)

    def sample(key, params, x=None, observed=None, leaf_mode="sample"):
        _check_leaf_mode(leaf_mode)
        return ancestral(leaf_mode)(key, _Sampled(params, jnp.float32(1)), x, observed)

    def sample_differentiable(
        key,
        params,
        *,
        relaxation="gumbel_softmax",
        temperature=1.0,
        x=None,
        observed=None,
        leaf_mode="sample",
    ):
        _check_leaf_mode(leaf_mode)
        rx.check(relaxation, allowed=DIFFERENTIABLE)
        if jnp.shape(temperature) != ():
            raise ValueError(
                "temperature: must be a scalar (batch with jax.vmap), "
                f"got shape {jnp.shape(temperature)}"
            )
        if not isinstance(temperature, jax.Array) and not temperature > 0:
            raise ValueError(f"temperature: must be positive, got {temperature}")
        sampled = _Sampled(params, jnp.asarray(temperature, jnp.float32))
        if relaxation == "implicit":
            implicit.check(layout)
            if leaf_mode != "sample":
                raise ValueError(
                    "leaf_mode: must be 'sample' with relaxation='implicit', "
                    f"got {leaf_mode!r}"
                )
            draw = ancestral(leaf_mode, implicit.reparametrize)
            return draw(key, sampled, x, observed)
        return relaxed(relaxation, leaf_mode)(key, sampled, x, observed)

    @foldable
    def explain(params, x, observed):
        weights = parameters.normalize(layout, params)
        modes = tuple(
            block.leaf.mode_log_prob(leaf)
            for block, leaf in zip(layout.blocks, params.leaves, strict=True)
        )
        evidence = inference.upward(layout, weights, x, observed, modes)
        silence = noise.none(layout, x.shape[0])
        if graph.alternatives is not None:
            out = path_sampling.mpe(layout, params, weights, evidence, silence)
        else:
            chosen = downward.select(layout, weights, evidence, silence, "hard", 1.0)
            out = downward.modes(layout, params, chosen)
        return downward.keep_observed(out, x, observed)

    def mpe(params, x=None, observed=None):
        return explain(params, *_evidence_or_none(layout, x, observed))

    @foldable
    def expect(params, x, observed):
        weights = parameters.normalize(layout, params)
        evidence = inference.upward(layout, weights, x, observed)
        silence = noise.none(layout, x.shape[0])
        out = moments.means(layout, params, weights, evidence, silence)
        return downward.keep_observed(out, x, observed)

    def mean(params, x=None, observed=None):
        return expect(params, *_evidence_or_none(layout, x, observed))

    return Circuit(
        config=config,
        layout=layout,
        init=init,
        log_prob=query(inference.log_prob),
        class_log_probs=query(inference.class_log_probs),
        class_posterior=query(inference.class_posterior),
        sample=sample,
        sample_differentiable=sample_differentiable,
        mpe=mpe,
        mean=mean,
    )


DIFFERENTIABLE = (*rx.RELAXATIONS[1:], "dense", "implicit")
"""The relaxations of `Circuit.sample_differentiable`.

Those of `dspc_jax.sampling.relaxation`; ``"dense"``, see `dspc_jax.sampling.dense`;
``"implicit"``, which is no relaxation: exact for circuits of few continuous variables,
see `dspc_jax.sampling.implicit`.
"""


class _Sampled(NamedTuple):
    """What a sampler differentiates with respect to."""

    circuit: parameters.CircuitParams
    temperature: Array


def _check_leaf_mode(leaf_mode: str) -> None:
    if leaf_mode not in downward.LEAF_MODES:
        raise ValueError(
            f"leaf_mode: must be one of {downward.LEAF_MODES}, got {leaf_mode!r}"
        )


def _check_key(key: Key) -> None:
    typed = isinstance(key, jax.Array) and jnp.issubdtype(
        key.dtype, jax.dtypes.prng_key
    )
    if not typed or key.shape != ():
        raise ValueError(
            "key: must be one typed key, as from jax.random.key (batch with jax.vmap), "
            f"got {key!r}"
        )


def _evidence_or_none(layout: Layout, x: Any, observed: Any) -> tuple[Array, Array]:
    """The evidence; where neither is given, an example without observed values."""
    if x is None and observed is None:
        x = jnp.zeros((layout.graph.num_variables, layout.num_channels))
        observed = jnp.zeros(layout.graph.num_variables, bool)
    return _evidence(layout, x, observed)


def _evidence(layout: Layout, x: Any, observed: Any) -> tuple[Array, Array]:
    if x is None or observed is None:
        missing = "x" if x is None else "observed"
        raise ValueError(f"{missing}: must be given with the other of x and observed")
    x, observed = jnp.asarray(x, jnp.float32), jnp.asarray(observed)
    _check_shape(layout, "x", x.shape)
    _check_observed(layout, observed)
    return x, observed


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
