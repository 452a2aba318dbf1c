"""Samples and their relaxations for REBAR: distributions, choices, gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from benchmarks import enumeration
import dspc_jax as pc
from dspc_jax import parameters
from dspc_jax.objectives import rebar_surrogate
from dspc_jax.sampling import noise, rebar
from dspc_jax.sampling import path as path_sampling
from tests import cases

COUNT = 4000


def setting(name):
    circuit = pc.build(enumeration.CIRCUITS[name])
    return circuit, enumeration.parameters(circuit)


def flat(tree):
    return [np.asarray(a).reshape(COUNT, -1) for a in jax.tree.leaves(tree)]


@pytest.mark.parametrize(
    "name", ["trees, tucker", pytest.param("trees, cp", marks=pytest.mark.slow)]
)
def test_noise_given_the_choices(name):
    """It leads to the same choices, is distributed like all noise, and differs."""
    circuit, params = setting(name)
    layout = circuit.layout

    @cases.jit
    def both(params, keys):
        weights = parameters.normalize(layout, params)
        drawn = noise.expanded(layout, noise.draw(layout, keys, jnp.float32))
        path = path_sampling.descend(layout, weights, None, drawn)
        evidence = rebar.conditional_noise(path, drawn)
        again = path_sampling.descend(layout, weights, None, evidence)
        return drawn, evidence, path, again

    keys = jax.random.split(jax.random.key(0), COUNT)
    drawn, evidence, path, again = both(params, keys)
    np.testing.assert_array_equal(path.units, again.units)
    np.testing.assert_array_equal(drawn.leaves, evidence.leaves)
    before = np.concatenate(flat(drawn._replace(leaves=())), axis=1)
    after = np.concatenate(flat(evidence._replace(leaves=())), axis=1)
    assert np.abs(before - after).min() < 0.01 < np.abs(before - after).mean()
    # Among up to 40 columns none has a smaller p-value, at this key.
    columns = [stats.kstest(column, "uniform").pvalue for column in after.T]
    assert min(columns) > 1e-3
    # Negative control: without the choices' weights the distribution would be another.
    wrong = cases.jit(rebar.conditional_noise)(
        path._replace(
            choices=jax.tree.map(
                lambda t: t._replace(weights=np.ones_like(t.weights)),
                path.choices,
                is_leaf=lambda node: isinstance(node, path_sampling.PathChoice),
            )
        ),
        drawn,
    )
    wrong = np.concatenate(flat(wrong._replace(leaves=())), axis=1)
    assert min(stats.kstest(column, "uniform").pvalue for column in wrong.T) < 1e-9


def test_the_probability_of_the_choices():
    """Its mean inverse is the number of paths: each is counted once."""
    circuit, params = setting("quad tree")
    draw = cases.jit(
        lambda keys: rebar.draw(circuit.layout, keys, params, 0.5).log_choices
    )
    log_choices = np.asarray(draw(jax.random.split(jax.random.key(1), 40_000)))
    # Quad tree of 2x2 by halves with 2 units: 4 pairs at the root, and for each side.
    num_paths = 4**3
    inverse = np.exp(-log_choices)
    error = inverse.std() / np.sqrt(len(inverse))
    assert abs(inverse.mean() - num_paths) < 4 * error < 0.1 * num_paths
    values = np.unique(np.round(log_choices, 4))
    assert len(values) <= num_paths
    assert np.exp(values).sum() <= 1.01


def test_cold_relaxations_are_the_sample():
    circuit, params = setting("two variables, normal")
    draw = cases.jit(functools.partial(rebar.draw, circuit.layout))
    samples = draw(cases.fresh_keys(2, 500), params, jnp.float32(1e-3))
    sample = cases.jit(jax.vmap(circuit.sample, (0, None)))
    exact = sample(cases.fresh_keys(2, 500), params)
    np.testing.assert_allclose(samples.exact, exact, rtol=1e-5, atol=1e-6)
    for soft in (samples.relaxed, samples.conditional):
        close = np.isclose(soft, exact, rtol=1e-3, atol=1e-3).all(axis=(1, 2))
        assert close.mean() > 0.97  # else a near tie
    warm = draw(cases.fresh_keys(2, 500), params, jnp.float32(1))
    assert np.abs(warm.relaxed - warm.conditional).mean() > 0.05


def test_who_gets_which_gradient():
    """Leaves from the exact sample alone, weights from all the others."""
    circuit, params = setting("two variables, normal")

    def means(params):
        keys = cases.fresh_keys(3, 50)
        return jax.tree.map(jnp.mean, rebar.draw(circuit.layout, keys, params, 0.5))

    jacobian = cases.jit(jax.jacrev(means))(params)
    for name, subject in jacobian._asdict().items():
        leaf, rest = subject.leaves, subject._replace(leaves=())
        sizes = [
            max(float(jnp.abs(a).max()) for a in jax.tree.leaves(part))
            for part in (leaf, rest)
        ]
        assert (sizes[0] > 1e-3) == (name == "exact")
        assert (sizes[1] > 1e-3) == (name != "exact")


def test_the_gradient_of_the_conditional_sample_is_that_of_its_value():
    """Central differences with the noise and the choices held fixed.

    They are fixed as long as no choice changes, which no choice does here.
    """
    circuit, params = setting("two variables, normal")

    def value(params):
        keys = cases.fresh_keys(4, 20)
        return jnp.sum(rebar.draw(circuit.layout, keys, params, 1.0).conditional)

    direction = cases.randomize(params, 5, 1.0)
    direction = jax.tree.map(jnp.subtract, direction, params)
    direction = direction._replace(
        leaves=jax.tree.map(jnp.zeros_like, direction.leaves)
    )
    both = cases.jit(jax.value_and_grad(value))
    _, gradient = both(params)
    slope = sum(
        float(jnp.vdot(g, d))
        for g, d in zip(
            jax.tree.leaves(gradient), jax.tree.leaves(direction), strict=True
        )
    )
    step = 2e-3

    def moved(sign):
        tree = jax.tree.map(lambda p, d: p + sign * step * d, params, direction)
        return both(tree)[0]

    difference = float(moved(1) - moved(-1)) / (2 * step)
    assert abs(slope) > 0.1
    np.testing.assert_allclose(slope, difference, rtol=2e-2)


def test_the_surrogate():
    """Its value is 0, its gradient the formula's."""
    a, b = jnp.asarray([1.0, -2.0]), jnp.asarray([0.5, 0.25])

    def surrogate(w):
        return rebar_surrogate(w, a, b, 3 * w[0], 5 * w[1], control_weight=0.5)

    value, gradient = jax.value_and_grad(surrogate)(jnp.asarray([0.3, 0.7]))
    assert value == 0
    np.testing.assert_allclose(gradient, [1 - 0.25 + 1.5, -2 - 0.125 - 2.5], rtol=1e-6)


