"""``--relaxation=score_function``: a term's gradient without a gradient of samples."""

from collections.abc import Callable
from typing import Any

import jax

from dspc_jax.objectives import score_surrogate, set_advantages
from experiments.errors import UserError
from experiments.model import Model

NAME = "score_function"


def term_loss(
    circuit: Model,
    loss: Callable[..., tuple[jax.Array, dict[str, jax.Array]]],
    advantages: Callable[[jax.Array, jax.Array], jax.Array] | None,
    params: Any,
    key: jax.Array,
    x: jax.Array,
    adversary: Any,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """A term's loss on exact samples, with the gradient of `dspc_jax.objectives`.

    Args:
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
        The loss and its metrics. The gradient to ``params`` is unbiased.

    Raises:
        UserError: the loss draws no set of samples, or more than one.
    """
    drawn = []

    def capture(keys, params):
        samples = jax.vmap(circuit.circuit.sample, (0, None))(keys, params["circuit"])
        drawn.append(jax.lax.stop_gradient(samples))
        return circuit.codec.to_unit(drawn[-1])

    value, metrics = loss(params, jax.random.clone(key), x, adversary, capture)
    if len(drawn) != 1:
        raise UserError(
            f"--relaxation must not be {NAME} where a loss draws {len(drawn)} sets of "
            "samples (it must be one)"
        )
    (samples,) = drawn
    units = circuit.codec.to_unit(samples)
    if advantages is None:

        def of(units):
            def given(keys, params):
                return units

            return loss(params, jax.random.clone(key), x, adversary, given)[0]

        _, of_samples = set_advantages(of, units)
    else:
        of_samples = advantages(x, units)
    log_probs = jax.vmap(circuit.circuit.log_prob, (None, 0))(
        params["circuit"], samples
    )
    return value + score_surrogate(log_probs, of_samples), metrics
