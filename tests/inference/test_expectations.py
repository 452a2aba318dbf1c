"""Covariances and expectations of products, by enumeration and by quadrature."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dspc_jax as pc
from tests import cases

EXACT = (
    *("trees-tucker", "odd-trees-cp", "depth-0", "channels"),
    *("quad-3x3", "quad-2x3", "shared", "nested", "mixed"),
)


def some_evidence(case, count=6):
    """Values of the table with random masks; the first shows nothing."""
    rng = np.random.default_rng(0)
    values = case.table.values
    x = values[rng.integers(len(values), size=count)]
    observed = rng.random((count, x.shape[1])) < 0.4
    observed[0] = False
    hidden = np.where(observed[..., None], x, np.nan)
    return x, observed, np.float32(hidden)


@pytest.mark.parametrize("name", cases.parameters(EXACT))
def test_covariances_are_those_of_the_enumerated_conditional(name):
    case = cases.case(name)
    x, observed, evidence = some_evidence(case)
    covariance = jax.vmap(case.circuit.covariance, (None, 0, 0))
    result = cases.jit(covariance)(case.params, evidence, observed)
    values = case.table.values.reshape(len(case.table.values), -1)
    for value, seen, own in zip(x, observed, result, strict=True):
        probs = case.table.conditional(value, seen)
        away = values - probs @ values
        expected = (away * probs[:, None]).T @ away
        np.testing.assert_allclose(own.reshape(expected.shape), expected, atol=3e-5)


@pytest.mark.parametrize("name", cases.parameters(EXACT))
def test_expectations_are_those_of_the_enumerated_conditional(name):
    """Of either sign, of one factor that is 0 under some leaves; also its gradient."""
    case = cases.case(name)
    circuit, channels = case.circuit, case.config.num_channels
    last = case.config.structure.num_variables - 1
    x, observed, evidence = some_evidence(case)

    def at(variable):
        return variable if channels == 1 else (variable, channels - 1)

    def expectation(params, shift, x, observed):
        functions = {at(0): lambda x: x - shift, at(last): lambda x: jnp.cos(2 * x)}
        return circuit.expectation(params, functions, x, observed)

    both = jax.value_and_grad(expectation, 1)
    result, slope = cases.jit(jax.vmap(both, (None, None, 0, 0)))(
        case.params, jnp.float32(0.7), evidence, observed
    )
    values = case.table.values[:, :, -1]
    other = np.cos(2 * values[:, last])
    probs = [case.table.conditional(*p) for p in zip(x, observed, strict=True)]
    expected = np.array(probs) @ ((values[:, 0] - 0.7) * other)
    np.testing.assert_allclose(result, expected, atol=1e-5)
    np.testing.assert_allclose(slope, -np.array(probs) @ other, atol=1e-5)


@pytest.mark.slow
def test_normal_leaves_by_quadrature():
    """On a grid of 0.02, given nothing and given the second variable."""
    case = cases.case("normal-trees")
    circuit, params = case.circuit, case.params
    step = 0.02
    line = np.arange(-8, 8, step)
    grid = np.stack(np.meshgrid(line, line, indexing="ij"), -1).reshape(-1, 2)
    leaf = params.leaves[0]
    params = params._replace(leaves=(leaf._replace(scale_logit=leaf.scale_logit + 1),))
    log_p = case.log_prob(params, np.float32(grid)[..., None])
    joint = np.exp(np.asarray(log_p, np.float64))
    joint /= joint.sum()
    x = jnp.asarray([[np.nan], [line[430]]], jnp.float32)
    given = joint.reshape(len(line), -1)[:, 430]
    given = given / given.sum()
    functions = {0: lambda x: x**3, 1: jnp.sin}

    @cases.jit
    def queries(params, x, observed):
        return (
            circuit.covariance(params),
            circuit.covariance(params, x, observed),
            circuit.expectation(params, functions),
            circuit.expectation(params, functions, x, observed),
            circuit.mean(params),
            circuit.expectation(params, {0: lambda x: x}),
            circuit.expectation(params, {0: lambda x: x, 1: lambda x: x}),
        )

    observed = np.array([False, True])
    covariance, conditional, moment, one, mean, first, product = map(
        np.asarray, queries(params, x, observed)
    )
    away = grid - joint @ grid
    expected = (away * joint[:, None]).T @ away
    np.testing.assert_allclose(covariance.reshape(2, 2), expected, atol=1e-4)
    spread = given @ line**2 - (given @ line) ** 2
    np.testing.assert_allclose(conditional.ravel(), [spread, 0, 0, 0], atol=1e-4)
    np.testing.assert_allclose(
        moment, joint @ (grid[:, 0] ** 3 * np.sin(grid[:, 1])), atol=1e-4
    )
    np.testing.assert_allclose(
        one, given @ line**3 * np.sin(line[430]), rtol=1e-3, atol=1e-4
    )
    # One query by the others.
    np.testing.assert_allclose(first, mean[0, 0], atol=1e-5)
    np.testing.assert_allclose(
        covariance[0, 0, 1, 0], product - mean[0, 0] * mean[1, 0], atol=1e-5
    )


@pytest.mark.slow
def test_the_impossible_has_no_gradients():
    case = cases.case("trees-tucker")
    circuit, params = case.circuit, case.params
    nothing = np.full((4, 1), 7.0, np.float32)  # coins have no 7
    observed = np.array([True, False, False, False])

    @cases.jit
    @jax.value_and_grad
    def total(params):
        functions = {0: lambda x: x, 1: lambda x: x - 0.5}
        own = circuit.expectation(params, functions, nothing, observed)
        return own + jnp.sum(circuit.covariance(params, nothing, observed))

    value, slope = total(params)
    assert value == 0
    for leaf in jax.tree.leaves(slope):
        np.testing.assert_array_equal(leaf, 0)


def test_what_is_refused():
    case = cases.case("trees-tucker")
    circuit, params = case.circuit, case.params
    assert circuit.expectation(params, {}) == 1
    for functions, match in (
        ({4: jnp.sin}, "keys that are variables below .*got 4"),
        ({0: 1.0}, r"functions\[0\] must be a function, got 1.0"),
        ([jnp.sin], "functions must be a Mapping"),
    ):
        with pytest.raises(ValueError, match=match):
            circuit.expectation(params, functions)


@pytest.mark.slow
@pytest.mark.parametrize(("depth", "sum_layer"), [(3, "tucker"), (0, "cp_t")])
def test_impossible_units_beside_unlikely_ones(depth, sum_layer):
    """Evidence of e^-200 and less, under which many units or a tree are impossible."""
    config = pc.CircuitConfig(
        *(pc.RandomBinaryTrees(16, depth, 2), pc.Categorical(4)),
        **{"num_leaves": 3, "num_sums": 3, "sum_layer": sum_layer},
    )
    circuit = pc.build(config)
    params = cases.random_params(circuit, 0)
    leaf = params.leaves[0]
    params = params._replace(leaves=(leaf._replace(logits=30 * leaf.logits),))
    params = cases.with_zeros(circuit, params, 1, 0.3)
    # Under one of the two trees variable 2 is never 0.
    leaf = params.leaves[0]
    found = pc.parameter_rows(circuit).leaves.items()
    _, row, place = next(at for (_, variable), at in found if variable == 2)
    logits = leaf.logits.at[row, :, place, :, 0].set(-jnp.inf)
    params = params._replace(leaves=(leaf._replace(logits=logits),))
    x = np.random.default_rng(0).integers(0, 4, size=(200, 16)).astype(np.float32)
    x[:150, 2] = 0
    observed = np.arange(16) > 1

    @cases.jit
    @functools.partial(jax.vmap, in_axes=(None, 0))
    def queries(params, x):
        first = {0: lambda v: (v == x[0]).astype(v.dtype), 1: jnp.ones_like}
        centered = {0: lambda v: v - 1.5, 1: lambda v: v - 1.5}
        seen = circuit.log_prob(params, x, observed)
        both = circuit.log_prob(params, x, observed.copy() | (np.arange(16) == 0))
        mean = circuit.mean(params, x, observed)[:2, 0] - 1.5
        covariance = circuit.covariance(params, x, observed)[0, 0, 1, 0]
        return (
            *(seen, circuit.expectation(params, first, x, observed), both - seen),
            circuit.expectation(params, centered, x, observed),
            covariance + jnp.prod(mean),
        )

    seen, share, log_share, centered, product = queries(params, x)
    possible = seen > -np.inf
    assert possible[:150].sum() > 10
    assert (seen[possible] < -200).mean() > 0.5
    expected = np.where(possible, np.exp(np.where(possible, log_share, 0)), 0)
    np.testing.assert_allclose(share, expected, rtol=2e-3, atol=1e-5)
    product = np.where(possible, product, 0)
    np.testing.assert_allclose(centered, product, rtol=2e-3, atol=1e-4)


@pytest.mark.slow
def test_great_products_neither_overflow_nor_vanish():
    """The mean of a product of 60 factors of size 1e3 each, in units of 1e3."""
    circuit = pc.build(
        pc.CircuitConfig(
            pc.RandomBinaryTrees(60, 3), pc.Normal(), num_leaves=2, num_sums=2
        )
    )
    params = cases.random_params(circuit, 0)

    @cases.jit
    def pair(params):
        great = circuit.expectation(
            params,
            dict.fromkeys(range(0, 60, 2), lambda x: 1e3 * (x + 3))
            | dict.fromkeys(range(1, 60, 2), lambda x: 1e-3 * (x - 3)),
        )
        plain = circuit.expectation(
            params,
            dict.fromkeys(range(0, 60, 2), lambda x: x + 3)
            | dict.fromkeys(range(1, 60, 2), lambda x: x - 3),
        )
        return great, plain

    great, plain = pair(params)
    assert np.isfinite(plain)
    np.testing.assert_allclose(great, plain, rtol=1e-3)
