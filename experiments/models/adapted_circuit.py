"""A circuit over other variables than the images that programs ask it about."""

from collections.abc import Callable
import dataclasses
from typing import Any

import dspc_jax as pc


def adapted(
    circuit: pc.Circuit,
    given: Callable[[Any, Any], tuple[Any, Any]],
    shown: Callable[[Any], Any],
) -> pc.Circuit:
    """The circuit's functions of images; parameters, layout and start are its own.

    Args:
        circuit: over variables of its own.
        given: values and mask of an image, either of which may be None, to those of the
            circuit.
        shown: values of the circuit to those of an image.

    Returns:
        The circuit.
    """

    def query(function):
        return lambda params, x, observed=None: function(params, *given(x, observed))

    def sampler(function):
        def draw(key, params, *, x=None, observed=None, **options):
            x, observed = given(x, observed)
            return shown(function(key, params, x=x, observed=observed, **options))

        return draw

    def completion(function):
        def complete(params, x=None, observed=None):
            return shown(function(params, *given(x, observed)))

        return complete

    return dataclasses.replace(
        circuit,
        log_prob=query(circuit.log_prob),
        class_log_probs=query(circuit.class_log_probs),
        joint_log_probs=query(circuit.joint_log_probs),
        class_posterior=query(circuit.class_posterior),
        sample=sampler(circuit.sample),
        sample_differentiable=sampler(circuit.sample_differentiable),
        mpe=completion(circuit.mpe),
        mean=completion(circuit.mean),
    )
