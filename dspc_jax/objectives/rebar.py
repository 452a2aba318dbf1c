r"""REBAR: the score of the choices, with relaxed samples as its control variate.

With samples :math:`Y`, their relaxations :math:`\tilde Y`, relaxations
:math:`\tilde Y'` given the choices :math:`b` (`dspc_jax.sampling.rebar`), and any loss
:math:`L` of a set,

.. math::
  \sum_i (a_i(Y) - \eta\, a_i(\tilde Y')) \nabla \log p(b_i)
  + \eta \nabla L(\tilde Y) - \eta \nabla L(\tilde Y') + \nabla_{leaves} L(Y),
  \qquad a_i(Y) = L(Y) - L(Y_{-i}).

The score is that of the choices alone, and the leaves have the gradient of the exact
sample, given them. The three terms with :math:`\eta` have mean 0, since
:math:`\tilde Y` and :math:`\tilde Y'` are distributed alike: unbiased at every
:math:`\eta` and every temperature if the leaves are Normal. Where
:math:`L(\tilde Y')` is near :math:`L(Y)` (low temperatures), little is left of the
first; the gradients of the relaxations, in turn, are the noisier the lower the
temperature.

A tractable model knows the score with the choices summed out
(`dspc_jax.objectives.score_function`), whose variance is smaller than that of theirs
before any control variate. docs/estimators.md compares the two.

References:
  Tucker, Mnih, Maddison, Lawson and Sohl-Dickstein, "REBAR", NeurIPS 2017, section 3.
"""

import jax

from dspc_jax.objectives.score_function import score_surrogate
from dspc_jax.types import Array


def rebar_surrogate(
    log_choices: Array,
    advantages: Array,
    conditional_advantages: Array,
    relaxed: Array,
    conditional: Array,
    *,
    control_weight: float = 1.0,
) -> Array:
    r"""A scalar 0 with the gradient of the formula, but for that of the leaves.

    Args:
      log_choices: ``[n]`` nats, differentiable: of the samples' choices.
      advantages: ``[n]``, of the exact samples, as for `score_surrogate`.
      conditional_advantages: ``[n]``, of the relaxed samples given the choices.
      relaxed: the loss of the relaxed samples, a differentiable scalar.
      conditional: that of the relaxed samples given the choices.
      control_weight: :math:`\eta`; 0 leaves the score alone.

    Returns:
      A scalar; add it to the loss of the exact samples, which has the leaves' gradient.

    Raises:
      ValueError: shapes differ.
    """
    left = advantages - control_weight * conditional_advantages
    difference = relaxed - conditional
    difference = difference - jax.lax.stop_gradient(difference)
    return score_surrogate(log_choices, left) + control_weight * difference
