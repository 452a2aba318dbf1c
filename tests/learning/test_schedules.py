"""Temperature schedules: their values, their gradient, and one trace for all steps."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dspc_jax.learning.schedules import (
    annealed_temperature,
    constant_temperature,
    learned_temperature,
)


def test_a_constant_temperature_has_the_shape_of_the_steps():
    step = jnp.array([0, 10, 100])
    np.testing.assert_array_equal(constant_temperature(0.3)(step), np.float32(0.3))
    chex.assert_shape(constant_temperature(0.3)(step), (3,))


def test_an_annealed_temperature_falls_to_its_end():
    step = jnp.array([0, 10, 100, 10_000])
    annealed = annealed_temperature(100)(step)
    np.testing.assert_allclose(annealed, [1, np.exp(-0.1), 0.5, 0.5], rtol=1e-6)
    other = annealed_temperature(10, start=2.0, end=0.1)(step)
    np.testing.assert_allclose(other, [2, 2 / np.e, 0.1, 0.1], rtol=1e-6)


def test_a_learned_temperature_has_a_gradient():
    assert learned_temperature(jnp.float32(0.0)) == 0.5
    gradient = jax.grad(learned_temperature)(jnp.float32(0.0))
    np.testing.assert_allclose(gradient, 0.25)


@pytest.mark.parametrize(
    "schedule", [constant_temperature(1.0), annealed_temperature(9)]
)
def test_steps_never_recompile(schedule):
    chex.clear_trace_counter()
    at = jax.jit(chex.assert_max_traces(schedule, n=1))
    for number in range(3):
        chex.assert_scalar_positive(float(at(jnp.int32(number))))


def test_no_steps_are_refused():
    with pytest.raises(ValueError, match="^num_steps must be at least 1, got 0$"):
        annealed_temperature(0)
