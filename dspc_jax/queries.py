"""The queries of a circuit: of one example, checked, then folded into a batch.

Each is a pure function of a layout and of what a user gives; `dspc_jax.circuit.build`
binds the layout. Inside, every computation is one of a batch.
"""

from collections.abc import Callable
from typing import Any

from jax.core import Tracer
import jax.numpy as jnp

from dspc_jax import examples, parameters
from dspc_jax.arguments import real_number
from dspc_jax.inference import likelihood, moments
from dspc_jax.inference.upward import upward
from dspc_jax.ops.batching import foldable
from dspc_jax.parameters import CircuitParams, Layout
from dspc_jax.sampling import dense, downward, implicit, noise, path
from dspc_jax.sampling import relaxation as rx
from dspc_jax.types import Array, Key

DIFFERENTIABLE = (*rx.RELAXATIONS[1:], "dense", "implicit")
"""The relaxations of `sample_differentiable`.

Those of `dspc_jax.sampling.relaxation`; ``"dense"``, see `dspc_jax.sampling.dense`;
``"implicit"``, which is no relaxation: exact for circuits of few continuous variables,
see `dspc_jax.sampling.implicit`.
"""


def init(
    layout: Layout, key: Key, data: Array | None = None, spread: float = 0.5
) -> CircuitParams:
    """Random parameters.

    Args:
        key: a typed key.
        data: ``[N, V, C]``, ``N >= 1``; the leaves start at examples of it.
        spread: of the leaves around these, in deviations of the data.

    Returns:
        The parameters, a pytree of float32 arrays.

    Raises:
        ValueError: the data have another shape, or hold NaN; the message names row and
            variable. (Data that are traced are not looked at.)
    """
    if data is not None:
        data, _ = examples.rows(layout, "data", data)
        if not len(data):
            raise ValueError("data must hold at least one example, got none")
    return parameters.init(layout, key, data, spread)


def log_prob(
    layout: Layout, params: CircuitParams, x: Array, observed: Array | None = None
) -> Array:
    """The log-likelihood of one example, or the marginal one of its observed values.

    Args:
        params: the circuit's.
        x: values ``[V, C]``; where they are not observed, any (NaN as well).
        observed: bool ``[V]``; None: everything is observed.

    Returns:
        ``log p(x)`` in nats, a scalar; classes are mixed. ``-inf`` with zero gradients
        where the evidence is impossible; 0 where nothing is observed. NaN, with
        gradients NaN, where an observed value is NaN.

    Raises:
        ValueError: a shape or type is another.
    """
    x, observed = examples.example(layout, x, observed)
    return _evaluate(
        params, x, observed, layout=layout, function=likelihood.log_prob, shape=()
    )


def class_log_probs(
    layout: Layout, params: CircuitParams, x: Array, observed: Array | None = None
) -> Array:
    """The log-likelihood of one example given each class.

    Args:
        params: the circuit's.
        x: values ``[V, C]``; where they are not observed, any (NaN as well).
        observed: bool ``[V]``; None: everything is observed.

    Returns:
        ``log p(x | y)`` in nats, ``[Y]``; NaN where an observed value is NaN.

    Raises:
        ValueError: a shape or type is another.
    """
    x, observed = examples.example(layout, x, observed)
    return _evaluate(
        params,
        x,
        observed,
        layout=layout,
        function=likelihood.class_log_probs,
        shape=(layout.num_classes,),
    )


def class_posterior(
    layout: Layout, params: CircuitParams, x: Array, observed: Array | None = None
) -> Array:
    """The probability of each class given one example.

    Args:
        params: the circuit's.
        x: values ``[V, C]``; where they are not observed, any (NaN as well).
        observed: bool ``[V]``; None: everything is observed.

    Returns:
        ``p(y | x)``, ``[Y]``; the prior where the evidence is impossible, NaN where an
        observed value is NaN.

    Raises:
        ValueError: a shape or type is another.
    """
    x, observed = examples.example(layout, x, observed)
    return _evaluate(
        params,
        x,
        observed,
        layout=layout,
        function=likelihood.class_posterior,
        shape=(layout.num_classes,),
    )


def sample(
    layout: Layout,
    key: Key,
    params: CircuitParams,
    x: Array | None = None,
    observed: Array | None = None,
    leaf_mode: str = "sample",
) -> Array:
    """An exact sample: ancestral, given the observed values if there are any.

    Args:
        key: a typed key.
        params: the circuit's.
        x: values ``[V, C]``, of which the observed ones are returned as given.
        observed: bool ``[V]``, given together with ``x``.
        leaf_mode: ``"sample"``, or ``"mean"`` for the means of the chosen leaves.

    Returns:
        ``[V, C]``; NaN where an observed value is NaN.

    Raises:
        ValueError: a shape, type or mode is another.
    """
    return _sample(layout, key, params, "hard", None, x, observed, leaf_mode)


