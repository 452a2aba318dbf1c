"""Circuits whose variables are channels, as circuits of pixels."""

import dataclasses
from typing import Any

import jax.numpy as jnp

import dspc_jax as pc


def of_pixels(circuit: pc.Circuit, num_channels: int) -> pc.Circuit:
    """The circuit's functions of images ``[V, C]``; parameters and layout are shared.

    Args:
        circuit: over V * C variables, channels of a pixel one after the other.
        num_channels: C.

    Returns:
        The circuit. What is observed, ``[V]``, are pixels.
    """

    def own(x: Any, observed: Any) -> tuple[Any, Any]:
        """Values and masks ``[..., V * C, 1]``, as the circuit takes them."""
        if x is not None:
            x = jnp.asarray(x)
            x = x.reshape(*x.shape[:-2], -1, 1)
        if observed is not None:
            observed = jnp.repeat(jnp.asarray(observed), num_channels, axis=-1)
        return x, observed

    def pixels(x: Any) -> Any:
        return x.reshape(-1, num_channels)

    def query(function):
        return lambda params, x, observed=None: function(params, *own(x, observed))

    def sampler(function):
        def draw(key, params, *, x=None, observed=None, **options):
            x, observed = own(x, observed)
            return pixels(function(key, params, x=x, observed=observed, **options))

        return draw

    def completion(function):
        def complete(params, x=None, observed=None):
            return pixels(function(params, *own(x, observed)))

        return complete

    def init(key, data=None, *, observed=None, **options):
        data, observed = own(data, observed)
        return circuit.init(key, data, observed=observed, **options)

    return dataclasses.replace(
        circuit,
        init=init,
        log_prob=query(circuit.log_prob),
        class_log_probs=query(circuit.class_log_probs),
        class_posterior=query(circuit.class_posterior),
        sample=sampler(circuit.sample),
        sample_differentiable=sampler(circuit.sample_differentiable),
        mpe=completion(circuit.mpe),
        mean=completion(circuit.mean),
    )
