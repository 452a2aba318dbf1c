"""The batched sampler that objectives ask for."""

from collections.abc import Callable
from typing import Any

import jax

from dspc_jax.arguments import shown
from dspc_jax.queries import DIFFERENTIABLE
from dspc_jax.types import Array


def sampler(
    circuit: Any,
    *,
    relaxation: str = "gumbel_softmax",
    temperature: Array | float = 1.0,
    leaf_mode: str = "sample",
) -> Callable[[Any, Any], Array]:
    """Differentiable samples of a batch of keys, as a function of the parameters.

    It is what the losses on samples take, such as
    ``objectives.mmd_loss(params, key, batch, sample=pc.sampler(circuit), kernel=...)``.

    Args:
        circuit: a circuit, plain or behind a flow.
        relaxation: as of ``circuit.sample_differentiable``.
        temperature: of the relaxation; may be traced.
        leaf_mode: ``"sample"``, or ``"mean"``: the means of the chosen leaves.

    Returns:
        ``sample(keys[B], params) -> [B, V, C]``, with gradients in ``params``.

    Raises:
        ValueError: there is no such relaxation.
    """
    if relaxation not in DIFFERENTIABLE:
        raise ValueError(
            f"relaxation must be one of {DIFFERENTIABLE}, got {shown(relaxation)}"
        )

    def sample(keys: Any, params: Any) -> Array:
        def draw(key: Any) -> Array:
            return circuit.sample_differentiable(
                key,
                params,
                relaxation=relaxation,
                temperature=temperature,
                leaf_mode=leaf_mode,
            )

        return jax.vmap(draw)(keys)

    return sample
