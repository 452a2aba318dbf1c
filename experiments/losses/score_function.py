"""``--relaxation=score_function``: a term's gradient without a gradient of samples.

With ``--relaxation=score_pathwise`` that of the weights alone; leaves have the gradient
of the samples, given their choices. See `dspc_jax.objectives.score_function`. With
``--relaxation=rebar`` it is the score of the choices, with relaxed samples as a control
variate: see `dspc_jax.objectives.rebar`.
"""

from collections.abc import Callable
from typing import Any

import jax

from dspc_jax.objectives import rebar_surrogate, score_surrogate, set_advantages
from dspc_jax.sampling import rebar
from experiments.console.errors import UserError
from experiments.models.circuit import Model

NAMES = ("score_function", "score_pathwise", "rebar")


def term_loss(
    relaxation: str,
    circuit: Model,
    loss: Callable[..., tuple[jax.Array, dict[str, jax.Array]]],
    advantages: Callable[[jax.Array, jax.Array, Any], jax.Array] | None,
    params: Any,
    key: jax.Array,
    x: jax.Array,
    adversary: Any,
    temperature: jax.Array | float = 1.0,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """A term's loss on exact samples, with the gradient of `dspc_jax.objectives`.

    Args:
        relaxation: one of `NAMES`.
        circuit: what is drawn from.
        loss: `mixture.Term.loss`. It must call ``sample`` once, and take one sample
            fewer than it asked for.
        advantages: `mixture.Term.advantages`; where None, the loss is computed once
            more for every sample, without it.
        params: of the generator, ``{"circuit": ..., ...}``.
        key: for the loss; every evaluation has the same.
        x: grey values ``[B, V, C]``.
        adversary: what is trained against the generator.
        temperature: of the relaxed samples of rebar.

    Returns:
        The loss and its metrics. The gradient to ``params`` is unbiased (with
        score_pathwise and rebar: if the leaves are Normal).

    Raises:
        UserError: the loss draws no set of samples, or more than one.
    """
    drawn = []
    to_unit = circuit.codec.to_unit

    def capture(keys, params):
        if relaxation == "rebar":
            heat = jax.lax.stop_gradient(temperature)
            samples = rebar.draw(circuit.circuit.layout, keys, params["circuit"], heat)
            drawn.append(samples)
            return to_unit(samples.exact)
        samples = jax.vmap(circuit.circuit.sample, (0, None))(keys, params["circuit"])
        drawn.append(jax.lax.stop_gradient(samples))
        return to_unit(samples if relaxation == "score_pathwise" else drawn[-1])

    value, metrics = loss(params, jax.random.clone(key), x, adversary, capture)
    if len(drawn) != 1:
        raise UserError(
            f"--relaxation must not be {relaxation} where a loss draws {len(drawn)} "
            "sets of samples (it must be one)"
        )

    def of_set(units):
        def given(keys, params):
            return units

        fixed = jax.lax.stop_gradient(params)
        return loss(fixed, jax.random.clone(key), x, adversary, given)[0]

    def of_samples(samples):
        units = to_unit(jax.lax.stop_gradient(samples))
        if advantages is None:
            return set_advantages(of_set, units)
        return advantages(x, units, adversary)

    if relaxation == "rebar":
        samples = drawn[0]
        return value + rebar_surrogate(
            samples.log_choices,
            of_samples(samples.exact),
            of_samples(samples.conditional),
            of_set(to_unit(samples.relaxed)),
            of_set(to_unit(samples.conditional)),
        ), metrics
    scored = params["circuit"]
    if relaxation == "score_pathwise":
        scored = scored._replace(leaves=jax.lax.stop_gradient(scored.leaves))
    log_probs = jax.vmap(circuit.circuit.log_prob, (None, 0))(scored, drawn[0])
    return value + score_surrogate(log_probs, of_samples(drawn[0])), metrics
