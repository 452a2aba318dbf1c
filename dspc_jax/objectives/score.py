r"""Any loss on samples of a circuit, with a gradient that needs no relaxed samples.

A loss is written for a differentiable sampler, and `with_score` gives it exact samples
and the gradient of one of three estimators::

    loss = functools.partial(mmd_loss, kernel=kernel)
    objective = with_score(loss, circuit, estimator="score_pathwise")
    gradient, metrics = jax.grad(objective, has_aux=True)(params, key, batch)

- ``score_function``: the score of the exact log-likelihood, with the loss of the other
  samples as its baseline (`dspc_jax.objectives.score_function`). Any leaves, any loss,
  differentiable or not.
- ``score_pathwise``: the same for the weights; leaves have the gradient of the samples,
  given their choices.
- ``rebar``: the score of the choices, with relaxed samples as its control variate, and
  leaves as before (`dspc_jax.objectives.rebar`).

All are unbiased; the last two with Normal leaves and a differentiable loss.
"""

from collections.abc import Callable
from typing import Any, Literal, TypeAlias, get_args

import jax
import jax.numpy as jnp

from dspc_jax.arguments import whole_number
from dspc_jax.circuit import Circuit
from dspc_jax.objectives.rebar import rebar_surrogate
from dspc_jax.objectives.score_function import score_surrogate, set_advantages
from dspc_jax.parameters import CircuitParams
from dspc_jax.sampling import rebar
from dspc_jax.types import Array, Key, Metrics, PyTree

ScoreEstimator: TypeAlias = Literal["score_function", "score_pathwise", "rebar"]
SCORE_ESTIMATORS: tuple[str, ...] = get_args(ScoreEstimator)

Objective: TypeAlias = Callable[[Any, Array, Any], tuple[Array, Metrics]]
"""``objective(params, key, batch) -> (scalar loss, metrics)``, a pure function."""


def with_score(
    loss: Callable[..., tuple[Array, Metrics]],
    circuit: Circuit,
    *,
    estimator: str = "score_function",
    advantages: Callable[[Array, Array], Array] | None = None,
    units: Callable[[Array], Array] | None = None,
    num_samples: int | None = None,
    temperature: Array | float = 1.0,
) -> Objective:
    """The mean of a loss over sets of samples, with its unbiased gradient.

    Args:
        loss: ``loss(params, key, batch, sample=sample) -> (scalar, metrics)``. It asks
            ``sample(keys[n], params)`` once, for n samples, and works with n - 1, too.
            The samples are drawn before: their keys are the first n of
            ``jax.random.split(key, n + 1)``, those of ``sample`` are only counted. The
            loss gets the last key, the same in every evaluation.
        circuit: what is drawn from; ``params`` are its parameters.
        estimator: one of `SCORE_ESTIMATORS`.
        advantages: ``(batch, samples[n, V, C]) -> [n]``: what each sample adds to the
            loss, in closed form (`mmd_advantages`, `mean_advantages`). None: the loss
            is evaluated once more for each sample, without it (`set_advantages`).
        units: from values of the leaves to those that the loss is about,
            differentiable, applied to all samples. None: as they are.
        num_samples: n, at least 2; the size of the batch by default.
        temperature: of the relaxed samples of ``rebar``, a positive scalar.

    Returns:
        The objective: loss and metrics are those of the exact samples.

    Raises:
        ValueError: an unknown estimator, a circuit that REBAR cannot follow; on use,
            fewer than two samples, or a loss that asks for another number of them.
    """
    if estimator not in SCORE_ESTIMATORS:
        raise ValueError(
            f"estimator must be one of {', '.join(SCORE_ESTIMATORS)}, got {estimator!r}"
        )
    if estimator == "rebar":
        rebar.check(circuit.layout)

    def objective(params: PyTree, key: Key, batch: Any) -> tuple[Array, Metrics]:
        count = jnp.shape(batch)[0] if num_samples is None else num_samples
        count = whole_number("num_samples", count, least=2)
        keys = jax.random.split(key, count + 1)
        loss_key, keys = keys[-1], keys[:-1]

        def evaluate(params: PyTree, samples: Array) -> tuple[Array, Metrics]:
            """The loss of samples in the leaves' units, n or fewer."""
            samples = samples if units is None else units(samples)
            key = jax.random.clone(loss_key)
            return loss(params, key, batch, sample=_returning(samples, count))

        def advantages_of(samples: Array) -> Array:
            samples = jax.lax.stop_gradient(samples)
            if advantages is None:
                fixed = jax.lax.stop_gradient(params)
                return set_advantages(lambda s: evaluate(fixed, s)[0], samples)
            return advantages(batch, samples if units is None else units(samples))

        if estimator == "rebar":
            return _rebar(circuit, params, keys, temperature, evaluate, advantages_of)
        pathwise = estimator == "score_pathwise"
        return _score(circuit, params, keys, pathwise, evaluate, advantages_of)

    return objective


Evaluate: TypeAlias = Callable[[Any, Array], tuple[Array, Metrics]]
Advantages: TypeAlias = Callable[[Array], Array]


def _returning(samples: Array, count: int) -> Callable[[Array, Any], Array]:
    """A sampler that returns what was drawn before."""

    def sample(keys: Array, params: PyTree) -> Array:
        del params
        if keys.shape[0] != count:
            raise ValueError(
                f"loss must ask for num_samples={count} samples, got {keys.shape[0]} "
                "keys"
            )
        return samples

    return sample


def _score(
    circuit: Circuit,
    params: CircuitParams,
    keys: Array,
    pathwise: bool,
    evaluate: Evaluate,
    advantages_of: Advantages,
) -> tuple[Array, Metrics]:
    samples = jax.vmap(circuit.sample, (0, None))(keys, params)
    fixed, scored = jax.lax.stop_gradient(samples), params
    if pathwise:
        scored = params._replace(leaves=jax.lax.stop_gradient(params.leaves))
    loss, metrics = evaluate(params, samples if pathwise else fixed)
    log_probs = jax.vmap(circuit.log_prob, (None, 0))(scored, fixed)
    return loss + score_surrogate(log_probs, advantages_of(fixed)), metrics


def _rebar(
    circuit: Circuit,
    params: CircuitParams,
    keys: Array,
    temperature: Array | float,
    evaluate: Evaluate,
    advantages_of: Advantages,
) -> tuple[Array, Metrics]:
    heat = jax.lax.stop_gradient(temperature)
    samples = rebar.draw(circuit.layout, keys, params, heat)
    fixed = jax.lax.stop_gradient(params)
    loss, metrics = evaluate(params, samples.exact)
    surrogate = rebar_surrogate(
        samples.log_choices,
        advantages_of(samples.exact),
        advantages_of(samples.conditional),
        evaluate(fixed, samples.relaxed)[0],
        evaluate(fixed, samples.conditional)[0],
    )
    return loss + surrogate, metrics
