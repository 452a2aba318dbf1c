"""``--relaxation=score_function``: a term's gradient without a gradient of samples.

With ``--relaxation=score_pathwise`` that of the weights alone; leaves have the gradient
of the samples, given their choices. See `dspc_jax.objectives.score_function`.
"""

from collections.abc import Callable
from typing import Any

import jax

from dspc_jax.objectives import score_surrogate, set_advantages
from experiments.errors import UserError
from experiments.model import Model

NAMES = ("score_function", "score_pathwise")


def term_loss(
    relaxation: str,
    circuit: Model,
    loss: Callable[..., tuple[jax.Array, dict[str, jax.Array]]],
    advantages: Callable[[jax.Array, jax.Array, Any], jax.Array] | None,
    params: Any,
    key: jax.Array,
    x: jax.Array,
    adversary: Any,
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

    Returns:
        The loss and its metrics. The gradient to ``params`` is unbiased (with
        score_pathwise: if the leaves are Normal).

    Raises:
        UserError: the loss draws no set of samples, or more than one.
    """
    drawn = []
    pathwise = relaxation == "score_pathwise"

    def capture(keys, params):
        samples = jax.vmap(circuit.circuit.sample, (0, None))(keys, params["circuit"])
        drawn.append(jax.lax.stop_gradient(samples))
        return circuit.codec.to_unit(samples if pathwise else drawn[-1])

    value, metrics = loss(params, jax.random.clone(key), x, adversary, capture)
    if len(drawn) != 1:
        raise UserError(
            f"--relaxation must not be {relaxation} where a loss draws {len(drawn)} "
            "sets of samples (it must be one)"
        )
    (samples,) = drawn
    units = circuit.codec.to_unit(samples)
    if advantages is None:

        def of(units):
            def given(keys, params):
                return units

            return loss(params, jax.random.clone(key), x, adversary, given)[0]

        of_samples = set_advantages(of, units)
    else:
        of_samples = advantages(x, units, adversary)
    scored = params["circuit"]
    if pathwise:
        scored = scored._replace(leaves=jax.lax.stop_gradient(scored.leaves))
    log_probs = jax.vmap(circuit.circuit.log_prob, (None, 0))(scored, samples)
    return value + score_surrogate(log_probs, of_samples), metrics