def sample_differentiable(
    layout: Layout,
    key: Key,
    params: CircuitParams,
    *,
    relaxation: str = "gumbel_softmax",
    temperature: Array | float = 1.0,
    x: Array | None = None,
    observed: Array | None = None,
    leaf_mode: str = "sample",
) -> Array:
    """A sample with gradients to the parameters.

    Args:
        key: a typed key; the same key gives the draw of `sample` as the temperature
            falls to 0.
        params: the circuit's.
        relaxation: one of `DIFFERENTIABLE`.
        temperature: a positive scalar, may be traced; ``"simple"`` and ``"implicit"``
            do not depend on it.
        x: values ``[V, C]``, of which the observed ones are returned as given.
        observed: bool ``[V]``, given together with ``x``.
        leaf_mode: ``"sample"``, or ``"mean"`` for the means of the chosen leaves.

    Returns:
        ``[V, C]``; NaN where an observed value is NaN.

    Raises:
        ValueError: a shape, type or name is another, the temperature is not a positive
            scalar, or the circuit has no implicit gradient.

    References:
        Lang et al., "Elevating Perceptual Sample Quality in PCs through Differentiable
        Sampling", 2022, section 3.2.
    """
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
    temperature = jnp.asarray(temperature, jnp.float32)
    return _sample(layout, key, params, relaxation, temperature, x, observed, leaf_mode)


def mpe(
    layout: Layout,
    params: CircuitParams,
    x: Array | None = None,
    observed: Array | None = None,
) -> Array:
    """The most probable explanation of the observed values: max-product, backtracked.

    It maximizes jointly over variables and latent choices, which is the most probable
    explanation of a deterministic circuit and a lower bound on others.

    Args:
        params: the circuit's.
        x: values ``[V, C]``, of which the observed ones are returned as given.
        observed: bool ``[V]``, given together with ``x``; None: nothing is observed.

    Returns:
        ``[V, C]``; NaN where an observed value is NaN.

    Raises:
        ValueError: a shape or type is another.
    """
    x, observed = examples.evidence_or_nothing(layout, x, observed)
    return _explain(params, x, observed, layout=layout, shape=x.shape)


def mean(
    layout: Layout,
    params: CircuitParams,
    x: Array | None = None,
    observed: Array | None = None,
) -> Array:
    """The exact conditional mean of every variable given the observed ones.

    Differentiable in ``params`` and ``x``.

    Args:
        params: the circuit's.
        x: values ``[V, C]``, of which the observed ones are returned as given.
        observed: bool ``[V]``, given together with ``x``; None: nothing is observed.

    Returns:
        ``[V, C]``; 0 where the evidence is impossible, NaN where an observed value is
        NaN.

    Raises:
        ValueError: a shape or type is another.
    """
    x, observed = examples.evidence_or_nothing(layout, x, observed)
    return _expect(params, x, observed, layout=layout, shape=x.shape)


QUERIES: tuple[Callable[..., Any], ...] = (
    *(init, log_prob, class_log_probs, class_posterior),
    *(sample, sample_differentiable, mpe, mean),
)
"""All public queries."""


@foldable
def _evaluate(params, x, observed, *, layout, function):
    return function(layout, parameters.normalize(layout, params), x, observed)


@foldable
def _draw(params_and_temperature, keys, x, observed, *, layout, relaxation, leaf_mode):
    params, temperature = params_and_temperature
    weights = parameters.normalize(layout, params)
    evidence = None
    if observed is not None:
        evidence = upward(layout, weights, x, observed)
    numbers = noise.draw(layout, keys)
    exact = relaxation in ("hard", "implicit")
    if exact and layout.graph.alternatives is not None:
        values = path.sample(layout, params, weights, evidence, numbers, leaf_mode)
    elif relaxation == "dense":
        values = dense.sample(
            layout, params, weights, evidence, numbers, temperature, leaf_mode
        )
    else:
        choices = ("hard", 1.0) if exact else (relaxation, temperature)
        chosen = downward.select(layout, weights, evidence, numbers, *choices)
        values = downward.blend(layout, params, chosen, numbers.leaves, leaf_mode)
    if observed is not None:
        values = downward.keep_observed(values, x, observed)
    if relaxation == "implicit":
        values = implicit.reparametrize(layout, params, weights, values, observed)
    return values


@foldable
def _explain(params, x, observed, *, layout):
    weights = parameters.normalize(layout, params)
    modes = tuple(
        block.leaf.mode_log_prob(leaf)
        for block, leaf in zip(layout.blocks, params.leaves, strict=True)
    )
    evidence = upward(layout, weights, x, observed, modes)
    silence = noise.none(layout, x.shape[0])
    if layout.graph.alternatives is not None:
        values = path.mpe(layout, params, weights, evidence, silence)
    else:
        chosen = downward.select(layout, weights, evidence, silence, "hard", 1.0)
        values = downward.modes(layout, params, chosen)
    return downward.keep_observed(values, x, observed)


@foldable
def _expect(params, x, observed, *, layout):
    weights = parameters.normalize(layout, params)
    values = moments.means(layout, params, weights, x, observed)
    return downward.keep_observed(values, x, observed)


def _sample(layout, key, params, relaxation, temperature, x, observed, leaf_mode):
    if leaf_mode not in downward.LEAF_MODES:
        raise ValueError(
            f"leaf_mode must be one of {downward.LEAF_MODES}, got {leaf_mode!r}"
        )
    examples.check_key(key)
    if x is not None or observed is not None:
        x, observed = examples.evidence(layout, x, observed)
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
