"""The Inception Score on probabilities that are known."""

import numpy as np
import pytest

from dspc_jax.evaluation import inception_score


def test_sure_and_even_classes_score_their_number():
    logits = np.tile(100 * np.eye(7), (10, 1))
    score = inception_score(logits, num_splits=10)
    np.testing.assert_allclose(score, (7, 0), atol=1e-10)


def test_one_class_or_no_opinion_score_one():
    sure = np.tile([50.0, 0, 0], (20, 1))
    unsure = np.zeros((20, 3))
    for logits in (sure, unsure, unsure - 1e4):
        np.testing.assert_allclose(
            inception_score(logits, num_splits=2), (1, 0), atol=1e-10
        )


def test_it_is_the_formula():
    logits = np.random.default_rng(0).normal(size=(23, 5)) * 2
    parts = [logits[:7], logits[7:15], logits[15:]]  # 23 in 3 parts
    scores = []
    for part in parts:
        p = np.exp(part) / np.exp(part).sum(1, keepdims=True)
        scores.append(np.exp(np.mean(np.sum(p * np.log(p / p.mean(0)), 1))))
    result = inception_score(logits, num_splits=3)
    np.testing.assert_allclose(result.score, np.mean(scores), rtol=1e-12)
    np.testing.assert_allclose(result.standard_deviation, np.std(scores), rtol=1e-12)
    whole = inception_score(logits, num_splits=1)
    assert np.isnan(whole.standard_deviation)
    assert whole.score != pytest.approx(result.score, rel=1e-3)


def test_a_constant_added_to_the_logits_of_a_sample_changes_nothing():
    """But one added to a class does: the bias of the last layer (negative control)."""
    logits = np.random.default_rng(0).normal(size=(20, 5))
    moved = logits + np.arange(20)[:, None]
    base = inception_score(logits, num_splits=2)
    np.testing.assert_allclose(inception_score(moved, num_splits=2), base)
    biased = inception_score(logits + np.arange(5)[None], num_splits=2)
    assert biased.score != pytest.approx(base.score, rel=1e-3)


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="num_splits must be at least 1, got 0"):
        inception_score(np.zeros((3, 2)), num_splits=0)
    with pytest.raises(ValueError, match="logits must hold at least 10 points, got 3"):
        inception_score(np.zeros((3, 2)))
    with pytest.raises(ValueError, match="logits must be finite"):
        inception_score(np.full((3, 2), np.inf), num_splits=1)
