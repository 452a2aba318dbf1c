"""Probabilities of intervals and sets, by enumeration and by distribution functions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

import dspc_jax as pc
from dspc_jax.leaves import integrals
from tests import cases

EXACT = (
    *("trees-tucker", "odd-trees-cp", "depth-0", "channels"),
    *("quad-3x3", "quad-2x3", "shared", "nested", "mixed"),
)


@pytest.mark.parametrize("name", cases.parameters(EXACT))
def test_events_are_sums_of_the_table(name):
    """Intervals and sets, with evidence; unbounded ones; sets of one value."""
    case = cases.case(name)
    circuit, table = case.circuit, case.table
    rng = np.random.default_rng(0)
    shape = table.values.shape[1:]
    most = int(max(leaf.support[1] for leaf in case.config.leaves)) + 1
    count = 12
    x = table.values[rng.integers(len(table.values), size=count)]
    observed = rng.random((count, shape[0])) < 0.3
    low = rng.integers(-1, 2, size=(count, *shape)) - 0.5
    high = low + rng.integers(1, 4, size=low.shape)
    low[0], high[0] = -np.inf, np.inf
    allowed = rng.random((count, *shape, most)) < 0.8
    allowed[:2] = True
    low[2], high[2], observed[2] = -np.inf, np.inf, False
    allowed[2] = np.arange(most) == x[2][..., None]

    def queries(params, low, high, allowed, x, observed):
        event = pc.Event(low, high, allowed)
        joint = circuit.event_log_prob(params, event, x, observed)
        return joint, joint - circuit.log_prob(params, x, observed)

    evidence = np.where(observed[..., None], x, np.nan)
    joint, given = cases.jit(jax.vmap(queries, (None, 0, 0, 0, 0, 0)))(
        case.params,
        np.float32(low),
        np.float32(high),
        allowed,
        np.float32(evidence),
        observed,
    )
    index = table.values.astype(int)[..., None]
    for i in range(count):
        inside = (table.values >= low[i]) & (table.values <= high[i])
        inside &= np.take_along_axis(allowed[i][None], index, -1)[..., 0]
        inside |= observed[i][:, None]
        event = inside.all(axis=(1, 2))
        both = table.probs[event & table.agrees(x[i], observed[i])].sum()
        np.testing.assert_allclose(np.exp(joint[i]), both, rtol=3e-5, atol=1e-7)
        share = table.conditional(x[i], observed[i])[event].sum()
        np.testing.assert_allclose(np.exp(given[i]), share, rtol=3e-5, atol=1e-6)
    point = case.log_prob(case.params, np.float32(x[2:3]))[0]
    np.testing.assert_allclose(joint[2], point, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_intervals_of_normal_leaves():
    """One variable: a mixture of distribution functions. Two: those add up."""
    circuit = pc.build(
        pc.CircuitConfig(
            pc.RandomBinaryTrees(2, 1), pc.Normal(), num_leaves=3, num_sums=2
        )
    )
    params = cases.random_params(circuit, 3)
    edges = np.array([-np.inf, -2.0, -0.5, -0.4999, 0.3, 40.0, np.inf])
    low, high = edges[:-1], edges[1:]

    @cases.jit
    def queries(params, low, high):
        def box(a, b):
            bounds = [jnp.stack(pair)[:, None] for pair in zip(a, b, strict=True)]
            return circuit.event_log_prob(params, pc.Event(*bounds))

        everywhere = jnp.full_like(low, -jnp.inf), jnp.full_like(low, jnp.inf)
        x = jnp.asarray([[0.2], [jnp.nan]], jnp.float32)
        seen = np.array([True, False])

        def given(a, b):
            event = pc.Event(*(jnp.full((2, 1), bound) for bound in (a, b)))
            joint = circuit.event_log_prob(params, event, x, seen)
            return joint - circuit.log_prob(params, x, seen)

        pairs = jax.vmap(jax.vmap(box, (None, 0)), (0, None))((low, high), (low, high))
        one = jax.vmap(box)((low, high), everywhere)
        slope = jax.grad(lambda h: box((low[1], h), (low[0], high[-1])))(high[1])
        return pairs, one, jax.vmap(given)(low, high), slope

    ordered = np.float32(low), np.float32(high)
    pairs, one, given, slope = map(np.asarray, queries(params, *ordered))
    np.testing.assert_allclose(np.exp(one).sum(), 1, rtol=1e-6)
    np.testing.assert_allclose(np.exp(given).sum(), 1, rtol=1e-6)
    np.testing.assert_allclose(
        np.asarray(special.logsumexp(pairs, 1)), one, rtol=1e-4, atol=1e-5
    )
    # d log P(low < x <= high) / d high is the density there over the probability.
    end = np.float32([[high[1]], [np.nan]])
    density = circuit.log_prob(params, end, np.array([True, False]))
    np.testing.assert_allclose(slope, np.exp(density - one[1]), rtol=1e-4)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_an_interval_keeps_its_digits(scale):
    """In both tails, over the mean, and so narrow that distribution functions agree."""
    leaf = pc.Normal()
    params = leaf.from_moments(jnp.zeros(1), jnp.full(1, scale, jnp.float32))
    deviation = float(np.sqrt(leaf.variance(params)[0]))
    z = [(-9, -8), (8, 9), (-20, -19.99), (-1, 2), (0.3, 0.3001), (5, 5.00001)]
    z += [(-np.inf, -3), (3, np.inf), (-np.inf, np.inf)]
    low, high = (np.array(z).T * deviation).astype(np.float32)
    result = np.asarray(integrals.log_interval(leaf, params, low, high))
    # In the same half, by the distribution function of the smaller side.
    a, b = (np.float64(bound) / deviation for bound in (low, high))
    flip = a > 0
    a, b = np.where(flip, -b, a), np.where(flip, -a, b)
    with np.errstate(divide="ignore"):
        top, bottom = stats.norm.logcdf(b), stats.norm.logcdf(a)
    expected = top + np.log(-np.expm1(bottom - top))
    np.testing.assert_allclose(result, expected, rtol=2e-5, atol=2e-5)


@pytest.mark.slow
def test_the_impossible_has_no_gradients():
    case = cases.case("trees-tucker")
    circuit, params = case.circuit, case.params

    @cases.jit
    @jax.value_and_grad
    def nothing(params):
        return circuit.event_log_prob(params, pc.Event(low=jnp.full((4, 1), 2.0)))

    value, slope = nothing(params)
    assert value == -np.inf
    for leaf in jax.tree.leaves(slope):
        np.testing.assert_array_equal(leaf, 0)
    assert abs(circuit.event_log_prob(params, pc.Event())) < 1e-6


def test_what_is_refused():
    case = cases.case("trees-tucker")
    circuit, params = case.circuit, case.params
    for event, match in (
        (None, "event must be a Event, got None"),
        (pc.Event(low=jnp.zeros(3)), r"low must have shape .*\(4, 1\)"),
        (
            pc.Event(allowed=np.ones((4, 3), bool)),
            r"allowed must be bool of shape \[V, C, M\] = \(4, 1, 2\), got bool of",
        ),
    ):
        with pytest.raises(ValueError, match=match):
            circuit.event_log_prob(params, event)
