"""The interface between objectives and networks: pure functions of parameters.

Objectives ask for these, networks and circuits provide them; neither knows the other.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from dspc_jax.types import Array, Key, PyTree


class Discriminator(NamedTuple):
    """Distinguishes data from samples: pure functions of its parameters.

    The score of an example depends on that example alone (no batch normalization), so
    gradients with respect to single examples exist.

    Attributes:
        init: ``init(key) -> params``.
        logits: ``logits(params, x[B, V, C]) -> [B]``: log-odds that x is data; large
            for data.
        train_logits: ``train_logits(key, params, x) -> [B]``: the same with the noise
            of training (dropout), where there is one.
    """

    init: Callable[[Key], PyTree]
    logits: Callable[[PyTree, Array], Array]
    train_logits: Callable[[Array, PyTree, Array], Array]


class FeatureCritic(NamedTuple):
    """Features of examples for a learned kernel: pure functions of its parameters.

    The features of an example depend on that example alone (no batch normalization),
    so gradients with respect to single examples exist.

    Attributes:
        init: ``init(key) -> params``.
        features: ``features(params, x[B, V, C]) -> [B, K]``.
        activations: ``activations(params, x[B, V, C])``: the outputs of all layers,
            ``[B, ...]`` each; the features are the last.
    """

    init: Callable[[Key], PyTree]
    features: Callable[[PyTree, Array], Array]
    activations: Callable[[PyTree, Array], tuple[Array, ...]]


class AutoEncoder(NamedTuple):
    """Pure functions of an auto-encoder.

    Attributes:
        init: ``init(key) -> {"encoder": pytree, "decoder": pytree}``, float32.
        encode: ``encode(params, x[B, V, C]) -> [B, K]`` features.
        decode: ``decode(params, features[B, K]) -> [B, V, C]``, in the units of
            ``scale``.
        scale: ``scale(x)`` maps the value range to [-1, 1], the networks' units.
    """

    init: Callable[[Key], dict[str, Any]]
    encode: Callable[[dict[str, Any], Array], Array]
    decode: Callable[[dict[str, Any], Array], Array]
    scale: Callable[[Array], Array]
