"""--colors=ycocg: the same bits, other channels, and what does not fit."""

import jax
import numpy as np
import pytest

from experiments import data, ll
from experiments.console.errors import UserError
from experiments.data.dataset import Dataset
from experiments.engine.flags import Settings


def images(num: int) -> np.ndarray:
    """Gray of random brightness, with a little color."""
    rng = np.random.default_rng(0)
    gray = rng.integers(20, 236, (num, 4, 1)) + rng.integers(-20, 20, (num, 4, 3))
    return gray.astype(np.uint8)


def colored() -> Dataset:
    sizes = {"name": "colored", "height": 2, "width": 2, "num_values": 256}
    splits = dict(
        zip(("train", "valid", "test"), map(images, (64, 16, 16)), strict=True)
    )
    return Dataset(**sizes, **splits)


def settings_of(**flags) -> Settings:
    sizes = {"num_sums": 3, "num_leaves": 3, "batch_size": 16, "structure": "quad_tree"}
    return Settings(**{**sizes, "leaf": "categorical", "colors": "ycocg", **flags})


def test_a_circuit_learns_and_draws_colors(key: jax.Array):
    dataset = colored()
    system = ll.make_system(settings_of(), dataset)
    state = jax.jit(system.init)(key)
    assert state.params["circuit"].leaves[0].logits.shape[-1] == 511
    metrics = jax.jit(system.evaluate)(state, key, dataset.valid)
    assert np.isfinite(metrics["bits_per_dim"]).all()
    drawn = system.sample(state, key, 5)["sampled"]
    assert (drawn.shape, drawn.dtype) == ((5, 4, 3), np.uint8)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"leaf": "normal"}, "--colors must be rgb with leaves that take no levels"),
        ({"dataset": "digits"}, "without three channels of 256 levels, got 'ycocg'"),
    ],
)
def test_what_does_not_fit_is_refused(flags, message):
    dataset = data.load("digits", None) if "dataset" in flags else colored()
    with pytest.raises(UserError, match=message):
        ll.make_system(settings_of(**flags), dataset)
