"""Circuits whose variables are channels, as circuits of pixels."""

import dataclasses
from typing import Any

import jax.numpy as jnp

import dspc_jax as pc
from experiments.models.adapted_circuit import adapted


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

    def init(key, data=None, *, observed=None, **options):
        data, observed = own(data, observed)
        return circuit.init(key, data, observed=observed, **options)

    return dataclasses.replace(adapted(circuit, own, pixels), init=init)
