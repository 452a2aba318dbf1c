"""Implicit reparametrisation against root finding on the oracle's own integrals."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize

import dspc_jax as pc
from dspc_jax.sampling import implicit
from tests import cases, oracles

CONFIGS = {
    "trees": cases.NORMAL["normal-trees"],
    "channels": cases.NORMAL["normal-channels"],
    # Two families, a variable that stands in input regions of two lengths.
    "families": pc.CircuitConfig(
        pc.RandomBinaryTrees(3, 1, 2, seed=1),
        (pc.UnitNormal(0.3, 1.0), pc.UnitNormal(0.1, 2.0), pc.UnitNormal(0.3, 1.0)),
        num_leaves=2,
        num_sums=2,
        num_classes=2,
        sum_layer="tucker",
    ),
}
ORDER = {"trees": [0, 1], "channels": [0, 1], "families": [0, 1, 2]}
_nodes, _weights = np.polynomial.legendre.leggauss(16)
LOW, PIECES = -9.0, 12


def integral(density, low, high):
    """Gauss-Legendre on pieces short against the least deviation of a leaf."""
    edges = np.linspace(low, high, PIECES + 1)
    half = (edges[1:] - edges[:-1])[:, None] / 2
    points = edges[:-1, None] + half * (_nodes + 1)
    return (density(points.ravel()).reshape(points.shape) * _weights * half).sum()


class Conditional:
    """``F(x_d | x_<d)`` by integrating densities of `oracles.Oracle`, in float64."""

    def __init__(self, circuit, params, order, given=()):
        self.oracle = oracles.Oracle(circuit, params)
        self.size = circuit.config.num_channels
        self.order, self.given = order, list(given)

    def density(self, x, d, values):
        """``p(x_d = value, x_<d, given)`` up to a constant, for each value."""
        before = self.order[: self.order.index(d)] + self.given
        if self.size == 1:
            rows = np.repeat(x[None], len(values), axis=0)
            rows[:, d, 0] = values
            observed = np.isin(np.arange(len(x)), [*before, d])
            return np.exp(self.oracle.log_prob(rows, observed))
        if before:
            rows = np.stack([np.full_like(values, x[0, 0]), values], axis=-1)[:, None]
            return np.exp(self.oracle.log_prob(rows))
        # Integrating out the second channel of the only variable.
        grid = np.linspace(LOW, -LOW, 100)
        rows = np.stack(np.meshgrid(values, grid, indexing="ij"), -1)
        rows = rows.reshape(-1, 1, 2)
        joint = np.exp(self.oracle.log_prob(rows)).reshape(len(values), -1)
        return joint.sum(axis=1) * (grid[1] - grid[0])

    def cdf(self, x, d, value):
        density = functools.partial(self.density, x, d)
        return integral(density, LOW, value) / integral(density, LOW, -LOW)

    def uniforms(self, x):
        flat = x.ravel()
        return {d: self.cdf(x, d, flat[d]) for d in self.order}

    def solve(self, x, uniforms):
        """The sample near ``x`` with these conditional distribution functions."""
        x = x.copy()
        for d in self.order:

            def excess(value, d=d):
                return self.cdf(x, d, value) - uniforms[d]

            at = x.ravel()[d]
            x.reshape(-1)[d] = optimize.brentq(excess, at - 0.5, at + 0.5, xtol=1e-13)
        return x


def perturbed(params, direction, size):
    return jax.tree.map(
        lambda p, v: np.asarray(p, np.float64) + size * v, params, direction
    )


@functools.cache
def setting(name):
    circuit = pc.build(CONFIGS[name])
    params = cases.random_params(circuit, seed=4)
    rng = np.random.default_rng(2)
    direction = jax.tree.map(lambda p: rng.normal(size=p.shape), params)
    return circuit, params, direction


def along(jacobian, direction):
    """Directional derivative ``[V, C]`` from a Jacobian's tree."""
    parts = jax.tree.map(
        lambda j, v: np.tensordot(np.asarray(j, np.float64), v, axes=v.ndim),
        jacobian,
        direction,
    )
    return sum(jax.tree.leaves(parts))


def draw(circuit, key, params, **given):
    return circuit.sample_differentiable(key, params, relaxation="implicit", **given)


@pytest.mark.parametrize(
    "name",
    [
        "trees",
        pytest.param("channels", marks=pytest.mark.slow),
        pytest.param("families", marks=pytest.mark.slow),
    ],
)
def test_derivative_of_a_sample(name):
    """With the conditional distribution functions held fixed, in random directions."""
    circuit, params, direction = setting(name)
    keys = cases.fresh_keys(6, 2)
    result = cases.jit(jax.vmap(jax.jacrev(draw, 2), (None, 0, None)), static_argnums=0)
    x = np.asarray(jax.vmap(circuit.sample, (0, None))(keys, params), np.float64)
    jacobian = result(circuit, cases.fresh_keys(6, 2), params)
    for i in range(len(keys)):
        distribution = Conditional(circuit, params, ORDER[name])
        uniforms = distribution.uniforms(x[i])
        step = 1e-4
        up, down = (
            Conditional(
                circuit, perturbed(params, direction, sign * step), ORDER[name]
            ).solve(x[i], uniforms)
            for sign in (1, -1)
        )
        exact = (up - down) / (2 * step)
        ours = along(jax.tree.map(lambda j, i=i: j[i], jacobian), direction)
        np.testing.assert_allclose(ours, exact, rtol=2e-3, atol=2e-3)


