"""What is trained through samples: its parts, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.console.errors import UserError
from experiments.data import Dataset
from experiments.engine.flags import Settings
from experiments.models import generators
from tests import cases
from tests.experiments.tiny import tiny_digits


@pytest.fixture(scope="module")
def tiny() -> Dataset:
    """A piece of the digits: 2x4 pixels."""
    return tiny_digits()


def test_the_parameters_are_named_parts(tiny: Dataset):
    """A temperature is among them only where it is learned."""
    shapes = {}
    for schedule in ("constant", "learned"):
        settings = Settings(
            num_sums=2,
            num_leaves=2,
            relaxation="gumbel_softmax",
            temperature=0.5,
            temperature_schedule=schedule,
        )
        generator = generators.circuit_generator(settings, tiny)
        params = cases.jit(generator.init)(jax.random.key(0))
        shapes[schedule] = set(params)
        temperature = generator.sampler(params, jnp.int32(3)).temperature
        np.testing.assert_allclose(temperature, 0.5, rtol=1e-6)
    assert shapes == {"constant": {"circuit"}, "learned": {"circuit", "temperature"}}


def test_implicit_is_refused_early(tiny: Dataset):
    with pytest.raises(UserError, match="--relaxation must not be 'implicit' without"):
        generators.circuit_generator(
            Settings(relaxation="implicit", leaf="binomial"), tiny
        )
    wide = tiny._replace(
        height=10, width=8, train=np.tile(tiny.train, (1, 10, 1)).astype(np.uint8)
    )
    with pytest.raises(
        UserError, match="more than 64 variables times channels, got 80"
    ):
        generators.circuit_generator(
            Settings(relaxation="implicit", leaf="normal"), wide
        )
