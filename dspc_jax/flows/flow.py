"""The type of an invertible map."""

from collections.abc import Callable
from typing import NamedTuple

from dspc_jax.types import Array, PyTree


class Flow(NamedTuple):
    r"""An invertible map of examples to features: pure functions of its parameters.

    Features have the shape of examples, and each has the place of a pixel that it
    depends on. The variables fall into *blocks*: the features of a block depend on the
    values of this block and of no other. So the Jacobian is block diagonal, and whole
    blocks can be left out.

    Attributes:
        name: the flow's name in messages.
        init: ``init(key, x[B, V, C]) -> params``, such that the features of ``x`` are
            standardized.
        forward: ``forward(params, x[B, V, C]) -> (features[B, V, C], log_det[B, G])``
            with :math:`\log |\det \partial f_g / \partial x_g|` in nats per block g;
            the sum over g is the flow's. ``-inf`` outside of its domain.
        inverse: ``inverse(params, features[B, V, C]) -> x``.
        blocks: per variable, the number of its block, ``0 .. G - 1``.
        affine: whether ``forward`` is an affine map, through which means and modes
            pass.
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
