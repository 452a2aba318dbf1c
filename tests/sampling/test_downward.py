"""Hard samplers against the enumerated law, and the laws of differentiable sampling.

Every statistical test fixes its keys, takes its threshold from the number of samples
(through the p-value) and has a negative control: the same samples against the law of
nearby parameters.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import dspc_jax as pc
from tests import cases, oracles

NUM_SAMPLES = 8000
# The keys are fixed, so a right sampler passes for ever; 40 tests of this kind would
# reject it once in 250 sets of keys.
ALPHA = 1e-4
# The negative control must be rejected far beyond any doubt.
CERTAIN = 1e-9

discrete = pytest.mark.parametrize("name", cases.parameters(cases.DISCRETE))


def other_table(case: cases.Case) -> oracles.Table:
    """The law of parameters 0.4 off, the negative control."""
    return oracles.tabulate(case.circuit, cases.randomize(case.params, 9, scale=0.4))


@discrete
def test_samples_follow_the_law(name):
    case, table = cases.case(name), cases.case(name).table
    samples = np.asarray(case.sample(cases.fresh_keys(0, NUM_SAMPLES), case.params))
    assert oracles.law_p_value(table, samples, table.probs) > ALPHA
    wrong = other_table(case).probs
    assert oracles.law_p_value(table, samples, wrong) < CERTAIN


def evidence_of(case: cases.Case, count: int = 4):
    """Values and masks that observe something and hide something."""
    rng = np.random.default_rng(3)
    num_variables = case.config.structure.num_variables
    some = cases.masks(num_variables)[1:-1]
    if num_variables == 1:
        some = cases.masks(1)  # all or nothing
    observed = some[rng.permutation(len(some))[:count]]
    x = case.table.values[rng.integers(len(case.table.values), size=len(observed))]
    return x, observed


@discrete
def test_conditional_samples_follow_the_conditional_law(name):
    case, table = cases.case(name), cases.case(name).table
    x, observed = evidence_of(case)
    each = NUM_SAMPLES // len(x)
    condition = np.where(observed[..., None], x, np.nan).astype(np.float32)
    samples = case.conditional(
        cases.fresh_keys(1, each * len(x)),
        case.params,
        condition.repeat(each, axis=0),
        observed.repeat(each, axis=0),
    )
    samples = np.asarray(samples).reshape(len(x), each, *x.shape[1:])
    other, rejected = other_table(case), []
    for a, o, drawn in zip(x, observed, samples, strict=True):
        # Observed values come back as they were given.
        assert (drawn[:, o] == a[o]).all()
        law = table.conditional(a, o)
        assert oracles.law_p_value(table, drawn, law) > ALPHA
        wrong = other.conditional(a, o)
        rejected.append(oracles.law_p_value(table, drawn, wrong))
    assert min(rejected) < CERTAIN


@pytest.mark.parametrize("name", cases.parameters(cases.NORMAL, ("normal-trees",)))
def test_normal_samples_by_their_marginals(name):
    """Kolmogorov-Smirnov of each coordinate against the marginal by enumeration."""
    case = cases.case(name)
    samples = np.asarray(case.sample(cases.fresh_keys(2, NUM_SAMPLES), case.params))
    samples = samples.reshape(NUM_SAMPLES, -1)
    for params, accepted in (
        (case.params, True),
        (cases.randomize(case.params, 9), False),
    ):
        for axis in range(samples.shape[1]):
            cdf = normal_cdf(case, params, axis)
            statistic = stats.kstest(samples[:, axis], cdf)
            assert bool(statistic.pvalue > ALPHA) is accepted


def normal_cdf(case, params, axis):
    """The distribution function of a coordinate, by trapezoids on a fine grid."""
    oracle = oracles.Oracle(case.circuit, params)
    grid = np.linspace(-8, 8, 8001)
    num_variables, channels = (
        case.config.structure.num_variables,
        case.config.num_channels,
    )
    if channels == 1:
        x = np.tile(grid[:, None, None], (1, num_variables, 1))
        density = oracle.log_prob(x, np.arange(num_variables) == axis)
        density = np.exp(density)
    else:  # sum the other channel out on a coarse grid
        points, other = grid[::20], np.linspace(-8, 8, 201)
        pairs = np.stack(np.meshgrid(points, other, indexing="ij"), -1)
        pairs = pairs[..., ::-1] if axis == 1 else pairs
        density = np.exp(oracle.log_prob(pairs.reshape(-1, 1, 2)))
        density = density.reshape(len(points), len(other)).sum(axis=1)
        density = np.interp(grid, points, density)
    cdf = np.cumsum(density)
    return lambda x: np.interp(x, grid, cdf / cdf[-1])


def test_leaf_means():
    """``leaf_mode="mean"`` draws the path and shows the mean of its leaves."""
    case = cases.case("channels")

    def both(key):
        mean = case.circuit.sample(jax.random.clone(key), case.params, leaf_mode="mean")
        return mean, case.circuit.sample(key, case.params)

    means, samples = jax.jit(jax.vmap(both))(cases.fresh_keys(4, NUM_SAMPLES))
    means, samples = np.asarray(means), np.asarray(samples)
    possible = 2 * jax.nn.sigmoid(case.params.leaves[0].logits)
    for variable in range(3):
        for channel in range(2):
            result = np.unique(means[:, variable, channel].round(5))
            assert 1 < len(result) <= 2  # units of the one region of this variable
            assert np.isin(result, np.asarray(possible).round(5)).all()
    # Equal in mean: the leaf noise has deviation below sqrt(2)/2.
    error = (means - samples).mean(axis=0)
    assert (np.abs(error) < 5 * 0.71 / np.sqrt(NUM_SAMPLES)).all()


IMAGES = pc.CircuitConfig(
    structure=pc.RandomBinaryTrees(6, 1, 2, seed=2),
    leaf=pc.UnitNormal(min_scale=0.01, max_scale=0.02),
    num_leaves=2,
    num_sums=2,
    num_classes=2,
    sum_layer="cp_t",
)


def two_images(by: str):
    """Two repetitions, or two classes: all pixels near 0, or all near 1."""
    case = cases.compiled(IMAGES)
    params = case.params._replace(
        classes=jnp.zeros(2), mixtures=(jnp.zeros_like(case.params.mixtures[0]),)
    )
    (leaf,) = params.leaves
    if by == "class":  # class 0 uses the dark units only, class 1 the bright ones
        bright = jnp.arange(2.0)[None, :, None, None]
        ((sums,),) = params.sums
        own = jnp.broadcast_to(jnp.log(jnp.eye(2)), sums.shape)
        params = params._replace(sums=((own,),))
    else:
        bright = (jnp.arange(leaf.mean.shape[0]) % 2).astype(jnp.float32)
        bright = bright[:, None, None, None]
    mean = jnp.broadcast_to(bright, leaf.mean.shape)
    return case, params._replace(leaves=(leaf._replace(mean=mean),))


@pytest.mark.parametrize(
    "by", [pytest.param("repetition", marks=pytest.mark.slow), "class"]
)
def test_evidence_reaches_the_root(by):
    """Law 3: given one bright pixel, all of 200 samples are bright, hard and soft."""
    case, params = two_images(by)
    x = jnp.full((6, 1), jnp.nan).at[3].set(1.0)
    observed = jnp.arange(6) == 3
    xs, masks = jnp.tile(x, (200, 1, 1)), jnp.tile(observed, (200, 1))
    keys = cases.fresh_keys
    soft = case.soft(keys(0, 200), params, 0.5, cases.RELAXATIONS, xs, masks)
    for relaxation in cases.RELAXATIONS:
        np.testing.assert_allclose(soft[relaxation], 1, atol=0.2)
    hard = case.conditional(keys(1, 200), params, xs, masks)
    np.testing.assert_allclose(hard, 1, atol=0.2)
    # Without evidence both happen, or nothing would have been shown.
    share = float((case.sample(keys(2, 200), params) > 0.5).mean())
    assert 0.2 < share < 0.8
    np.testing.assert_allclose(case.mpe(params, xs, masks), 1, atol=0.2)


def test_repetitions_do_not_leak():
    """Law 2: with leaves of repetition r at r, all pixels show the same sum m_r r."""
    config = pc.CircuitConfig(
        structure=pc.RandomBinaryTrees(8, 2, 3, seed=1),
        leaf=pc.UnitNormal(min_scale=1e-6, max_scale=2e-6),
        num_leaves=3,
        num_sums=2,
        sum_layer="tucker",
    )
    case = cases.compiled(config)
    # Found from the region graph alone: regions are numbered tree by tree.
    graph = config.structure.region_graph()
    regions = [r for r in range(len(graph.scopes)) if not graph.partitions_of[r]]
    place = oracles.locate(graph, case.circuit.layout.graph).regions
    value = np.zeros(len(regions), np.float32)
    for number, region in enumerate(regions):
        value[place[region][1]] = number // (len(regions) // 3)
    (leaf,) = case.params.leaves
    mean = jnp.broadcast_to(jnp.asarray(value)[:, None, None, None], leaf.mean.shape)
    params = case.params._replace(leaves=(leaf._replace(mean=mean),))
    soft = case.soft(cases.fresh_keys(0, 300), params, 1.0, cases.SOFT)
    for relaxation in cases.SOFT:  # those that are hard are ancestral, see below
        samples = np.asarray(soft[relaxation])[..., 0]
        # Deviations are below 2e-6 and the noise below 5.5.
        np.testing.assert_allclose(samples, samples[:, :1] * np.ones(8), atol=3e-5)
        off = np.abs(samples[:, 0] - samples[:, 0].round())
        assert (off > 0.05).mean() > 0.3  # they are blends indeed
        assert set(samples[:, 0].round()) == {0.0, 1.0, 2.0}


# In every run the smallest; a graph with everything and leaves of every kind by name.
LAWS = cases.parameters(
    ["trees-tucker", "quad-2x3", "nested", "mixed"],
    ("nested", "quad-2x3", "mixed"),
)


def agreement(a, b) -> float:
    """Share of samples that are the same."""
    return np.isclose(a, b, atol=1e-3).all(axis=(1, 2)).mean()


@pytest.mark.parametrize("name", LAWS)
def test_cold_samples_are_ancestral(name):
    """Law 1: draw for draw with the same keys."""
    case = cases.case(name)
    hard = np.asarray(case.sample(cases.fresh_keys(5, NUM_SAMPLES), case.params))
    keys = cases.fresh_keys
    cold = case.soft(keys(5, NUM_SAMPLES), case.params, 1e-4, cases.RELAXATIONS)
    for relaxation in cases.RELAXATIONS:
        # At 1e-4 two alternatives within 1e-3 of each other still mix.
        least = 1 - 1e-2 if relaxation in cases.SOFT else 1
        assert agreement(cold[relaxation], hard) >= least
    other = case.soft(keys(6, NUM_SAMPLES), case.params, 1e-4, cases.RELAXATIONS)
    assert agreement(other["gumbel_softmax"], hard) < 0.6


@pytest.mark.parametrize(
    "name", [*LAWS, pytest.param("normal-trees", marks=pytest.mark.slow)]
)
def test_hard_forward_values_are_ancestral_samples(name):
    """Law 4 at a training temperature; what is soft is soft there, in the support."""
    case = cases.case(name)
    hard = np.asarray(case.sample(cases.fresh_keys(7, NUM_SAMPLES), case.params))
    keys = cases.fresh_keys(7, NUM_SAMPLES)
    warm = case.soft(keys, case.params, 0.7, cases.RELAXATIONS)
    for relaxation in cases.HARD:
        np.testing.assert_allclose(warm[relaxation], hard, atol=1e-6)
    low, high = np.array([leaf.support for leaf in case.config.leaves]).T
    for relaxation in cases.SOFT:
        samples = np.asarray(warm[relaxation])
        assert agreement(samples, hard) < 0.9
        assert (samples >= low[:, None] - 1e-5).all()
        assert (samples <= high[:, None] + 1e-5).all()


@pytest.mark.parametrize(
    "name", cases.parameters(["trees-tucker", "nested"], ["nested"])
)
def test_conditional_soft_samples(name):
    """Laws 1 and 4 with evidence; what is observed comes back as it was given."""
    case = cases.case(name)
    x, observed = (a.repeat(NUM_SAMPLES // 4, axis=0) for a in evidence_of(case))
    condition = np.where(observed[..., None], x, np.nan).astype(np.float32)
    keys = cases.fresh_keys
    hard = case.conditional(keys(8, NUM_SAMPLES), case.params, condition, observed)
    for temperature in (1e-4, 0.7):
        evidence = cases.RELAXATIONS, condition, observed
        soft = case.soft(keys(8, NUM_SAMPLES), case.params, temperature, *evidence)
        for relaxation in cases.HARD:
            np.testing.assert_allclose(soft[relaxation], hard, atol=1e-6)
        for relaxation in cases.SOFT:
            samples = np.asarray(soft[relaxation])
            assert np.isfinite(samples).all()
            assert (samples[observed] == x[observed]).all()
            agree = agreement(samples, hard)
            assert agree > 1 - 1e-2 if temperature < 0.1 else agree < 0.9


def test_one_trace_for_all_temperatures_and_keys():
    """Law 6."""
    case = cases.case("channels")
    circuit, params = case.circuit, case.params
    traces = []

    @jax.jit
    def gradient(params, key, temperature):
        traces.append(None)

        def total(params, temperature):
            return jnp.sum(
                circuit.sample_differentiable(key, params, temperature=temperature)
            )

        return jax.grad(total, (0, 1))(params, temperature)

    visible = [
        gradient(params, jax.random.key(seed), jnp.float32(t))[1]
        for seed, t in [(0, 0.1), (1, 0.5), (2, 1.0)]
    ]
    assert len(traces) == 1
    assert np.isfinite(visible).all()
    assert len(set(np.asarray(visible).tolist())) == 3


@pytest.mark.parametrize(
    "relaxations",
    [
        pytest.param(("simple",), marks=pytest.mark.slow),
        pytest.param(("gumbel_softmax", "dense"), marks=pytest.mark.slow),
    ],
    ids="-".join,
)
def test_forbidden_parts_that_explain_the_evidence_better(relaxations):
    """Weights 0 in sums and mixtures, where the forbidden leads by thousands of nats.

    Repetition 0 and all units 0 fit the evidence, and are forbidden; what is left is
    dark. Finite gradients, and every sampler stays with what is allowed.
    """
    config = pc.CircuitConfig(
        pc.RandomBinaryTrees(8, 1, 2),
        pc.UnitNormal(min_scale=0.01, max_scale=0.02),
        num_leaves=2,
        num_sums=2,
        sum_layer="tucker",
    )
    case = cases.compiled(config)
    params = case.params
    (leaf,) = params.leaves
    mean = jnp.broadcast_to(jnp.array([1.0, 0.0])[None, :, None, None], leaf.mean.shape)
    ((sums,),) = params.sums
    sums = sums.at[:, :, 0].set(-jnp.inf).at[:, :, :, 0].set(-jnp.inf)
    params = params._replace(
        leaves=(leaf._replace(mean=mean),),
        sums=((sums,),),
        mixtures=(params.mixtures[0].at[..., 0].set(-jnp.inf),),
    )
    x, observed = jnp.ones((8, 1)), jnp.arange(8) < 6

    @cases.jit
    def answers(keys):
        def soft(params, temperature, relaxation):
            options: Any = {"relaxation": relaxation, "temperature": temperature}

            def draw(key):
                return case.circuit.sample_differentiable(
                    key, params, x=x, observed=observed, **options
                )

            out = jax.vmap(draw)(jax.random.clone(keys))
            return jnp.sum(out), out

        drawn = [
            jax.grad(soft, (0, 1), has_aux=True)(params, jnp.float32(1), relaxation)
            for relaxation in relaxations
        ]
        gradients, values = zip(*drawn, strict=True)
        hard = jax.vmap(case.circuit.sample, (0, None, None, None))
        return gradients, (hard(keys, params, x, observed), *values)

    gradients, values = answers(cases.fresh_keys(0, 50))
    for drawn in values:
        np.testing.assert_allclose(drawn[:, 6:], 0, atol=0.2)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradients))
