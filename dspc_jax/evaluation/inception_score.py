r"""The Inception Score: distinct classes in each sample, balanced over all samples.

On the logits of the original Inception network this is the Inception Score; on those of
any other classifier it is not, and must not be called so.
"""

from typing import NamedTuple

from jax.typing import ArrayLike
import numpy as np
from scipy import special

from dspc_jax.arguments import whole_number
from dspc_jax.evaluation.features import as_features


class InceptionScore(NamedTuple):
    """A score, averaged over splits.

    Attributes:
        score: the mean over the splits, between 1 and the number of classes.
        standard_deviation: over the splits (the published figure, N in its
            denominator); NaN with one split.
    """

    score: float
    standard_deviation: float


def inception_score(logits: ArrayLike, *, num_splits: int = 10) -> InceptionScore:
    r"""The exponential of the mutual information of samples and their classes.

    .. math:: \exp\left(\frac1N \sum_n \mathrm{KL}\left(p(y | x_n) \,\middle\|\,
              \frac1N \sum_m p(y | x_m)\right)\right)

    It is a function of the samples alone, without data. It is biased, downwards for few
    samples; the published protocol is 50000 samples in 10 splits.

    Args:
        logits: ``[N, classes]``, in random order of the samples.
        num_splits: number of parts of the samples, each with its own score; their
            sizes differ by one at most.

    Returns:
        An `InceptionScore`, computed in float64 on the host.

    Raises:
        ValueError: fewer samples than splits, no split, or a logit that is not finite.

    References:
        Salimans, Goodfellow, Zaremba, Cheung, Radford and Chen, "Improved Techniques
        for Training GANs", NeurIPS 2016, section 4.
        Barratt and Sharma, "A Note on the Inception Score", 2018.
    """
    num_splits = whole_number("num_splits", num_splits, least=1)
    array = as_features("logits", logits, least=num_splits)
    log_probs = special.log_softmax(array, 1)
    scores = [
        _score(part)
        for part in np.split(
            log_probs, [i * len(array) // num_splits for i in range(1, num_splits)]
        )
    ]
    deviation = float(np.std(scores)) if num_splits > 1 else np.nan
    return InceptionScore(float(np.mean(scores)), deviation)


def _score(log_probs: np.ndarray) -> np.floating:
    marginal = special.logsumexp(log_probs, 0) - np.log(len(log_probs))
    divergences = np.sum(np.exp(log_probs) * (log_probs - marginal[None]), 1)
    return np.exp(np.mean(divergences))
