"""Marginal MAP against the best of all values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dspc_jax as pc
from tests import cases

NAMES = ("trees-tucker", "depth-0", "channels", "quad-3x3", "nested", "mixed")


@pytest.mark.parametrize("name", cases.parameters(NAMES, NAMES))
def test_it_is_at_most_the_optimum_and_often_there(name):
    """Twelve parameters, two thirds searched for, a sixth observed, the rest summed."""
    case = cases.case(name)
    circuit, values = case.circuit, case.table.values
    places = np.arange(case.config.structure.num_variables) % 6
    variables, observed = places % 3 != 1, places == 4
    if len(places) < 5:
        observed = places == 1
    seeds = range(12)
    many = [cases.random_params(circuit, seed) for seed in seeds]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *many)
    keys = cases.fresh_keys(0, len(many))
    x = np.float32(values[-1])

    @cases.jit
    @jax.vmap
    def search(key, params):
        found = pc.marginal_map(
            circuit, key, params, variables, x, observed, num_starts=4, num_sweeps=2
        )
        known = variables | observed
        every = jnp.where(observed[:, None], x, jnp.asarray(values, jnp.float32))
        log_prob = jax.vmap(circuit.log_prob, (None, 0, None))
        return (
            found,
            log_prob(params, every, known),
            circuit.log_prob(params, found.x, known),
        )

    found, log_p, own = search(keys, stacked)
    np.testing.assert_allclose(found.log_prob, own, rtol=1e-5, atol=1e-5)
    best = log_p.max(axis=1)
    assert (found.log_prob <= best + 1e-4).all()
    assert (found.log_prob > best - 1e-4).mean() >= 0.9
    np.testing.assert_array_equal(found.x[:, observed], [x[observed]] * len(many))
    assert (found.x[:, ~(variables | observed)] == 0).all()


@pytest.mark.slow
def test_normal_variables_climb_to_a_mode():
    """No point of a fine grid is better, and the same key finds the same again."""
    circuit = pc.build(
        pc.CircuitConfig(
            pc.RandomBinaryTrees(3, 1), pc.Normal(), num_leaves=3, num_sums=3
        )
    )
    params = cases.random_params(circuit, 2)
    variables = np.array([True, False, True])
    line = np.linspace(-4, 4, 161, dtype=np.float32)
    grid = np.stack(np.meshgrid(line, [0], line, indexing="ij"), -1).reshape(-1, 3)

    @cases.jit
    def search(key, params, grid):
        log_prob = jax.vmap(circuit.log_prob, (None, 0, None))
        return (
            pc.marginal_map(circuit, key, params, variables),
            log_prob(params, grid, variables),
        )

    found, log_p = search(jax.random.key(0), params, grid)
    assert found.log_prob >= log_p.max() - 1e-5
    again, _ = search(jax.random.key(0), params, grid)
    np.testing.assert_array_equal(found.x, again.x)


def test_what_is_refused():
    case = cases.case("trees-tucker")
    circuit, params, key = case.circuit, case.params, jax.random.key(0)
    first = np.array([True, False, False, False])
    x = case.values[0]
    for args, match in (
        ((first, x, first), "variables must not be observed"),
        ((~first & first,), "variables must be bool of shape .* with a variable in it"),
        ((first[:3],), r"variables must be bool of shape \[V\] = \(4,\)"),
    ):
        with pytest.raises(ValueError, match=match):
            pc.marginal_map(circuit, key, params, *args)
    with pytest.raises(ValueError, match="num_starts must be at least 2, got 1"):
        pc.marginal_map(circuit, key, params, first, num_starts=1)
