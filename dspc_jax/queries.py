"""The queries of a circuit: of one example, checked, then folded into a batch.

Each is a pure function of a layout and of what a user gives; `dspc_jax.circuit.build`
binds the layout. `dspc_jax.protocols` documents them. Inside, every computation is one
of a batch.
"""

from collections.abc import Callable
import functools
from typing import Any

import jax
from jax.core import Tracer
import jax.numpy as jnp

from dspc_jax import examples, parameters
from dspc_jax.arguments import real_number, shown
from dspc_jax.expectations import covariance, event_log_prob, expectation
from dspc_jax.inference import likelihood, moments
from dspc_jax.inference.upward import upward
from dspc_jax.ops.batching import foldable
from dspc_jax.ops.float_types import computed_in, float_type, widened
from dspc_jax.ops.values import refuse_huge
from dspc_jax.parameters import CircuitParams, Layout
from dspc_jax.sampling import dense, downward, implicit, noise, path
from dspc_jax.sampling import relaxation as rx
from dspc_jax.starts import distillation
from dspc_jax.types import Array, Key

EXPLANATIONS = ("max_product", "sum_product", "best")
"""The methods of `mpe`."""
STARTS = ("examples", "distill")
"""The methods of `init`."""
DIFFERENTIABLE = (*rx.RELAXATIONS[1:], "dense", "implicit")
"""The relaxations of `sample_differentiable`.

Those of `dspc_jax.sampling.relaxation`; ``"dense"``, see `dspc_jax.sampling.dense`;
``"implicit"``, which is no relaxation: exact for circuits of few continuous variables,
see `dspc_jax.sampling.implicit`.
"""


def init(
    layout: Layout,
    key: Key,
    data: Any = None,
    observed: Any = None,
    *,
    method: str = "examples",
    labels: Any = None,
    spread: float = 0.5,
    dtype: Any = None,
) -> CircuitParams:
    """As `dspc_jax.protocols.Init`."""
    dtype = float_type(dtype)
    if method not in STARTS:
        raise ValueError(f"method must be one of {STARTS}, got {shown(method)}")
    if data is not None:
        data, observed = examples.rows(
            layout, "data", data, observed, computed_in(dtype)
        )
        refuse_huge("data", data, observed)
        if not len(data):
            raise ValueError("data must hold at least one example, got none")
    elif observed is not None:
        raise ValueError("data must be given with observed, got None")
    if method == "examples":
        if labels is not None:
            raise ValueError(
                f"labels must be None with method='examples', got {shown(labels)}"
            )
        return _start(layout, dtype, key, data, spread, observed)
    if data is None:
        raise ValueError("data must be given with method='distill', got None")
    if isinstance(data, Tracer):
        raise ValueError(
            "data must not be traced with method='distill' (call init outside of jit), "
            f"got {shown(data)}"
        )
    if labels is not None:
        labels = examples.labels(layout, labels, len(data))
    params = distillation.distill(layout, key, data, observed, labels=labels)
    return jax.tree.map(lambda leaf: leaf.astype(dtype), params)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _start(layout, dtype, *operands):
    params = parameters.init(layout, *operands)
    return jax.tree.map(lambda leaf: leaf.astype(dtype), params)


def log_prob(
    layout: Layout, params: CircuitParams, x: Any, observed: Any = None
) -> Array:
    """As `dspc_jax.protocols.LogProb`."""
    params, dtype = widened(params)
    x, observed = examples.example(layout, x, observed, dtype)
    return _evaluate(
        params, x, observed, layout=layout, function=likelihood.log_prob, shape=()
    )


def class_log_probs(
    layout: Layout, params: CircuitParams, x: Any, observed: Any = None
) -> Array:
    """As `dspc_jax.protocols.ClassLogProbs`."""
    return _by_class(likelihood.class_log_probs, layout, params, x, observed)


def joint_log_probs(
    layout: Layout, params: CircuitParams, x: Any, observed: Any = None
) -> Array:
    """As `dspc_jax.protocols.JointLogProbs`."""
    return _by_class(likelihood.joint_log_probs, layout, params, x, observed)


def class_posterior(
    layout: Layout, params: CircuitParams, x: Any, observed: Any = None
) -> Array:
    """As `dspc_jax.protocols.ClassPosterior`."""
    return _by_class(likelihood.class_posterior, layout, params, x, observed)


def _by_class(function, layout, params, x, observed):
    """One number for each class."""
    params, dtype = widened(params)
    x, observed = examples.example(layout, x, observed, dtype)
    shape = (layout.num_classes,)
    return _evaluate(params, x, observed, layout=layout, function=function, shape=shape)


def sample(
    layout: Layout,
    key: Key,
    params: CircuitParams,
    x: Any = None,
    observed: Any = None,
    *,
    leaf_mode: str = "sample",
    sharpness: Array | float = 1.0,
) -> Array:
    """As `dspc_jax.protocols.Sample`."""
    if not (isinstance(sharpness, float | int) and sharpness == 1):
        params, _ = widened(params)
        params = parameters.sharpened(layout, params, sharpness)
    return _sample(layout, key, params, "hard", None, x, observed, leaf_mode)


