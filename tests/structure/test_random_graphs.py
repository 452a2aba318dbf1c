"""Queries of circuits on random region graphs, against enumeration."""

from typing import Any

from hypothesis import Phase, given, settings
from hypothesis import strategies as st
import jax
import numpy as np
import pytest

import dspc_jax as pc
from tests import cases, oracles, strategies

NUM_SAMPLES = 2000
# A right sampler is rejected once in 10^5 circuits.
ALPHA = 1e-5
CLOSE: dict[str, Any] = {"rtol": 5e-5, "atol": 5e-5}


@settings(
    max_examples=2,
    derandomize=True,
    deadline=None,
    database=None,
    phases=[Phase.generate],  # each smaller example would be compiled again
)
@given(
    config=strategies.configs(max_partitions=5),
    zeros=st.booleans(),
    seed=st.integers(0, 999),
    joint=st.booleans(),
)
def test_queries_of_random_graphs(config, zeros, seed, joint):
    """One half of the queries or the other: compilation is what this test costs."""
    check = check_joint_queries if joint else check_conditional_queries
    check(Drawn(config, zeros, seed))


@pytest.mark.slow
@settings(
    max_examples=100,
    deadline=None,
    database=None,
    print_blob=True,
    phases=[Phase.generate, Phase.shrink],
)
@given(
    config=strategies.configs(max_partitions=8),
    zeros=st.booleans(),
    seed=st.integers(0, 999),
)
def test_all_queries_of_many_random_graphs(config, zeros, seed):
    """Other graphs at each run."""
    drawn = Drawn(config, zeros, seed)
    check_joint_queries(drawn)
    check_conditional_queries(drawn)


class Drawn:
    """A circuit, the table of its distribution, and possible evidence for all masks."""

    def __init__(self, config: pc.CircuitConfig, zeros: bool, seed: int):
        rng = np.random.default_rng(seed)
        self.circuit = pc.build(config)
        params = cases.random_params(self.circuit, seed)
        self.params = params
        if zeros:
            self.params = cases.with_zeros(self.circuit, params, seed, 0.25)
        self.table = oracles.tabulate(self.circuit, self.params)
        possible = self.table.values[self.table.probs > 0]
        self.observed = rng.permutation(cases.masks(possible.shape[1]))
        self.x = possible[rng.integers(len(possible), size=len(self.observed))]

    def answers(self, query) -> dict[str, np.ndarray]:
        """``query(params, key, x, observed)`` of all masks, then of the last again."""
        last = len(self.x) - 1
        rows = np.minimum(np.arange(last + NUM_SAMPLES), last)
        x = np.where(self.observed[..., None], self.x, np.nan).astype(np.float32)
        batch = cases.jit(jax.vmap(query, (None, 0, 0, 0)))
        keys = cases.fresh_keys(0, len(rows))
        out = batch(self.params, keys, x[rows], self.observed[rows])
        return jax.tree.map(np.asarray, out)

    def check_samples(self, out: dict[str, np.ndarray], probs: np.ndarray) -> None:
        """Those of the last mask follow ``probs``; all agree draw for draw."""
        np.testing.assert_allclose(out["soft"], out["hard"], atol=1e-6)
        repeated = out["hard"][len(self.x) - 1 :]
        assert oracles.law_p_value(self.table, repeated, probs) > ALPHA


def samples(circuit, key, params, **evidence):
    """A hard sample, and a relaxed one with a hard forward value, of the same key."""
    options: Any = {"relaxation": "straight_through", "temperature": 0.5, **evidence}
    soft = circuit.sample_differentiable(jax.random.clone(key), params, **options)
    return {"hard": circuit.sample(key, params, **evidence), "soft": soft}


def check_conditional_queries(drawn: Drawn) -> None:
    """Marginal likelihoods, conditional means and conditional samples."""
    circuit, table = drawn.circuit, drawn.table

    def query(params, key, x, observed):
        return {
            "log_prob": circuit.log_prob(params, x, observed),
            "mean": circuit.mean(params, x, observed),
            **samples(circuit, key, params, x=x, observed=observed),
        }

    out = drawn.answers(query)
    for i, (x, observed) in enumerate(zip(drawn.x, drawn.observed, strict=True)):
        marginal = table.marginal(x, observed)
        np.testing.assert_allclose(out["log_prob"][i], np.log(marginal), **CLOSE)
        probs = table.conditional(x, observed)
        mean = np.tensordot(probs, table.values, 1)
        np.testing.assert_allclose(out["mean"][i], mean, **CLOSE)
        for name in ("mean", "hard", "soft"):
            np.testing.assert_array_equal(out[name][i][observed], x[observed])
        (number,) = table.find(out["hard"][i : i + 1])
        assert number >= 0
        assert probs[number] > 0
    drawn.check_samples(out, table.conditional(drawn.x[-1], drawn.observed[-1]))


def check_joint_queries(drawn: Drawn) -> None:
    """All values under all classes, class posteriors, explanations and samples."""
    circuit, params, table = drawn.circuit, drawn.params, drawn.table

    def query(params, key, x, observed):
        return {
            "class_posterior": circuit.class_posterior(params, x, observed),
            "mpe": circuit.mpe(params, x, observed),
            **samples(circuit, key, params),
        }

    out = drawn.answers(query)
    for i, (x, observed) in enumerate(zip(drawn.x, drawn.observed, strict=True)):
        posterior = table.class_posterior(x, observed)
        np.testing.assert_allclose(out["class_posterior"][i], posterior, **CLOSE)
        (number,) = table.find(out["mpe"][i : i + 1])
        agrees = table.agrees(x, observed)
        assert number >= 0
        assert agrees[number]
        # The greatest product is attained, and never above the greatest sum.
        best = table.best[number]
        np.testing.assert_allclose(best, table.best[agrees].max(), **CLOSE)
        assert best <= np.log(table.probs[agrees].max()) + 1e-9
    drawn.check_samples(out, table.probs)
    values = table.values.astype(np.float32)
    per_class = cases.jit(jax.vmap(circuit.class_log_probs, (None, 0)))(params, values)
    joint = np.asarray(per_class.T + jax.nn.log_softmax(params.classes)[:, None])
    np.testing.assert_allclose(joint, table.joint, **CLOSE)
    np.testing.assert_allclose(np.exp(joint, dtype=np.float64).sum(), 1, rtol=1e-5)
