"""Hidden Markov models: hmmlearn's numbers, and an own forward-backward recursion."""

import dataclasses
import functools
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import special, stats

import dspc_jax as pc
from dspc_jax.leaves.normal import NormalParams
from dspc_jax.leaves.poisson import PoissonParams
from tests import cases

INITIAL = np.array([0.6, 0.3, 0.1])
TRANSITIONS = np.array([[0.7, 0.2, 0.1], [0.3, 0.5, 0.2], [0.05, 0.15, 0.8]])
RATES = np.array([0.5, 3.0, 9.0])
MEANS = np.array([[-1.0, 0.0], [0.5, 2.0], [3.0, -1.0]])
VARIANCES = np.array([[0.5, 1.0], [0.25, 2.0], [1.0, 0.3]])


class Reference(NamedTuple):
    """What hmmlearn 0.3.3 says of a sequence.

    ``score``, ``predict_proba`` of the last but one and the first time, and the forward
    probabilities of the last but one time, normalized.
    """

    x: Any
    score: float
    first: Any
    later: Any
    past: Any


# PoissonHMM and GaussianHMM(covariance_type="diag") with the parameters above.
COUNTS = Reference(
    np.array([0, 2, 4, 3, 11, 7, 0, 1.0])[:, None],
    -19.026576759138393,
    [9.303318621837e-01, 6.965061653448e-02, 1.752128179693e-05],
    [8.650538254845e-01, 1.345737238622e-01, 3.724506533475e-04],
    [8.130637366951e-01, 1.847308802368e-01, 2.205383068122e-03],
)
REALS = Reference(
    np.array(
        [[-1.2, 0.3], [0.4, 1.0], [0.9, 3.0], [2.5, -0.8], [3.4, -1.3], [-0.5, 0.2]]
    ),
    -17.331018664651587,
    [9.981902247239e-01, 1.808415565457e-03, 1.359710626987e-06],
    [1.180170234381e-09, 3.255930709018e-09, 9.999999955639e-01],
    [1.023833912998e-10, 5.955464823311e-10, 9.999999993021e-01],
)


@functools.cache
def model(name, length):
    """A circuit and its parameters."""
    if name == "counts":
        leaf, channels = pc.Poisson(), 1
        leaves = PoissonParams(np.log(RATES)[:, None])
    else:
        leaf, channels = pc.Normal(), 2
        leaves = NormalParams(MEANS, np.log(np.sqrt(VARIANCES) - leaf.min_scale))
    config = pc.hidden_markov_chain(length, 3, leaf, num_channels=channels)
    circuit = pc.build(config)
    tables = pc.MarkovTables(INITIAL, TRANSITIONS, leaves)
    params = pc.with_markov_tables(circuit, cases.random_params(circuit, 0), tables)
    return circuit, params


def log_densities(name, x):
    """``[V, K]`` of values ``[V, C]``."""
    if name == "counts":
        return stats.poisson.logpmf(x, RATES[None])
    scale = np.sqrt(VARIANCES)
    return stats.norm.logpdf(x[:, None], MEANS[None], scale[None]).sum(-1)


def forward_backward(log_density):
    """The log-likelihood, filtered and smoothed states, and pairs of them summed."""
    log_a, length = np.log(TRANSITIONS), len(log_density)
    forward = [np.log(INITIAL) + log_density[0]]
    for t in range(1, length):
        before = np.asarray(special.logsumexp(forward[-1][:, None] + log_a, axis=0))
        forward.append(before + log_density[t])
    backward = [np.zeros(3)]
    for t in range(length - 1, 0, -1):
        after = log_a + (log_density[t] + backward[0])[None]
        backward.insert(0, np.asarray(special.logsumexp(after, axis=1)))
    total = np.asarray(special.logsumexp(forward[-1]))
    pairs = np.zeros((3, 3))
    for t in range(1, length):
        after = (log_density[t] + backward[t])[None]
        pairs += np.exp(forward[t - 1][:, None] + log_a + after - total)
    smoothed = np.exp(np.array(forward) + np.array(backward) - total)
    return total, special.softmax(forward, axis=1), smoothed, pairs


@functools.partial(cases.jit, static_argnums=0)
def answers(circuit, params, x, observed):
    def each(x, observed):
        return (
            circuit.log_prob(params, x, observed),
            pc.state_posteriors(circuit, params, x, observed, given="past"),
            pc.state_posteriors(circuit, params, x, observed),
        )

    return jax.vmap(each)(x, observed)


def batch(name, x):
    """Everything observed, some of it, nothing, and an observed NaN."""
    observed = np.ones((4, len(x)), bool)
    observed[1, [0, 3, len(x) - 1]] = False
    observed[2] = False
    several = np.repeat(np.float32(x)[None], 4, axis=0)
    several[3, 2] = np.nan
    return (*model(name, len(x)), several, observed)


@pytest.mark.parametrize("name", ["counts", "reals"])
def test_against_hmmlearn_and_the_recursions(name):
    reference = {"counts": COUNTS, "reals": REALS}[name]
    x = reference.x
    circuit, params, several, observed = batch(name, x)
    log_p, filtered, smoothed = answers(circuit, params, several, observed)
    np.testing.assert_allclose(log_p[0], reference.score, rtol=1e-6)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6)
    close(smoothed[0, 0], reference.first)
    close(smoothed[0, -2], reference.later)
    close(filtered[0, -2], reference.past)
    for n in range(3):
        seen = np.where(observed[n][:, None], log_densities(name, x), 0.0)
        total, past, both, _ = forward_backward(seen)
        close(log_p[n : n + 1], total[None])
        close(filtered[n], past)
        close(smoothed[n], both)
    assert all(np.isnan(values[3]).all() for values in (log_p, filtered, smoothed))


