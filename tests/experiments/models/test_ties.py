"""Tied circuits of the programs: latents beside the image keep their own leaves."""

import jax
import numpy as np
import pytest

import dspc_jax as pc
from experiments.console.errors import UserError
from experiments.engine import flags_in_use
from experiments.engine.flags import Settings, defaults_of, fields_of
from experiments.models import circuit, joint_circuit
from tests.experiments.tiny import tiny_digits


def test_the_flags_tie_the_circuit_and_the_latents_of_none():
    settings = Settings(num_sums=2, num_leaves=2, tie_leaves="all", tie_sums="levels")
    config = circuit.circuit_config(settings, tiny_digits())
    assert (config.tie_leaves, config.tie_sums) == ("all", "levels")
    joint = joint_circuit.make_joint_model(
        settings,
        tiny_digits(),
        num_latents=3,
        patch=2,
        latent_leaf=pc.Normal(),
        latent_scale=0.25,
    )
    own = joint.circuit
    assert own.config.tie_leaves == (0,) * 8 + (1, 2, 3)
    params = joint_circuit.init(joint, jax.random.key(0))["circuit"]
    blocks = own.layout.leaf_blocks
    assert sorted(len(block.scopes) for block in blocks) == [1, 3]
    for block, leaf in zip(blocks, params.leaves, strict=True):
        if block.variables[0] >= 8:
            _, std = block.leaf.components(leaf)
            np.testing.assert_allclose(std, 0.25, rtol=1e-3)


def test_sums_are_tied_where_there_is_what_moves():
    values = defaults_of([Settings])
    wrong = values | {"tie_sums": "levels", "structure": "random_binary_trees"}
    with pytest.raises(
        UserError, match="--tie_sums must go with --structure=quad_tree"
    ):
        flags_in_use.check(fields_of([Settings]), {}, wrong, values)
