"""Expected kernels against sums over mixture components and against samples."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import dspc_jax as pc
from dspc_jax.objectives import (
    exact_mmd_loss,
    gaussian_kernel,
    mmd2_unbiased,
)
from dspc_jax.objectives.expected_kernels import log_expected_kernel, log_mean_kernel
from tests import cases

CASES = {
    "mixture": pc.CircuitConfig(
        pc.RandomBinaryTrees(num_variables=2, depth=0), pc.UnitNormal(), num_leaves=3
    ),
    "tree": pc.CircuitConfig(
        pc.RandomBinaryTrees(num_variables=5, depth=2),
        pc.UnitNormal(max_scale=0.5),
        num_leaves=3,
        num_sums=2,
        num_channels=2,
        num_classes=2,
        sum_layer="tucker",
    ),
    "quad tree": pc.CircuitConfig(
        pc.QuadTree(height=3, width=2), pc.UnitNormal(), num_leaves=3, num_sums=3
    ),
}
BANDWIDTH = 0.7


def build(name):
    circuit = pc.build(CASES[name])
    init = cases.jit(circuit.init)
    return circuit, init(jax.random.key(0)), init(jax.random.key(1))


of_laws = cases.jit(log_expected_kernel, static_argnums=(0, 3))
of_points = cases.jit(log_mean_kernel, static_argnums=(0, 3))


def draw(circuit, params, seed, num):
    keys = jax.random.split(jax.random.key(seed), num)
    return np.asarray(cases.jit(jax.vmap(circuit.sample, (0, None)))(keys, params))


def kernel(x, y, seen):
    """Between paired examples, by NumPy."""
    return np.exp(-np.sum(((x - y) * seen[:, None]) ** 2, (1, 2)) / 2 / BANDWIDTH**2)


def test_a_mixture_is_the_sum_over_its_components():
    circuit, params, other = build("mixture")
    leaf = circuit.config.leaf
    assert isinstance(leaf, pc.Normal)

    def parts(params):
        mean, std = leaf.components(params.leaves[0])
        w = jax.nn.softmax(params.sums[0][0].ravel())
        return np.asarray(w), np.asarray(mean)[0, :, :, 0], np.asarray(std)[0, :, :, 0]

    total = 0.0
    for wp, mp, sp in zip(*parts(params), strict=True):
        for wq, mq, sq in zip(*parts(other), strict=True):
            v = BANDWIDTH**2 + sp**2 + sq**2
            k = BANDWIDTH / np.sqrt(v) * np.exp(-((mp - mq) ** 2) / 2 / v)
            total += wp * wq * np.prod(k)
    result = np.exp(of_laws(circuit, params, other, BANDWIDTH))
    np.testing.assert_allclose(result, total, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "part"),
    [
        pytest.param("mixture", False, marks=pytest.mark.slow),
        pytest.param("tree", True, marks=pytest.mark.slow),
        ("quad tree", False),
    ],
)
def test_against_samples(name, part):
    """Within 5 deviations of the mean of 20,000 pairs; another distribution is not."""
    circuit, params, other = build(name)
    num = circuit.layout.graph.num_variables
    visible = np.arange(num) % 2 == 0 if part else np.ones(num, bool)
    variables = jnp.asarray(visible) if part else None
    x, y = draw(circuit, params, 2, 20_000), draw(circuit, other, 3, 20_000)
    k = kernel(x, y, visible)
    result = np.exp(of_laws(circuit, params, other, BANDWIDTH, variables))
    error = 5 * k.std() / np.sqrt(len(k))
    assert abs(result - k.mean()) < error
    same = np.exp(of_laws(circuit, params, params, BANDWIDTH, variables))
    assert abs(same - k.mean()) > error
    point = y[:1]
    k = kernel(x, point, visible)
    result = np.exp(of_points(circuit, params, point, BANDWIDTH, variables))[0]
    assert abs(result - k.mean()) < 5 * k.std() / np.sqrt(len(k))


@pytest.mark.parametrize("name", cases.parameters(["tree", "quad tree"], ["quad tree"]))
def test_the_sampled_estimate_is_unbiased_for_the_exact_mmd(name):
    circuit, params, other = build(name)
    data = jnp.asarray(draw(circuit, other, 4, 50))

    @cases.jit
    def loss(params, data):
        return exact_mmd_loss(
            params, None, data, circuit=circuit, bandwidths=[0.5, 1.0]
        )

    exact, metrics = loss(params, data)
    assert metrics["mmd2"] == exact
    of_kernel = gaussian_kernel((0.5, 1.0))

    @cases.jit
    @jax.vmap
    def estimate(key):
        keys = jax.random.split(key, 50)
        samples = jax.vmap(circuit.sample, (0, None))(keys, params)
        return mmd2_unbiased(data, samples, of_kernel)

    result = np.asarray(estimate(jax.random.split(jax.random.key(5), 400)))
    assert abs(result.mean() - exact) < 5 * result.std() / 20


def test_patches_are_averaged():
    circuit, params, _ = build("quad tree")
    data = jnp.asarray(draw(circuit, params, 6, 8))
    patches = jnp.array([[1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1]], bool)

    @cases.jit
    def loss(patches):
        return exact_mmd_loss(
            params, None, data, circuit=circuit, bandwidths=[0.5], patches=patches
        )[0]

    np.testing.assert_allclose(
        loss(patches), (loss(patches[:1]) + loss(patches[1:])) / 2, rtol=1e-4, atol=1e-6
    )


@pytest.mark.slow
@pytest.mark.optax
def test_training_moves_a_mixture_onto_its_data():
    """Gradients are finite, and descending them lowers the distance to near 0."""
    circuit, params, other = build("mixture")
    data = jnp.asarray(draw(circuit, other, 7, 200))

    optimizer = optax.adam(0.05)

    def step(state, _):
        params, opt_state = state
        loss, grads = jax.value_and_grad(
            lambda p: exact_mmd_loss(
                p, None, data, circuit=circuit, bandwidths=[0.2, 0.7]
            )[0]
        )(params)
        updates, opt_state = optimizer.update(grads, opt_state)
        return (optax.apply_updates(params, updates), opt_state), loss

    train = cases.jit(lambda state: jax.lax.scan(step, state, None, 200))
    (params, _), losses = train((params, optimizer.init(params)))
    assert all(np.isfinite(np.asarray(p)).all() for p in jax.tree.leaves(params))
    assert losses[-1] < 0.1 * losses[0]


def test_what_has_no_closed_form_is_refused():
    forest = pc.build(
        pc.CircuitConfig(
            pc.RandomBinaryTrees(num_variables=4, depth=1, num_repetitions=2),
            pc.UnitNormal(),
        )
    )
    params = cases.random_params(forest, seed=0)
    with pytest.raises(ValueError, match="one partition of every region"):
        log_expected_kernel(forest, params, params, 1.0)
    counts = pc.build(
        pc.CircuitConfig(pc.RandomBinaryTrees(num_variables=2, depth=0), pc.Bernoulli())
    )
    params = cases.random_params(counts, seed=0)
    with pytest.raises(ValueError, match="must have Normal leaves .* got Bernoulli"):
        log_mean_kernel(counts, params, jnp.zeros((1, 2, 1)), 1.0)
    circuit, params, _ = build("mixture")
    with pytest.raises(ValueError, match="at least 2 points, got 1"):
        exact_mmd_loss(
            params, None, jnp.zeros((1, 2, 1)), circuit=circuit, bandwidths=[1.0]
        )
