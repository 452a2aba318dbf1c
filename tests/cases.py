"""Small circuits of every kind, each compiled once for the whole test session."""

from collections.abc import Callable, Container, Iterable
import functools
from typing import Any, NamedTuple

import jax
from jax.core import Tracer
import jax.numpy as jnp
import numpy as np
import pytest

import dspc_jax as pc
from dspc_jax.layers import mixing_layer
from dspc_jax.structure.region_graph import Partition, RegionGraph
from tests import oracles

# Two partitions at the root that share the region of variable 1.
SHARED = RegionGraph(
    3,
    ((0, 1, 2), (0,), (1, 2), (0, 1), (2,), (1,)),
    (
        Partition(0, (1, 2)),
        Partition(0, (3, 4)),
        Partition(2, (5, 4)),
        Partition(3, (1, 5)),
    ),
)

# Mixtures inside, of two and of one partition in one level (padding), a region below
# two parents, inputs beside inner regions, and a sum over a single child.
NESTED = RegionGraph(
    4,
    (
        *((0, 1, 2, 3), (0, 1, 2), (1, 2, 3), (0, 1), (1, 2), (2, 3)),
        *((0,), (1,), (2,), (3,), (1, 2)),
    ),
    (
        *(Partition(0, (1, 9)), Partition(0, (6, 2)), Partition(0, (3, 5))),
        *(Partition(1, (3, 8)), Partition(1, (6, 4)), Partition(2, (4, 9))),
        *(Partition(3, (6, 7)), Partition(4, (7, 8)), Partition(4, (10,))),
        Partition(5, (8, 9)),
    ),
)


def _config(structure, leaf, num_leaves, num_sums, num_classes, sum_layer, channels=1):
    return pc.CircuitConfig(
        structure=structure,
        leaf=leaf,
        num_channels=channels,
        num_leaves=num_leaves,
        num_sums=num_sums,
        num_classes=num_classes,
        sum_layer=sum_layer,
    )


_trees = pc.RandomBinaryTrees
# Of each family two, with other configurations: they share arrays.
_mixed = (
    *(pc.Categorical(2), pc.Binomial(3), pc.DiscretizedLogistic(3, 0.3)),
    *(pc.Categorical(4), pc.Binomial(1), pc.DiscretizedLogistic(2)),
)

DISCRETE = {
    "trees-tucker": _config(_trees(4, 2, 3), pc.Bernoulli(), 3, 2, 1, "tucker"),
    "odd-trees-cp": _config(_trees(5, 2, 2), pc.Bernoulli(), 2, 3, 3, "cp_t"),
    "depth-0": _config(_trees(3, 0, 3), pc.Categorical(3), 3, 2, 2, "cp_t"),
    "channels": _config(_trees(3, 1, 1), pc.Binomial(2), 2, 2, 1, "tucker", 2),
    "quad-3x3": _config(pc.QuadTree(3, 3), pc.Bernoulli(), 3, 2, 2, "tucker"),
    "quad-2x3": _config(pc.QuadTree(2, 3), pc.Bernoulli(), 2, 3, 1, "cp_t"),
    "shared": _config(SHARED, pc.Categorical(3), 3, 2, 2, "cp_t"),
    "nested": _config(NESTED, _mixed[:4], 2, 3, 2, "tucker"),
    "mixed": _config(_trees(6, 1, 2), _mixed, 3, 2, 2, "cp_t"),
    "one-variable": _config(
        _trees(1, 0, 1), pc.DiscretizedLogistic(5), 2, 2, 1, "cp_t"
    ),
}

NORMAL = {
    "normal-trees": _config(_trees(2, 1, 2), pc.UnitNormal(), 2, 2, 1, "tucker"),
    "normal-channels": _config(_trees(1, 0, 2), pc.UnitNormal(), 2, 2, 2, "cp_t", 2),
}