def test_graphs_without_a_path_are_refused():
    config = pc.CircuitConfig(cases.NESTED, pc.UnitNormal(), num_leaves=2, num_sums=2)
    with pytest.raises(ValueError, match="layout must be that of a tree, or"):
        rebar.check(pc.build(config).layout)
    rebar.check(setting("trees, cp")[0].layout)


def test_it_is_unbiased_with_any_weight_of_its_control():
    """Normal leaves, by the mean over batches; the score alone is noisier."""
    circuit, params = setting("two variables, normal")
    exact = enumeration.exact_gradients("two variables, normal")
    truth = np.concatenate([np.ravel(a[2]) for a in jax.tree.leaves(exact)])

    def loss(x):
        return jax.vmap(lambda x: enumeration.functions(x, 1.0)[2])(x)

    def surrogate(params, keys, control_weight):
        s = rebar.draw(circuit.layout, keys, params, 0.5)
        f, g, h = (loss(x) for x in (s.exact, s.relaxed, s.conditional))
        one, other = ((v - v.mean()) / (len(v) - 1) for v in (f, h))
        value = rebar_surrogate(
            s.log_choices, one, other, g.mean(), h.mean(), control_weight=control_weight
        )
        return f.mean() + value

    @cases.jit
    def batches(params, keys, control_weight):
        gradient = jax.grad(surrogate)
        tree = jax.lax.map(lambda k: gradient(params, k, control_weight), keys)
        return jnp.concatenate(
            [a.reshape(len(keys), -1) for a in jax.tree.leaves(tree)], axis=1
        )

    spreads = []
    for number, weight in enumerate((0.0, 0.5, 1.0)):
        keys = jax.random.split(jax.random.key(number), (40, 1000))
        result = np.asarray(batches(params, keys, jnp.float32(weight)), np.float64)
        spreads.append(result.var(axis=0, ddof=1).sum())
        error = np.sqrt(spreads[-1] / len(result)) / np.linalg.norm(truth)
        off = np.linalg.norm(result.mean(axis=0) - truth) / np.linalg.norm(truth)
        # 12 parameters and more: the norm of the error concentrates at its deviation.
        assert off < 2 * error < 0.1
    assert min(spreads[1:]) < spreads[0]