def test_impossible_sequences_have_no_states():
    circuit, params, several, observed = batch("counts", COUNTS.x)
    several[:3, 5] = -1
    log_p, filtered, smoothed = answers(circuit, params, several, observed)
    assert np.isneginf(log_p[:2]).all()
    np.testing.assert_allclose(filtered[0, :5].sum(-1), 1, rtol=1e-5)
    assert np.isfinite(filtered[:3]).all()
    assert np.isfinite(smoothed[:3]).all()


@pytest.mark.optax
def test_a_step_of_em_is_that_of_baum_and_welch():
    circuit, params = model("counts", len(COUNTS.x))
    x = COUNTS.x[None]

    @cases.jit
    def step(params):
        counts: Any = pc.expected_counts(circuit, params, x)
        change, _ = pc.em(circuit).update(counts, optax.EmptyState(), params)
        return pc.markov_tables(circuit, optax.apply_updates(params, change))

    tables = step(params)
    _, _, smoothed, pairs = forward_backward(log_densities("counts", COUNTS.x))
    rates = (smoothed * COUNTS.x).sum(0) / smoothed.sum(0)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4)
    close(tables.initial, smoothed[0])
    close(tables.transitions, pairs / pairs.sum(1, keepdims=True))
    close(np.exp(tables.leaves.log_rate)[:, 0], rates)


@pytest.mark.parametrize(("length", "num_states"), [(1, 1), (2, 1), (2, 3)])
def test_short_chains_and_single_states(length, num_states, tmp_path):
    config = pc.hidden_markov_chain(length, num_states, pc.Poisson())
    circuit = pc.build(config)
    params = cases.random_params(circuit, 0)
    tables = pc.markov_tables(circuit, params)
    again = pc.with_markov_tables(circuit, cases.random_params(circuit, 1), tables)
    for table in tables[:2]:
        np.testing.assert_allclose(np.asarray(table).sum(-1), 1, rtol=1e-5)
    same = pc.markov_tables(circuit, again)
    for a, b in zip(jax.tree.leaves(tables), jax.tree.leaves(same), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)
    pc.save(tmp_path / "chain", config, params)
    assert pc.load(tmp_path / "chain")[0] == config


def test_states_can_be_differentiated_and_are_of_the_parameters_type():
    circuit, params = model("counts", 3)
    x = jnp.asarray(COUNTS.x[:3], jnp.float32)

    @cases.jit
    def slopes(params):
        def last(params, given):
            return pc.state_posteriors(circuit, params, x, given=given)[-1, 0]

        return [jax.grad(last)(params, given) for given in ("all", "past")]

    # Of the last time both are the same.
    for a, b in zip(*map(jax.tree.leaves, slopes(params)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)
        assert a.dtype == np.float32
    assert any(np.abs(leaf).max() > 1e-3 for leaf in jax.tree.leaves(slopes(params)[0]))


def test_mistakes():
    circuit, params = model("counts", 3)
    with pytest.raises(ValueError, match=r"given must be one of .*, got 'future'"):
        pc.state_posteriors(circuit, params, COUNTS.x[:3], given="future")
    other = pc.build(dataclasses.replace(circuit.config, tie_sums="none"))
    with pytest.raises(ValueError, match="circuit must be that of hidden_markov_chain"):
        pc.markov_tables(other, params)
    tables = pc.markov_tables(circuit, params)
    for change, message in (
        ({"initial": np.ones(2)}, r"tables.initial must have shape \(3,\), got \(2,\)"),
        (
            {"leaves": PoissonParams(np.ones(3))},
            r"tables.leaves must have arrays of shape .*\(3, 1\), got \(3,\)",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            pc.with_markov_tables(circuit, params, tables._replace(**change))
    with pytest.raises(ValueError, match="length must be at least 1, got 0"):
        pc.hidden_markov_chain(0, 2, pc.Poisson())


@pytest.mark.slow
def test_long_chains_compile_in_seconds():
    """Their levels are scanned; 500 times have a few."""
    circuit = pc.build(pc.hidden_markov_chain(500, 3, pc.Poisson()))
    assert len(circuit.layout.graph.levels) <= 4
    params = pc.with_markov_tables(
        circuit,
        circuit.init(jax.random.key(0)),
        pc.MarkovTables(INITIAL, TRANSITIONS, PoissonParams(np.log(RATES)[:, None])),
    )
    x = np.random.default_rng(0).poisson(3, (1, 500, 1)).astype(np.float32)
    start = time.perf_counter()
    log_p, filtered, smoothed = answers(circuit, params, x, np.ones((1, 500), bool))
    assert time.perf_counter() - start < 120
    total, past, both, _ = forward_backward(log_densities("counts", x[0]))
    np.testing.assert_allclose(log_p, total[None], rtol=1e-5)
    np.testing.assert_allclose(filtered[0], past, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(smoothed[0], both, rtol=1e-3, atol=1e-4)