def sample_differentiable(
    layout: Layout,
    key: Key,
    params: CircuitParams,
    x: Any = None,
    observed: Any = None,
    *,
    relaxation: str = "gumbel_softmax",
    temperature: Array | float = 1.0,
    leaf_mode: str = "sample",
) -> Array:
    """As `dspc_jax.protocols.SampleDifferentiable`."""
    rx.check(relaxation, allowed=DIFFERENTIABLE)
    if shape := getattr(temperature, "shape", ()):
        raise ValueError(
            f"temperature must be a scalar (batch with jax.vmap), got shape {shape}"
        )
    if not isinstance(temperature, Tracer):
        number = real_number("temperature", temperature)
        if not number > 0:
            raise ValueError(f"temperature must be positive, got {number}")
    if relaxation == "implicit":
        implicit.check(layout)
        if leaf_mode == "mean":
            raise ValueError(
                "leaf_mode must be 'sample' with relaxation='implicit', got 'mean'"
            )
    return _sample(layout, key, params, relaxation, temperature, x, observed, leaf_mode)


def mpe(
    layout: Layout,
    params: CircuitParams,
    x: Any = None,
    observed: Any = None,
    *,
    method: str = "max_product",
) -> Array:
    """As `dspc_jax.protocols.Mpe`."""
    if method not in EXPLANATIONS:
        raise ValueError(f"method must be one of {EXPLANATIONS}, got {shown(method)}")
    params, dtype = widened(params)
    x, observed = examples.evidence_or_nothing(layout, x, observed, dtype)
    return _explain(params, x, observed, layout=layout, method=method, shape=x.shape)


def mean(
    layout: Layout,
    params: CircuitParams,
    x: Any = None,
    observed: Any = None,
) -> Array:
    """As `dspc_jax.protocols.Mean`."""
    params, dtype = widened(params)
    x, observed = examples.evidence_or_nothing(layout, x, observed, dtype)
    return _expect(params, x, observed, layout=layout, shape=x.shape)


QUERIES: tuple[Callable[..., Any], ...] = (
    *(init, log_prob, class_log_probs, joint_log_probs, class_posterior),
    *(sample, sample_differentiable, mpe, mean),
    *(covariance, expectation, event_log_prob),
)
"""All public queries."""


@foldable
def _evaluate(params, x, observed, *, layout, function):
    _, weights = parameters.of_regions(layout, params)
    return function(layout, weights, x, observed)


@functools.partial(foldable, repeats=True)
def _draw(params_and_temperature, keys, x, observed, *, layout, relaxation, leaf_mode):
    params, temperature = params_and_temperature
    params, weights = parameters.of_regions(layout, params)
    evidence = None
    if observed is not None:
        evidence = upward(layout, weights, x, observed)
        # Where all examples share the evidence, it has been computed once.
        size = keys.shape[0]
        evidence = jax.tree.map(
            lambda a: jnp.broadcast_to(a, (*a.shape[:-1], size)), evidence
        )
        x = jnp.broadcast_to(x, (size, *x.shape[1:]))
        observed = jnp.broadcast_to(observed, (size, *observed.shape[1:]))
    numbers = noise.draw(layout, keys, params.classes.dtype)
    exact = relaxation in ("hard", "implicit")
    if exact:
        values = path.sample(layout, params, weights, evidence, numbers, leaf_mode)
    elif relaxation == "dense":
        values = dense.sample(
            layout, params, weights, evidence, numbers, temperature, leaf_mode
        )
    else:
        chosen = downward.select(
            layout, weights, evidence, numbers, relaxation, temperature
        )
        one_hot = relaxation != "gumbel_softmax"
        values = downward.blend(
            layout, params, chosen, numbers.leaves, leaf_mode, one_hot=one_hot
        )
    if observed is not None:
        values = downward.keep_observed(values, x, observed)
    if relaxation == "implicit":
        values = implicit.reparametrize(layout, params, weights, values, observed)
    return values


@foldable
def _explain(params, x, observed, *, layout, method):
    params, weights = parameters.of_regions(layout, params)
    silence = noise.none(layout, x.shape[0], x.dtype)

    def completion(modes):
        evidence = upward(layout, weights, x, observed, modes)
        values = path.mpe(layout, params, weights, evidence, silence)
        return downward.keep_observed(values, x, observed)

    if method == "sum_product":
        return completion(None)
    modes = tuple(
        block.leaf.mode_log_prob(leaf)
        for block, leaf in zip(layout.blocks, params.leaves, strict=True)
    )
    best = completion(modes)
    if method == "max_product":
        return best
    other = completion(None)
    log_p, other_log_p = (
        likelihood.log_prob(layout, weights, values, None) for values in (best, other)
    )
    return jnp.where((other_log_p > log_p)[:, None, None], other, best)


@foldable
def _expect(params, x, observed, *, layout):
    params, weights = parameters.of_regions(layout, params)
    values = moments.means(layout, params, weights, x, observed)
    return downward.keep_observed(values, x, observed)


def _sample(layout, key, params, relaxation, temperature, x, observed, leaf_mode):
    if leaf_mode not in downward.LEAF_MODES:
        raise ValueError(
            f"leaf_mode must be one of {downward.LEAF_MODES}, got {leaf_mode!r}"
        )
    examples.check_key(key)
    params, dtype = widened(params)
    if temperature is not None:
        temperature = jnp.asarray(temperature, dtype)
    if x is not None or observed is not None:
        x, observed = examples.evidence(layout, x, observed, dtype)
    return _draw(
        (params, temperature),
        key,
        x,
        observed,
        layout=layout,
        relaxation=relaxation,
        leaf_mode=leaf_mode,
        shape=examples.shape(layout),
    )
