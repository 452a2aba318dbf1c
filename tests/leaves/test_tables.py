"""A table with a column for each family of unbounded, positive or binned values.

One circuit, so that each query compiles once; `tests.leaves.families` has the families
one by one.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import optimize, special, stats

import dspc_jax as pc
from tests import cases
from tests.leaves.families import EDGES, UNIFORM, Inflated, draw
from tests.leaves.own_leaf import Duration

COLUMNS = (
    *(pc.Poisson(), pc.NegativeBinomial(2.0), pc.NegativeBinomial(7.5), pc.Geometric()),
    *(pc.ZeroInflated(pc.Poisson()), pc.LogNormal(), pc.Gamma(), pc.Gamma(0.01)),
    *(pc.ZeroInflated(pc.Gamma()), pc.Histogram(EDGES), Duration()),
    *(pc.GammaPoisson(), pc.Laplace()),
)
V = len(COLUMNS)
FITTABLE = V - 1  # all but the last
IMPOSSIBLE = dict(enumerate([-1, 0.5, -3, 1.5, -1, 0, -2, 0, -1, 3, -1, -1]))


@functools.cache
def model(num_columns=V):
    structure = pc.RandomBinaryTrees(num_columns, 1, 1)
    circuit = pc.build(pc.CircuitConfig(structure, COLUMNS[:num_columns], 1, 2, 2, 2))
    return circuit, cases.random_params(circuit, seed=1)


@functools.cache
def data(count=64):
    """Possible values, by NumPy."""
    rng = np.random.default_rng(0)
    x = [
        rng.poisson(2, count) if leaf.integer else rng.gamma(2, 0.5, count)
        for leaf in COLUMNS
    ]
    x[4][rng.random(count) < 0.3] = x[8][rng.random(count) < 0.3] = 0
    x[9] = rng.uniform(EDGES[0], EDGES[-1], count)
    return np.float32(x).T[..., None]


@pytest.mark.slow
def test_gamma_poisson_leaves_are_fitted_by_em_and_by_moments():
    """The maximum is SciPy's; the moments are those that were asked for."""
    leaf = pc.GammaPoisson()
    circuit = pc.build(pc.CircuitConfig(pc.RandomBinaryTrees(1, 0, 1), leaf, 1, 1, 1))
    x = stats.nbinom(2.0, 0.2).ppf((np.arange(400) + 0.5) / 400)[:, None]
    params = circuit.init(jax.random.key(0), x)
    optimizer = pc.em(circuit)
    options = {"optimizer": optimizer, "num_steps": 300, "batch_size": len(x)}
    params, _ = pc.fit(circuit, params, x, key=jax.random.key(1), **options)
    log_mean, dispersion = (
        np.ravel(a)[0]
        for a in (params.leaves[0].log_mean, 1 / leaf.shape(params.leaves[0]))
    )

    def loss(free):
        r, mean = np.exp(free)
        return -stats.nbinom.logpmf(x, r, r / (r + mean)).sum()

    best = optimize.minimize(loss, [0.0, 1.0], method="Nelder-Mead", tol=1e-8).x
    np.testing.assert_allclose(log_mean, best[1], rtol=1e-3)
    np.testing.assert_allclose(1 / dispersion, np.exp(best[0]), rtol=2e-2)
    made = leaf.from_moments(jnp.float32([5.0, 8.0, 3.0]), jnp.float32([3.0, 6.0, 1.0]))
    mean, std = leaf.moments(made)
    np.testing.assert_allclose(mean, [5, 8, 3], rtol=1e-4)
    np.testing.assert_allclose(std, [3, 6, np.sqrt(3 + 9e-3)], rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("other", [pc.Gamma(), pc.LogNormal()], ids=repr)
def test_zero_inflated_densities(other):
    """As many zeros as there should be; the gradients of two moments are unbiased."""
    leaf = pc.ZeroInflated(other)
    params = leaf.from_moments(*jnp.float32([[1.0, 2.0], [0.6, 0.9]]))
    params = params._replace(logit=jnp.float32([-1.0, 0.5]))

    @cases.jit
    def gradients(params):
        def drawn(params):
            x = draw(leaf, params, UNIFORM)
            return jnp.mean(x, axis=1).sum(), jnp.mean(x**2, axis=1).sum()

        def exact(params):
            mean, std = leaf.moments(params)
            return mean.sum(), (mean**2 + std**2).sum()

        zeros = jnp.mean(draw(leaf, params, UNIFORM) == 0, axis=1)
        return zeros, *(jax.jacrev(f)(params) for f in (drawn, exact))

    zeros, drawn, exact = gradients(params)
    np.testing.assert_allclose(zeros, special.expit(params.logit), atol=3e-4)
    for a, b in zip(*map(jax.tree.leaves, (drawn, exact)), strict=True):
        np.testing.assert_allclose(a, b, atol=5e-3 * max(1, np.abs(b).max()))


@pytest.mark.slow
def test_samples_are_possible():
    circuit, params = model()
    x = cases.jit(jax.vmap(circuit.sample, (0, None)))(cases.fresh_keys(0, 64), params)
    pc.check(circuit, x)
    log_prob = cases.jit(jax.vmap(circuit.log_prob, (None, 0)))
    assert np.isfinite(log_prob(params, x)).all()
    assert (x[:, [4, 8]] == 0).any(axis=0).all()  # some are zeros of the inflation


def test_likelihoods_are_those_of_scipy():
    """Of one unit a circuit is a product of leaves; two of a family share arrays."""
    structure = pc.RandomBinaryTrees(V, 0, 1)
    circuit = pc.build(pc.CircuitConfig(structure, COLUMNS, 1, 1, 1))
    params = cases.random_params(circuit, seed=2)
    x = data()
    expected = np.zeros(len(x))
    for block, own in zip(circuit.layout.blocks, params.leaves, strict=True):
        for place, v in enumerate(block.variables):
            each = [np.asarray(a, float)[0, 0, place, 0] for a in jax.tree.leaves(own)]
            expected += column_log_prob(COLUMNS[v], each, x[:, v, 0].astype(float))
    result = cases.jit(jax.vmap(circuit.log_prob, (None, 0)))(params, x)
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=2e-3)


