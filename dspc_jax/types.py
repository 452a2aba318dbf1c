"""The words of the house: type aliases and the axis legend.

Axes, in the order in which arrays carry them:

====  ==================================================================
G     regions of a level, folded (all same-shaped regions are one array)
P     partitions of a level, folded
K     units of a region (leaves of an input region, sums of an inner one)
O     output units of a sum layer
Y     classes (roots)
V     variables (pixels)
C     channels of a variable
L     variables of one input region, padded to the largest region
N     examples; always the last axis inside the library
====  ==================================================================

A public function takes one example, so the axis N appears only inside
(see `dspc_jax.batching`).
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax

Array: TypeAlias = jax.Array
Key: TypeAlias = jax.Array
"""A typed key from ``jax.random.key``."""
Metrics: TypeAlias = dict[str, jax.Array]
PyTree: TypeAlias = Any


class Discriminator(NamedTuple):
    """Tells data from samples: pure functions of its parameters.

    The score of an example depends on that example alone (no batch normalisation), so
    gradients with respect to single examples exist.

    Attributes:
      init: ``init(key) -> params``.
      logits: ``logits(params, x[B, V, C]) -> [B]``: log-odds that x is data; large for
        data.
      train_logits: ``train_logits(key, params, x) -> [B]``: the same with the noise of
        training (dropout), where there is one.
    """

    init: Callable[[Array], PyTree]
    logits: Callable[[PyTree, Array], Array]
    train_logits: Callable[[Array, PyTree, Array], Array]


class FeatureCritic(NamedTuple):
    """Features of examples for a learned kernel: pure functions of its parameters.

    The features of an example depend on that example alone (no batch normalisation),
    so gradients with respect to single examples exist.

    Attributes:
      init: ``init(key) -> params``.
      features: ``features(params, x[B, V, C]) -> [B, K]``.
      activations: ``activations(params, x[B, V, C])``: what every layer gives,
        ``[B, ...]`` each; the features are the last.
    """

    init: Callable[[Array], PyTree]
    features: Callable[[PyTree, Array], Array]
    activations: Callable[[PyTree, Array], tuple[Array, ...]]


class Flow(NamedTuple):
    r"""An invertible map of examples to features: pure functions of its parameters.

    Features have the shape of examples and stand where the pixels are that they depend
    on. The variables fall into *blocks*: the features of a block depend on the values
    of this block and of no other. So the Jacobian is block diagonal, and whole blocks
    can be left out.

    Attributes:
      name: what it is, for messages.
      init: ``init(key, x[B, V, C]) -> params``; the values standardise the features.
      forward: ``forward(params, x[B, V, C]) -> (features[B, V, C], log_det[B, G])``
        with :math:`\log |\det \partial f_g / \partial x_g|` in nats per block g; the
        sum over g is the flow's. ``-inf`` outside of its domain.
      inverse: ``inverse(params, features[B, V, C]) -> x``.
      blocks: per variable, the number of its block, ``0 .. G - 1``.
      affine: whether ``forward`` is an affine map, through which means and modes pass.
    """

    name: str
    init: Callable[[Array, Array], PyTree]
    forward: Callable[[PyTree, Array], tuple[Array, Array]]
    inverse: Callable[[PyTree, Array], Array]
    blocks: tuple[int, ...]
    affine: bool

    @property
    def num_blocks(self) -> int:
        """G."""
        return max(self.blocks) + 1
