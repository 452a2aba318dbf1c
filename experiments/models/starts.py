"""Circuits that start from all training images."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import dspc_jax as pc
from dspc_jax.leaves import OrderedLeaf
from experiments.console.errors import UserError
from experiments.engine.flags import Settings
from experiments.engine.system import levels_and_labels
from experiments.models.circuit import Model, Params

_MOST_VALUES = 2**28  # of images that a start looks at: 1 GiB


def start(
    settings: Settings, model: Model
) -> Callable[[Params, jax.Array, Any], Params] | None:
    """What replaces the parameters of `init` where all the images are at hand.

    Args:
        settings: the shared flags.
        model: the circuit.

    Returns:
        ``(params, key, batch) -> params``, from a batch of all images; None: nothing
        does.

    Raises:
        UserError: the circuit has no such start.
    """
    if settings.start == "examples":
        return None
    if model.num_latents:
        raise UserError(
            "--start must be examples for a circuit with latents, got 'distill'"
        )

    def distilled(params, key, batch):
        levels, labels = levels_and_labels(batch)
        most = max(1, _MOST_VALUES // levels[0].size)
        rows = np.linspace(0, len(levels) - 1, min(most, len(levels))).astype(int)
        noise_key, start_key = jax.random.split(key)
        x = model.codec.encode(noise_key, jnp.asarray(levels[rows]))
        if labels is not None:
            labels = labels[rows]
        own = model.circuit.init(start_key, x, method="distill", labels=labels)
        if settings.em_leaf_spread:
            own = _with_spread_leaves(model.circuit, own, settings.em_leaf_spread)
        return params | {"circuit": own}

    return distilled


def _with_spread_leaves(circuit: pc.Circuit, params: Any, std: float) -> Any:
    """Parameters whose leaves are as EM with this spread would leave them."""

    def spread(block, leaf_params):
        leaf = block.leaf
        if not isinstance(leaf, OrderedLeaf):
            return leaf_params
        statistics = leaf.spread(leaf.expected_statistics(leaf_params), std)
        return leaf.from_statistics(statistics, leaf_params)

    leaves = map(spread, circuit.layout.leaf_blocks, params.leaves)
    return params._replace(leaves=tuple(leaves))