def column_log_prob(leaf, params, x):
    """By SciPy, with parameters of one leaf."""
    first, *rest = params
    match leaf:
        case pc.Poisson():
            return stats.poisson.logpmf(x, np.exp(first))
        case pc.NegativeBinomial(concentration=r):
            return stats.nbinom.logpmf(x, r, r / (r + np.exp(first)))
        case pc.GammaPoisson(min_dispersion=least):
            r = 1 / (least + np.exp(rest[0]))
            return stats.nbinom.logpmf(x, r, r / (r + np.exp(first)))
        case pc.ZeroInflated(leaf=pc.Poisson()):
            other = stats.poisson(np.exp(rest[0]))
            return Inflated(special.expit(first), other).logpmf(x)
        case pc.ZeroInflated(leaf=other):
            log_rest = special.log_expit(-first)
            rest = log_rest + column_log_prob(other, rest, np.where(x == 0, 1.0, x))
            return np.where(x == 0, special.log_expit(first), rest)
        case pc.LogNormal(min_scale=least):
            scale = least + np.exp(rest[0])
            return stats.lognorm.logpdf(x, scale, scale=np.exp(first))
        case pc.Gamma(min_dispersion=least):
            dispersion = least + np.exp(rest[0])
            mean = np.exp(first)
            return stats.gamma.logpdf(x, 1 / dispersion, scale=mean * dispersion)
        case pc.Histogram():
            masses = special.softmax(first)
            return stats.rv_histogram((masses, np.array(EDGES)), density=False).logpdf(
                x
            )
        case pc.Laplace(min_scale=least):
            return stats.laplace.logpdf(x, first, least + np.exp(rest[0]))
    return stats.expon.logpdf(x, scale=np.exp(first))


@pytest.mark.slow
def test_impossible_and_missing_values():
    """The one has probability 0 and no gradient; the other is NaN in its row alone."""
    circuit, params = model()
    slopes = cases.jit(
        jax.vmap(jax.value_and_grad(circuit.log_prob, (0, 1)), (None, 0, 0))
    )
    x = np.repeat(data()[:1], V + len(IMPOSSIBLE), axis=0)
    x[np.arange(V), np.arange(V)] = np.nan
    rows = np.arange(V, len(x))
    x[rows, list(IMPOSSIBLE), 0] = list(IMPOSSIBLE.values())
    seen = np.ones(x.shape[:2], bool)
    log_p, gradients = slopes(params, x, seen)
    assert np.isnan(log_p[:V]).all()
    assert np.isneginf(log_p[rows]).all()
    for gradient in jax.tree.leaves(gradients):
        np.testing.assert_array_equal(gradient[rows], 0)
    # Not observed, neither matters.
    seen[np.isnan(x[..., 0])] = False
    seen[rows, list(IMPOSSIBLE)] = False
    log_p, gradients = slopes(params, x, seen)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((log_p, gradients)))
    np.testing.assert_array_equal(log_p[rows], log_p[: len(rows)])


@pytest.mark.slow
def test_every_query():
    circuit, params = model()

    def answers(key, x, observed):
        soft = functools.partial(
            circuit.sample_differentiable, x=x, observed=observed, temperature=0.7
        )

        def total(params):
            draws = [
                soft(jax.random.clone(key), params, relaxation=relaxation)
                for relaxation in ("gumbel_softmax", "straight_through")
            ]
            return jnp.sum(jnp.stack(draws)), draws

        gradient, draws = jax.grad(total, has_aux=True)(params)
        exact = (
            circuit.sample(jax.random.clone(key), params, x, observed),
            circuit.mpe(params, x, observed),
            circuit.mean(params, x, observed),
        )
        return (*exact, *draws), gradient

    x = data(16)
    observed = np.random.default_rng(0).random((16, V)) < 0.4
    keys = cases.fresh_keys(3, 16)
    draws, gradient = cases.jit(jax.vmap(answers))(keys, x, observed)
    for values in draws:
        assert np.isfinite(values).all()
        np.testing.assert_array_equal(values[observed], x[observed])
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    for exact in draws[:2]:
        pc.check(circuit, exact)
    log_prob = cases.jit(jax.vmap(circuit.log_prob, (None, 0)))
    assert np.isfinite(log_prob(params, draws[1])).all()