@pytest.mark.slow
def test_derivative_given_an_observed_value():
    """To the parameters and to the observed value; variable 1 is given."""
    circuit, params, direction = setting("families")
    observed = jnp.array([False, True, False])
    evidence = jnp.array([[0.0], [0.7], [0.0]])

    def drawn(params, x):
        return draw(circuit, jax.random.key(3), params, x=x, observed=observed)

    x, (to_params, to_x) = cases.jit(
        lambda p, x: (drawn(p, x), jax.jacrev(drawn, (0, 1))(p, x))
    )(params, evidence)
    x = np.asarray(x, np.float64)
    x[1] = 0.7
    order, step = [0, 2], 1e-4
    uniforms = Conditional(circuit, params, order, [1]).uniforms(x)
    moved = [
        Conditional(circuit, perturbed(params, direction, s), order, [1]).solve(
            x, uniforms
        )
        for s in (step, -step)
    ]
    exact = (moved[0] - moved[1]) / (2 * step)
    ours = along(to_params, direction)
    np.testing.assert_allclose(ours, exact, rtol=2e-3, atol=2e-3)
    shift = np.array([[0.0], [step], [0.0]])
    distribution = Conditional(circuit, params, order, [1])
    moved = [distribution.solve(x + s * shift, uniforms) for s in (1, -1)]
    exact = (moved[0] - moved[1]) / (2 * step)
    np.testing.assert_allclose(to_x[:, :, 1, 0], exact, rtol=2e-3, atol=2e-3)


def test_the_value_is_the_ancestral_sample():
    circuit, params, _ = setting("families")
    observed = jnp.array([False, True, False])
    x = jnp.full((3, 1), 0.25)

    def both(key, x):
        pairs = []
        for evidence in ({}, {"x": x, "observed": observed}):
            hard = circuit.sample(jax.random.clone(key), params, **evidence)
            pairs.append(
                (hard, draw(circuit, jax.random.clone(key), params, **evidence))
            )
        return pairs

    many = cases.jit(jax.vmap(both, (0, None)))
    for hard, ours in many(cases.fresh_keys(1, 50), x):
        np.testing.assert_allclose(hard, ours, rtol=1e-6)


def test_far_tails_keep_their_digits():
    """One Normal leaf: ``dx = dmean + z dscale`` however far out the sample is."""
    config = pc.CircuitConfig(
        pc.RandomBinaryTrees(1, 0, 1, seed=0), pc.UnitNormal(0.5, 1.5), 1, 1, 1
    )
    circuit = pc.build(config)
    params = cases.random_params(circuit, seed=0)
    weights = jax.tree.map(
        jnp.zeros_like, params
    )  # whose leaves nobody reads; the logarithm of one unit's weight is 0
    weights = weights._replace(
        sums=jax.tree.map(jnp.ones_like, params.sums), classes=jnp.ones(1)
    )
    (leaf,) = params.leaves
    scale = 0.5 + jax.nn.sigmoid(leaf.scale_logit.ravel()[0])
    z = jnp.array([-12.0, -5.0, 0.0, 5.0, 12.0])
    x = (leaf.mean.ravel()[0] + z * scale)[:, None, None]

    def total(params):
        out = implicit.reparametrize(circuit.layout, params, weights, x, None)
        return out.ravel()

    jacobian = cases.jit(jax.jacrev(total))(params)
    np.testing.assert_allclose(jacobian.leaves[0].mean.ravel(), np.ones(5), rtol=1e-4)
    by_logit = jax.grad(lambda a: 0.5 + jax.nn.sigmoid(a))(leaf.scale_logit.ravel()[0])
    np.testing.assert_allclose(
        jacobian.leaves[0].scale_logit.ravel(), z * by_logit, rtol=1e-4, atol=1e-5
    )


def test_bad_input():
    def config(num_variables, leaf):
        return pc.CircuitConfig(
            pc.RandomBinaryTrees(num_variables, 1, 1, seed=0), leaf, 2, 2, 2
        )

    for bad, words in (
        (config(33, pc.UnitNormal()), "more than 64 variables .* got 66"),
        (config(2, pc.Bernoulli()), "without leaves that have .* got Bernoulli"),
    ):
        circuit = pc.build(bad)
        params = cases.random_params(circuit, seed=0)
        with pytest.raises(
            ValueError, match=f"relaxation must not be 'implicit'.*{words}"
        ):
            draw(circuit, jax.random.key(0), params)
    circuit, params, _ = setting("trees")
    with pytest.raises(ValueError, match="leaf_mode must be 'sample' with .*'mean'"):
        draw(circuit, jax.random.key(0), params, leaf_mode="mean")
