"""--wavelets=legall: other leaves, the same bits, and what does not fit."""

import jax
import numpy as np
import pytest

from experiments import ll
from experiments.console.errors import UserError
from experiments.engine.flags import Settings
from tests.experiments.models.test_colors import colored

FLAGS = {
    **{"num_sums": 3, "num_leaves": 3, "batch_size": 16, "structure": "quad_tree"},
    **{"wavelets": "legall", "optimizer": "em", "em_approximate": True},
}


@pytest.mark.parametrize(
    "colors", [pytest.param("rgb", marks=pytest.mark.slow), "ycocg"]
)
def test_a_circuit_learns_and_draws_wavelets(colors: str):
    dataset = colored()
    flags = {**FLAGS, "leaf": "discretized_logistic", "colors": colors}
    system = ll.make_system(Settings(**flags), dataset)
    init_key, first, last, draw, *steps = jax.random.split(jax.random.key(0), 9)
    state = jax.jit(system.init)(init_key)
    evaluate = jax.jit(system.evaluate)
    bits = evaluate(state, first, dataset.valid)["bits_per_dim"]
    step = jax.jit(lambda state, key, batch: system.step(state, key, batch, 0, None)[0])
    for key in steps:
        state = step(state, key, dataset.train)
    better = evaluate(state, last, dataset.valid)["bits_per_dim"]
    assert better.mean() < bits.mean()
    drawn = system.sample(state, draw, 5)["sampled"]
    assert (drawn.shape, drawn.dtype) == ((5, 4, 3), np.uint8)
    assert system.complete is None  # a part of an image is no part of these leaves


def test_what_does_not_fit_is_refused():
    flags = {**FLAGS, "optimizer": "adam", "em_approximate": False, "leaf": "normal"}
    with pytest.raises(UserError, match="--wavelets must be none with leaves that tak"):
        ll.make_system(Settings(**flags), colored())
