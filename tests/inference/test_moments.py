"""Conditional means against enumeration and against quadrature."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import cases

EXACT = ["trees-tucker", "odd-trees-cp", "depth-0", "channels", "nested", "mixed"]


@pytest.mark.parametrize("name", cases.parameters(EXACT))
def test_means_are_those_of_the_enumerated_conditional(name):
    """Every mask; discrete leaves, shared regions, inner mixtures, several roots."""
    case = cases.case(name)
    circuit, table = case.circuit, case.table
    masks = cases.masks(circuit.config.structure.num_variables)
    rng = np.random.default_rng(0)
    x = table.values[rng.integers(len(table.values), size=len(masks))]
    means = cases.jit(jax.vmap(circuit.mean, (None, 0, 0)))(
        case.params, np.float32(x), masks
    )
    for value, observed, mean in zip(x, masks, means, strict=True):
        probs = table.conditional(value, observed)
        expected = np.tensordot(probs, table.values, axes=1)
        np.testing.assert_allclose(mean, expected, atol=2e-5)


@pytest.mark.parametrize("name", ["normal-trees", "normal-channels"])
def test_means_of_normal_leaves_against_quadrature(name):
    """E[x_v] by the marginal density of each value on a grid of 4001 points."""
    case = cases.case(name)
    circuit = case.circuit
    num_variables = circuit.config.structure.num_variables
    num_channels = circuit.config.num_channels
    evidence = jnp.asarray(cases.normal(1, num_variables, num_channels))
    observed = np.arange(num_variables) > 0
    if num_channels > 1:  # the channels of the one variable: no evidence
        mean = cases.jit(circuit.mean)(case.params)[0, 0]
        other = np.linspace(-8.0, 8.0, 201, dtype=np.float32)
    else:
        mean = cases.jit(circuit.mean)(case.params, evidence, observed)[0, 0]
        other = np.zeros(1, np.float32)
    grid = np.linspace(-8.0, 8.0, 4001, dtype=np.float32)

    def density(value, aside):
        x = evidence.at[0, 0].set(value)
        if num_channels > 1:
            x = x.at[0, 1].set(aside)
        return circuit.log_prob(case.params, x)

    log_p = cases.jit(jax.vmap(jax.vmap(density, (None, 0)), (0, None)))(grid, other)
    p = np.exp(np.asarray(log_p, np.float64)).sum(axis=1)
    expected = (p * np.asarray(grid)).sum() / p.sum()
    np.testing.assert_allclose(mean, expected, atol=1e-4)


def test_without_evidence_and_with_all_of_it():
    case = cases.case("trees-tucker")
    x = np.float32(case.table.values[5])

    @cases.jit
    def means(params):
        everything = jnp.ones(len(x), bool)
        return case.circuit.mean(params), case.circuit.mean(params, x, everything)

    without, evidence = means(case.params)
    expected = np.tensordot(case.table.probs, case.table.values, axes=1)
    np.testing.assert_allclose(without, expected, atol=2e-5)
    np.testing.assert_array_equal(evidence, x)


def test_impossible_evidence_gives_zero_and_no_nan():
    case = cases.case("shared")
    x = np.full((3, 1), 7.0, np.float32)  # three categories: 7 is none
    observed = np.array([True, False, False])

    def total(params):
        return jnp.sum(case.circuit.mean(params, x, observed))

    value, grads = cases.jit(jax.value_and_grad(total))(case.params)
    assert value == 7.0
    for grad in jax.tree.leaves(grads):
        np.testing.assert_array_equal(grad, 0)


@pytest.mark.parametrize(
    "name", cases.parameters(["normal-trees", "nested"], ["nested"])
)
def test_gradients_against_central_differences(name):
    """Along a random direction in parameters and in the observed values, float32."""
    case = cases.case(name)
    circuit = case.circuit
    num_variables = circuit.config.structure.num_variables
    observed = np.arange(num_variables) % 2 == 0
    x = np.float32(observed[:, None])
    weights = np.where(observed, 0, np.arange(1, num_variables + 1, dtype=np.float32))

    def total(params, x):
        return jnp.sum(weights * circuit.mean(params, x, observed)[:, 0])

    continuous = name == "normal-trees"
    still = jax.tree.map(np.zeros_like, case.params)
    # The logits of partitions that do not exist stay -inf.
    along = jax.tree.map(
        lambda d, p: np.where(np.isfinite(p), d, np.float32(0)),
        *(cases.randomize(still, 3), case.params),
    )
    along_x = np.float32(0.7 if continuous else 0) * x
    grad, grad_x = cases.jit(jax.grad(total, (0, 1)))(case.params, x)
    exact = sum(
        float(np.vdot(g, d))
        for g, d in zip(jax.tree.leaves(grad), jax.tree.leaves(along), strict=True)
    ) + float(np.vdot(grad_x, along_x))
    step = 1e-2

    @cases.jit
    def at(s):
        moved = jax.tree.map(lambda p, d: p + s * d, case.params, along)
        return total(moved, x + s * along_x)

    numeric = float(at(jnp.float32(step)) - at(jnp.float32(-step))) / (2 * step)
    assert abs(exact) > 1e-2
    np.testing.assert_allclose(exact, numeric, rtol=1e-2)
