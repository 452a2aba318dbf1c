"""Noise given the choice: its distribution against rejection, and its making."""

from typing import Any

import numpy as np
from scipy import stats

from dspc_jax.sampling.conditional_gumbel import conditional_scores, fresh_exponentials
from tests import cases

COUNT = 50_000


def old_noise():
    """As `dspc_jax.sampling.noise` makes it: a grid of uniform numbers."""
    uniform = np.random.default_rng(0).random(COUNT, np.float32) + np.float32(2.0**-24)
    return -1 / np.log(uniform)


fresh = cases.jit(fresh_exponentials, static_argnums=1)
scores_given = cases.jit(conditional_scores)


def test_fresh_numbers_are_exponential_and_independent():
    """Kolmogorov-Smirnov at fixed keys; rank correlations below 5 deviations."""
    noise = old_noise()
    rows = [
        noise,
        *(fresh(noise, m) for m in range(4)),
    ]
    for row in rows[1:]:
        assert stats.kstest(row, "expon").pvalue > 1e-3
        assert (row > 0).all()
        assert np.isfinite(row).all()
    ranks = np.corrcoef([stats.rankdata(row) for row in rows])
    assert (np.abs(ranks - np.eye(len(rows))) < 5 / np.sqrt(COUNT)).all()


def test_an_example_depends_on_its_own_noise_alone():
    noise = old_noise()
    np.testing.assert_array_equal(fresh(noise[:7], 3), fresh(noise, 3)[:7])


def test_the_distribution_given_the_choice():
    """Shares ``s_d / s_D`` against those of noise that happened to choose ``D``."""
    rng = np.random.default_rng(0)
    p = np.array([0.6, 0.3, 0.1])
    scores = p[:, None] / rng.exponential(size=(3, 4 * COUNT))
    best = scores.argmax(axis=0)
    probs = np.broadcast_to(np.float32(p)[None, :, None, None], (1, 3, 1, COUNT))
    for chosen in range(3):
        one_hot = np.zeros((1, 3, 1, COUNT))
        one_hot[:, chosen] = 1
        noise = rng.exponential(size=one_hot.shape)
        result = scores_given(probs, np.float32(one_hot), np.float32(noise))
        kept = scores[:, best == chosen]
        kept = kept / kept.max(axis=0)
        assert (np.asarray(result)[0, chosen] == 1).all()
        for d in set(range(3)) - {chosen}:
            test: Any = stats.ks_2samp(np.asarray(result)[0, d, 0], kept[d])
            assert test.pvalue > 1e-3


def test_the_impossible_has_no_score():
    sure = np.asarray([0.0, 1.0], np.float32)[None, :, None, None]
    result = scores_given(sure, sure, np.ones((1, 2, 1, 1), np.float32))
    np.testing.assert_array_equal(result.ravel(), [0.0, 1.0])
