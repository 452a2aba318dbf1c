"""How much the codes of a circuit's auto-encoder carry, measured on images."""

import jax
import jax.numpy as jnp

from dspc_jax.objectives import (
    active_latents,
    circuit_encoder,
    code_divergences,
    code_spread,
)
from experiments.models.circuit import Params
from experiments.models.joint_circuit import JointModel


def evaluate(
    joint: JointModel, params: Params, key: jax.Array, levels: jax.Array
) -> dict[str, jax.Array]:
    """The spread of the codes and what they tell of an image, see `code_spread`.

    Args:
        joint: circuit over image and latents.
        params: its parameters, and more.
        key: for dequantization, and a draw of each image's code.
        levels: ``[B, V, C]`` uint8.

    Returns:
        ``[B]`` each, nats: ``kl``, of p(z | x) from N(0, I), and ``code_nats``, of
        p(z | x) from the circuit's own p(z); the code carries no more than either.
        Scalars: ``code_spread``, the mean over latents, and ``active_latents``, how
        many of them the image moves.
    """
    noise_key, mean_key, sample_key = jax.random.split(key, 3)
    x = joint.image.codec.encode(noise_key, levels)
    own = params["circuit"]

    def draw(key, x):
        hidden = jnp.pad(x, ((0, joint.image.num_latents), (0, 0)))
        pixels = jnp.arange(len(hidden)) < len(x)
        return joint.circuit.sample(key, own, x=hidden, observed=pixels)[len(x) :]

    means = jax.vmap(circuit_encoder(joint.circuit, "mean"), (None, 0, 0, None))(
        own, jax.random.split(mean_key, len(x)), x, None
    )
    z = jax.vmap(draw)(jax.random.split(sample_key, len(x)), x)
    spread = code_spread(means, jnp.mean((z - means) ** 2, axis=0))
    kl, nats = jax.vmap(code_divergences, (None, None, 0, 0))(joint.circuit, own, x, z)
    return {
        "kl": kl,
        "code_nats": nats,
        "code_spread": jnp.mean(spread),
        "active_latents": active_latents(spread),
    }