# By name only (`pytest -m slow`): another circuit has the parts, or random ones have
# (tests/structure/test_random_graphs.py).
LONG = (
    *("odd-trees-cp", "depth-0", "channels", "quad-3x3", "quad-2x3", "shared"),
    *("mixed", "nested"),
)


def parameters(names: Iterable[str], long: Container[str] = LONG) -> list[Any]:
    """Names of circuits for `pytest.mark.parametrize`, the long ones marked slow."""
    return [
        pytest.param(name, marks=pytest.mark.slow) if name in long else name
        for name in names
    ]


def normal(seed: int, *shape: int) -> np.ndarray:
    """Normal numbers, drawn by NumPy (no compilation)."""
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def fresh_keys(seed: int, count: int) -> jax.Array:
    """Keys ``[count]``; made anew at each call, for no key may be used twice."""
    return _split(jax.random.key(seed), count)


_split = jax.jit(jax.random.split, static_argnums=1)


def random_params(circuit: pc.Circuit, seed: int) -> Any:
    """Normal numbers for all parameters, drawn by NumPy (no compilation)."""
    shapes = jax.eval_shape(circuit.init, jax.random.key(0))
    return randomize(jax.tree.map(lambda leaf: np.zeros(leaf.shape), shapes), seed)


def with_zeros(circuit: pc.Circuit, params: Any, seed: int, share: float) -> Any:
    """A share of all logits at -inf, in sums, mixtures, classes and tables.

    The greatest logit of each sum stays.
    """
    rng = np.random.default_rng(seed)

    def forbid(logits, axes, exists: Any = True):
        logits = np.array(logits)
        least = np.where(exists, logits, -np.inf).max(axis=axes, keepdims=True)
        logits[(rng.random(logits.shape) < share) & (logits < least)] = -np.inf
        return jnp.asarray(logits)

    tables = [
        jax.tree.map(lambda a: forbid(a, -1) if a.ndim == 5 else a, leaf)
        for leaf in params.leaves
    ]
    mixtures = [
        logits
        if level.mixture is None
        else forbid(logits, -1, mixing_layer.exists(level.mixture))
        for level, logits in zip(
            circuit.layout.graph.levels, params.mixtures, strict=True
        )
    ]
    return params._replace(
        leaves=tuple(tables),
        sums=jax.tree.map(lambda a: forbid(a, tuple(range(2, a.ndim))), params.sums),
        mixtures=tuple(mixtures),
        classes=forbid(params.classes, 0),
    )