@pytest.mark.slow
def test_implicit_gradients_of_samples():
    """The mean over many samples is the gradient of the exact mean."""
    leaves = (pc.Gamma(0.01), pc.LogNormal(0.2), pc.Laplace(0.2), Duration())
    structure = pc.RandomBinaryTrees(len(leaves), 1, 1)
    circuit = pc.build(pc.CircuitConfig(structure, leaves, 1, 2, 2))
    params = jax.tree.map(lambda a: 0.5 * a, cases.random_params(circuit, seed=1))

    def drawn(params, key):
        x = circuit.sample_differentiable(key, params, relaxation="implicit")
        return jnp.sum(jnp.where(x < 1e3, x, 0.0))

    each = cases.jit(jax.vmap(jax.grad(drawn), (None, 0)))
    gradients = each(params, cases.fresh_keys(5, 20_000))
    exact = cases.jit(jax.grad(lambda p: jnp.sum(circuit.mean(p))))(params)
    for many, one in zip(
        jax.tree.leaves(gradients), jax.tree.leaves(exact), strict=True
    ):
        error = many.std(axis=0) / np.sqrt(len(many))
        assert (np.abs(many.mean(axis=0) - one) < 5 * error + 1e-3).all()


@pytest.mark.slow
@pytest.mark.parametrize("method", ["examples", "distill"])
def test_starts(method):
    """From data with missing values; hidden ones do not matter, and units do not."""
    circuit, _ = model()
    x = data().copy()
    x[:, np.arange(V) != 9] *= 20  # all but the bins
    observed = np.random.default_rng(0).random(x.shape[:2]) < 0.7
    observed[:, 3] = False
    start = circuit.init(jax.random.key(0), x, observed, method=method)
    x[~observed] = np.nan
    again = circuit.init(jax.random.key(0), x, observed, method=method)
    jax.tree.map(np.testing.assert_array_equal, start, again)
    log_prob = cases.jit(jax.vmap(circuit.log_prob, (None, 0, 0)))
    log_p = log_prob(start, x, observed)
    assert np.isfinite(log_p).all()
    random = log_prob(circuit.init(jax.random.key(1)), x, observed)
    assert log_p.mean() > random.mean()


@pytest.mark.slow
@pytest.mark.optax
def test_em():
    """The likelihood never falls; leaves without an M-step are refused by name."""
    with pytest.raises(ValueError, match=r"M-step for EM, got Laplace"):
        pc.em(model()[0])
    circuit, params = model(FITTABLE)
    x = jnp.asarray(data()[:, :FITTABLE])
    optimizer = pc.em(circuit)

    @cases.jit
    def run(params):
        def step(params, _):
            counts = pc.expected_counts(circuit, params, x)
            change, _ = optimizer.update(counts, optax.EmptyState(), params)
            log_p = jnp.mean(jax.vmap(circuit.log_prob, (None, 0))(params, x))
            return optax.apply_updates(params, change), log_p

        return jax.lax.scan(step, params, length=12)

    params, log_p = run(params)
    assert (np.diff(log_p) >= -1e-4).all(), log_p
    assert log_p[-1] > log_p[0] + 1
    assert all(
        np.isfinite(leaf[leaf > -np.inf]).all() for leaf in jax.tree.leaves(params)
    )


@pytest.mark.slow
def test_types_of_parameters():
    """In bfloat16 as rounded in float32; in float64 as in float32 to its digits."""
    circuit, params = model()
    x = data(16)
    log_prob = cases.jit(jax.vmap(circuit.log_prob, (None, 0)))
    short = jax.tree.map(lambda a: jnp.asarray(a).astype(jnp.bfloat16), params)
    rounded = jax.tree.map(lambda a: a.astype(jnp.float32), short)
    np.testing.assert_allclose(log_prob(short, x), log_prob(rounded, x), rtol=1e-6)
    near = log_prob(params, x)
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda a: np.asarray(a, np.float64), params)
        result = log_prob(wide, x.astype(np.float64))
    assert result.dtype == np.float64
    np.testing.assert_allclose(near, result, rtol=1e-5, atol=1e-3)


def test_files(tmp_path):
    circuit, params = model()
    pc.save(tmp_path / "table", circuit.config, params)
    config, loaded = pc.load(tmp_path / "table")
    assert config == circuit.config
    jax.tree.map(np.testing.assert_array_equal, loaded, params)
