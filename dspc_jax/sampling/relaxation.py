r"""Categorical choices, hard and relaxed, and their gradients.

A choice among :math:`D` alternatives has logits :math:`a` and noise
:math:`g \sim \mathrm{Gumbel}(0, 1)`:

=====================  ==============================  =================================
relaxation             forward                         gradient of
=====================  ==============================  =================================
``hard``               one-hot of arg max ``a + g``    nothing
``gumbel_softmax``     softmax ``(a + g) / t``         itself
``straight_through``   one-hot of arg max ``a + g``    softmax ``(a + g) / t``
``simple``             one-hot of arg max ``a + g``    softmax ``a``
``gumbel_rao``         one-hot of arg max ``a + g``    softmax ``(a + g') / t``, mean
                                                       over noise ``g'`` that leads to
                                                       the same choice
``reinmax``            one-hot ``D`` of arg max        ``2 softmax b - softmax(a) / 2``
                       ``a + g``                       at ``e^b = (D + softmax(a)) / 2``
=====================  ==============================  =================================

As ``t -> 0`` all give the same choice for the same noise. For one choice ``simple`` is
exact for functions linear in its weights, ReinMax for quadratic ones. (ReinMax' paper
has a temperature within ``b``; here it is 1, where this holds: at 0.5 the bias of
linear functions is 9 to 21 %, see docs/estimators.md.)

References:
    Jang et al., "Categorical Reparameterization with Gumbel-Softmax", ICLR 2017.
    Maddison et al., "The Concrete Distribution", ICLR 2017.
    Ahmed et al., "SIMPLE: A Gradient Estimator for k-Subset Sampling", ICLR 2023.
    Paulus et al., "Rao-Blackwellizing the Straight-Through Gumbel-Softmax Gradient
    Estimator", ICLR 2021.
    Liu et al., "Bridging Discrete and Backpropagation: Straight-Through and Beyond",
    NeurIPS 2023 (ReinMax, algorithm 2).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from dspc_jax.ops.derivatives import Differentiable
from dspc_jax.ops.numerics import max_slices, safe_divide, sum_slices
from dspc_jax.ops.storage import computed_once
from dspc_jax.sampling.conditional_gumbel import conditional_scores, fresh_exponentials
from dspc_jax.types import Array

RELAXATIONS = (
    "hard",
    "gumbel_softmax",
    "straight_through",
    "simple",
    "gumbel_rao",
    "reinmax",
)
NUM_CONDITIONAL = 10
"""Draws of noise that ``gumbel_rao`` averages over, one after the other. They leave a
tenth of the variance that an average over all noise would remove."""


def check(relaxation: str, *, allowed: tuple[str, ...] = RELAXATIONS) -> None:
    """Raises ValueError unless the relaxation is one of ``allowed``."""
    if relaxation not in allowed:
        raise ValueError(f"relaxation must be one of {allowed}, got {relaxation!r}")


class Choice(NamedTuple):
    """Unnormalized probabilities of pairs, ``weight_ij * exp(left_i + right_j)``.

    Attributes:
        weight: ``[P, I, J, N]``, linear, 0 is impossible.
        left: ``[P, I, N]``, log; -inf is impossible. None where there is no evidence.
        right: ``[P, J, N]``, log; None with ``left``.
    """

    weight: Array
    left: Array | None = None
    right: Array | None = None


def choose(
    relaxation: str, choice: Choice, noise: Array, temperature: Array | float
) -> tuple[Array, Array]:
    """Chooses a pair and returns its marginals.

    Args:
        relaxation: see the module's docstring; static.
        choice: the pairs and their weights.
        noise: ``exp`` of Gumbel noise, ``[P, I, J, N]``; 1 for an arg max. Only
            ``gumbel_softmax`` has a gradient in it.
        temperature: ``t``, a scalar (traced).

    Returns:
        Weights over ``I`` and over ``J``: ``[P, I, N]`` and ``[P, J, N]``, each adding
        up to 1. Where all is impossible a hard choice is the first pair, a soft one all
        0, and the gradient is 0.
    """
    return _choose(relaxation, choice, noise, temperature)


def choose_one(
    relaxation: str, logits: Array, noise: Array, temperature: Array | float
) -> Array:
    """Chooses among logits ``[P, D, N]`` by `choose`: weights of the same shape."""
    ones = jnp.ones((*logits.shape[:2], 1, logits.shape[2]), logits.dtype)
    choice = Choice(ones, logits, jnp.zeros_like(logits[:, :1]))
    noise = jnp.broadcast_to(noise, logits.shape)[:, :, None]
    return choose(relaxation, choice, noise, temperature)[0]


def score(
    weight: Array, left: Array | float | None, right: Array | float | None, noise: Array
) -> Array:
    """The score of which a hard choice takes the greatest; not to be differentiated.

    It is ``weight * noise`` with ``noise = exp(gumbel)``, or its logarithm where there
    is evidence, whose range may exceed that of float32.
    """
    if left is None or right is None:
        return weight * noise
    return jnp.log(weight * noise) + left + right


def _pair_score(choice: Choice, noise: Array) -> Array:
    weight, left, right = choice
    if left is None or right is None:
        return score(weight, None, None, noise)
    return score(weight, left[:, :, None], right[:, None], noise)


def _choose_value(relaxation, choice, noise, temperature):
    """All arrays ``[P, I, J, N]`` are touched slice by slice or in one fused pass."""
    if relaxation == "gumbel_softmax":
        soft = _softmax(choice, noise, temperature)
        return soft.left, soft.right
    scores = jax.lax.stop_gradient(_pair_score(choice, noise))
    best, j_of_i = _running_argmax([scores[:, :, j] for j in range(scores.shape[2])])
    i, j = computed_once(_best_pair, best, j_of_i)
    return _one_hot(i, scores.shape[1], scores), _one_hot(j, scores.shape[2], scores)


def _choose_fwd(relaxation, choice, noise, temperature):
    if relaxation == "gumbel_softmax":
        soft = _softmax(choice, noise, temperature)
        out = (soft.left, soft.right)
        return out, (choice, soft, noise, temperature, out)
    out = _choose(relaxation, choice, noise, temperature)
    chosen = jax.lax.stop_gradient(out)  # in the gradient a choice is a constant
    return out, (choice, None, noise, temperature, chosen)


def _best_pair(best: Array, j_of_i: Array) -> tuple[Array, Array]:
    """The best ``i`` and its ``j``: ``[P, N]`` from ``[P, I, N]``."""
    _, i = _running_argmax([best[:, i] for i in range(best.shape[1])])
    return i, jnp.take_along_axis(j_of_i, i[:, None], 1)[:, 0]


class _Soft(NamedTuple):
    """A softmax: unnormalized ``[P, I, J, N]``, total ``[P, N]``, both marginals."""

    weights: Array
    total: Array
    left: Array
    right: Array


def _relative(choice: Choice, noise: Array) -> Array:
    """Log-scores, the greatest of each choice at 0."""
    scores = _pair_score(choice, noise)
    top = jnp.max(max_slices(scores, 2), axis=1)[:, None, None]
    if choice.left is None:
        return jnp.log(scores * jnp.where(top > 0, 1.0 / top, 0.0))
    return scores - jnp.where(top > -jnp.inf, top, 0.0)


def _softmax(choice: Choice, noise: Array, temperature: Array | float) -> _Soft:
    weights = jnp.exp(_relative(choice, noise) * (1.0 / temperature))
    # The barrier keeps XLA from computing the exponentials once for each use.
    return _normalized(jax.lax.optimization_barrier(weights))


def _normalized(weights: Array) -> _Soft:
    left, right = sum_slices(weights, 2), sum_slices(weights, 1)
    total = jnp.sum(left, axis=1)
    return _Soft(
        weights,
        total,
        safe_divide(left, total[:, None]),
        safe_divide(right, total[:, None]),
    )


def _running_argmax(slices: list[Array]) -> tuple[Array, Array]:
    best, index = slices[0], jnp.zeros(slices[0].shape, jnp.int32)
    for number, value in enumerate(slices[1:], start=1):
        index = jnp.where(value > best, number, index)
        best = jnp.maximum(value, best)
    return best, index


def _one_hot(index: Array, size: int, like: Array) -> Array:
    return jax.nn.one_hot(index, size, axis=1, dtype=like.dtype)


def _choose_bwd(relaxation, residuals, g):
    """Through ``y = softmax(z)``: ``dz = y (dy - sum y dy)``, ``dy = dl_i + dr_j``."""
    choice, soft, noise, temperature, out = residuals
    if relaxation == "hard":
        return jax.tree.map(jnp.zeros_like, (choice, noise, temperature))
    if relaxation in _PULLS:
        d_score, d_temperature = _PULLS[relaxation](choice, noise, temperature, out, g)
        d_choice = Choice(safe_divide(d_score, choice.weight))
        if choice.left is not None:
            d_choice = d_choice._replace(
                left=sum_slices(d_score, 2), right=sum_slices(d_score, 1)
            )
        return d_choice, jnp.zeros_like(noise), d_temperature
    simple = relaxation == "simple"
    if simple:
        soft = _normalized(jax.lax.optimization_barrier(choice.weight * _odds(choice)))
    elif soft is None:
        soft = _softmax(choice, noise, temperature)
    center = jnp.sum(soft.left * g[0], axis=1) + jnp.sum(soft.right * g[1], axis=1)
    # One scale per choice in place of divisions in the large arrays.
    scale = safe_divide(jnp.ones_like(soft.total), soft.total)
    if not simple:
        scale = scale / temperature
    d_left = (g[0] - center[:, None]) * scale[:, None]
    d_right = g[1] * scale[:, None]
    dy = d_left[:, :, None] + d_right[:, None]
    d_score = soft.weights * dy
    # With "simple" the weights are the softmax: no division by them.
    d_weight = _odds(choice) * dy if simple else safe_divide(d_score, choice.weight)
    d_choice = Choice(d_weight)
    if choice.left is not None:
        d_choice = Choice(d_weight, sum_slices(d_score, 2), sum_slices(d_score, 1))
    if simple:
        return d_choice, jnp.zeros_like(noise), jnp.zeros_like(temperature)
    relative = _relative(choice, noise)  # d_score adds up to 0: any origin will do
    finite = jnp.where(relative > -jnp.inf, relative, 0.0)
    d_temperature = -jnp.sum(d_score * finite) / temperature
    if relaxation == "gumbel_softmax":  # noise is a function of weights in `rebar`
        return d_choice, safe_divide(d_score, noise), d_temperature
    return d_choice, jnp.zeros_like(noise), d_temperature


def _mean_of(marginals: tuple[Array, Array], g: tuple[Array, Array]) -> Array:
    """The mean of ``dl_i + dr_j`` under these marginals, ``[P, 1, 1, N]``."""
    left, right = (jnp.sum(m * d, axis=1) for m, d in zip(marginals, g, strict=True))
    return (left + right)[:, None, None]


def _pull_reinmax(choice, noise, temperature, out, g):
    """``2 pull(b) - pull(a) / 2`` with ``pull(z) = y (dy - sum y dy)``, as scores.

    With ``p = softmax(a)`` and ``D`` drawn, ``(p (dy - dy_D) + D (dy_D - p dy)) / 2``.
    """
    del noise
    plain = _normalized(jax.lax.optimization_barrier(choice.weight * _odds(choice)))
    mean, choice_value = _mean_of((plain.left, plain.right), g), _mean_of(out, g)
    inverse = 0.5 * safe_divide(jnp.ones_like(plain.total), plain.total)[:, None, None]
    dy = g[0][:, :, None] + g[1][:, None]
    one_hot = out[0][:, :, None] * out[1][:, None]
    possible = (plain.total > 0)[:, None, None]
    jump = jnp.where(possible, 0.5 * (choice_value - mean), 0.0)
    d_score = plain.weights * inverse * (dy - choice_value) + one_hot * jump
    return d_score, jnp.zeros_like(temperature)


def _pull_rao(choice, noise, temperature, out, g):
    """The mean of ``y (dy - sum y dy) / t`` over noise that leads to ``out``."""
    dy = g[0][:, :, None] + g[1][:, None]
    plain = _normalized(jax.lax.optimization_barrier(choice.weight * _odds(choice)))
    probs = (
        plain.weights
        * safe_divide(jnp.ones_like(plain.total), plain.total)[:, None, None]
    )
    one_hot = out[0][:, :, None] * out[1][:, None]

    def add(number, sums):
        exponentials = fresh_exponentials(noise, number)
        log_scores = jnp.log(conditional_scores(probs, one_hot, exponentials))
        soft = _normalized(jnp.exp(log_scores / temperature))
        y = soft.weights / soft.total[:, None, None]
        d_score = y * (dy - _mean_of((soft.left, soft.right), g)) / temperature
        finite = jnp.where(log_scores > -jnp.inf, log_scores, 0.0)
        return sums[0] + d_score, sums[1] - jnp.sum(d_score * finite) / temperature

    zeros = (jnp.zeros_like(dy), jnp.zeros_like(temperature))
    total = jax.lax.fori_loop(0, NUM_CONDITIONAL, add, zeros)
    return jax.tree.map(lambda a: a / NUM_CONDITIONAL, total)


_PULLS = {"reinmax": _pull_reinmax, "gumbel_rao": _pull_rao}


def _odds(choice: Choice) -> Array | float:
    """The evidence's factor of the weights: ``exp(left + right)``, at most 1."""
    if choice.left is None or choice.right is None:
        return 1.0
    left, right = _shift(choice.left), _shift(choice.right)
    return jnp.exp(left)[:, :, None] * jnp.exp(right)[:, None]


def _shift(x: Array) -> Array:
    top = max_slices(x, 1)[:, None]
    return x - jnp.where(top > -jnp.inf, top, 0.0)


_choose = Differentiable(_choose_value, num_static=1)
_choose.defvjp(_choose_fwd, _choose_bwd)