def randomize(params: Any, seed: int, scale: float = 1.0) -> Any:
    """Adds Normal noise to every parameter."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: jnp.asarray(
            np.asarray(leaf) + scale * rng.normal(size=leaf.shape), jnp.float32
        ),
        params,
    )


class Case(NamedTuple):
    """A circuit with parameters, its law, and its queries compiled for batches.

    Attributes:
      log_prob: ``(params, x) -> log_prob``.
      queries: ``(params, x, observed) -> (log_prob, class_log_probs,
        class_posterior)``.
      sample: ``(keys, params) -> x``.
      conditional: ``(keys, params, x, observed) -> x``.
      mpe: ``(params, x, observed) -> x``.
      soft: ``(keys, params, temperature, relaxations, x=None, observed=None) ->
          {relaxation: x}``, all of them with the same keys.
    """

    config: pc.CircuitConfig
    circuit: pc.Circuit
    params: Any
    log_prob: Callable[..., jax.Array]
    queries: Callable[..., Any]
    sample: Callable[..., jax.Array]
    conditional: Callable[..., jax.Array]
    mpe: Callable[..., jax.Array]
    soft: Callable[..., dict[str, jax.Array]]

    @property
    def table(self) -> oracles.Table:
        """The law by enumeration."""
        return _table(self.config)

    @property
    def values(self) -> jax.Array:
        """All values, float32 ``[S, V, C]``."""
        return jnp.asarray(self.table.values, jnp.float32)


SOFT = ("gumbel_softmax", "dense")
HARD = ("straight_through", "simple")
RELAXATIONS = (*SOFT, *HARD)


def jit(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """``jax.jit`` as in the fast run (`tests.conftest`), in slow tests too.

    Results are NumPy's: what a test computes from them is not compiled.
    """
    less = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}
    return on_host(jax.jit(function, compiler_options=less, **options))


def on_host(compiled: Callable[..., Any]) -> Callable[..., Any]:
    """The same function with arrays of NumPy as results, but for keys."""

    @functools.wraps(compiled)
    def call(*args: Any, **options: Any) -> Any:
        return jax.tree.map(_host, compiled(*args, **options))

    return call


def _host(leaf: jax.Array) -> Any:
    is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return leaf if is_key or isinstance(leaf, Tracer) else np.asarray(leaf)


AS_USERS = {"xla_backend_optimization_level": 3, "xla_cpu_use_fusion_emitters": True}


def user_jit(function: Callable[..., Any], **options: Any) -> Any:
    """``jax.jit`` as users compile, in the fast run too."""
    return jax.jit(function, compiler_options=AS_USERS, **options)


@functools.cache
def case(name: str) -> Case:
    """The case of this name."""
    config = (DISCRETE | NORMAL)[name]
    return compiled(config)


@functools.cache
def compiled(config: pc.CircuitConfig) -> Case:
    """Everything that tests ask of one circuit."""
    circuit = pc.build(config)

    def queries(params, x, observed):
        return (
            circuit.log_prob(params, x, observed),
            circuit.class_log_probs(params, x, observed),
            circuit.class_posterior(params, x, observed),
        )

    def soft(keys, params, temperature, relaxations, x=None, observed=None):
        def each(key, x, observed):
            return {
                relaxation: circuit.sample_differentiable(
                    jax.random.clone(key),
                    params,
                    relaxation=relaxation,
                    temperature=temperature,
                    x=x,
                    observed=observed,
                )
                for relaxation in relaxations
            }

        return jax.vmap(each)(keys, x, observed)

    def conditional(key, params, x, observed):
        return circuit.sample(key, params, x=x, observed=observed)

    def compile_(function, **options):
        as_users = config == NORMAL["normal-trees"]
        return on_host((user_jit if as_users else jit)(function, **options))

    return Case(
        config=config,
        circuit=circuit,
        params=random_params(circuit, seed=1),
        log_prob=compile_(jax.vmap(circuit.log_prob, (None, 0))),
        queries=compile_(jax.vmap(queries, (None, 0, 0))),
        sample=compile_(jax.vmap(circuit.sample, (0, None))),
        conditional=compile_(jax.vmap(conditional, (0, None, 0, 0))),
        mpe=compile_(jax.vmap(circuit.mpe, (None, 0, 0))),
        soft=jit(soft, static_argnames="relaxations"),
    )


@functools.cache
def _table(config: pc.CircuitConfig) -> oracles.Table:
    case = compiled(config)
    return oracles.tabulate(case.circuit, case.params)


def masks(num_variables: int) -> np.ndarray:
    """All masks, bool ``[2**V, V]``, from nothing observed to everything."""
    bits = np.arange(2**num_variables)[:, None] >> np.arange(num_variables)
    return bits % 2 == 1


def every_query(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """All masks, each with all values of what it shows; 600 of them at most."""
    table, pairs = case.table, []
    for observed in masks(case.config.structure.num_variables):
        rest = np.where(observed[:, None], table.values, 0)
        _, first = np.unique(rest, axis=0, return_index=True)
        pairs += [(table.values[i], observed) for i in first]
    some = np.random.default_rng(0).permutation(len(pairs))[:600]
    x, observed = zip(*(pairs[i] for i in np.sort(some)), strict=True)
    return np.array(x), np.array(observed)
