"""The type of an invertible map."""

from collections.abc import Callable
import dataclasses
import functools
import inspect
from typing import Any, NamedTuple, ParamSpec

from dspc_jax.arguments import plain, store
from dspc_jax.types import Array, PyTree

P = ParamSpec("P")
_MAKERS: dict[str, Callable[..., "Flow"]] = {}
"""Filled by `configured` when modules are imported."""


@dataclasses.dataclass(frozen=True)
class FlowConfig:
    """What a flow is made from, hashable: for files, and for pickles.

    Attributes:
        maker: name of a function that `configured` knows.
        arguments: its arguments by name; numbers, or the `FlowConfig` of a flow.

    Raises:
        ValueError: no such function, or its arguments are no such pairs.
    """

    maker: str
    arguments: tuple[tuple[str, Any], ...]

    def __post_init__(self):
        if self.maker not in _MAKERS:
            raise ValueError(
                f"maker must be one of {sorted(_MAKERS)}, got {self.maker!r:.80}"
            )
        for pair in self.arguments:
            if not isinstance(pair, tuple) or list(map(type, pair[:1])) != [str]:
                raise ValueError(
                    f"arguments must be pairs of a name and a value, got {pair!r:.80}"
                )
        pairs = tuple((name, plain(value)) for name, value in self.arguments)
        store(self, arguments=pairs)

    def build(self) -> "Flow":
        """The flow; the same object for the same arguments."""
        return self.call()

    @property
    def call(self) -> Callable[[], "Flow"]:
        """The function with its arguments."""
        arguments = {
            name: value.build() if isinstance(value, FlowConfig) else value
            for name, value in self.arguments
        }
        return functools.partial(_MAKERS[self.maker], **arguments)

    @property
    def sizes(self) -> dict[str, int]:
        """Its whole numbers, and those of the flows in it, by name."""
        sizes = {}
        for name, value in self.arguments:
            if isinstance(value, FlowConfig):
                sizes |= value.sizes
            elif isinstance(value, int):
                sizes[name] = value
        return sizes


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
        config: what it was made from; None for one that no file can hold.
    """

    name: str
    init: Callable[[Array, Array], PyTree]
    forward: Callable[[PyTree, Array], tuple[Array, Array]]
    inverse: Callable[[PyTree, Array], Array]
    blocks: tuple[int, ...]
    affine: bool
    config: FlowConfig | None = None

    @property
    def num_blocks(self) -> int:
        """G."""
        return max(self.blocks) + 1

    @property
    def is_configured(self) -> bool:
        """Whether its configuration gives this flow again."""
        return self.config is not None and self.config.build() == self

    def __reduce__(self):
        """Pickles as a call of its maker, or else by its functions."""
        if self.config is not None and self.is_configured:
            return self.config.call, ()
        return Flow, tuple(self)


def configured(maker: Callable[P, Flow]) -> Callable[P, Flow]:
    """Lets a flow know what it was made from, so that it can be saved and pickled.

    As a decorator of a function that makes flows from numbers and other flows, which
    keep their names. A program that loads the file imports the function first.

    Args:
        maker: the function, of a name that no other has.

    Returns:
        The same function; equal arguments give the same flow, and the last 64 are kept.
    """
    signature = inspect.signature(maker)

    # Typed: a bool is no size, although it equals one.
    @functools.lru_cache(maxsize=64, typed=True)
    def made(**arguments: Any) -> Flow:
        config = FlowConfig(
            maker.__name__,
            tuple(
                (name, value.config if isinstance(value, Flow) else value)
                for name, value in arguments.items()
            ),
        )
        make: Callable[..., Flow] = maker
        flow = make(**arguments)
        parts = [value for value in arguments.values() if isinstance(value, Flow)]
        is_known = all(part.config is not None for part in parts)
        return flow._replace(config=config if is_known else None)

    @functools.wraps(maker)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> Flow:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return made(**{name: plain(v) for name, v in bound.arguments.items()})

    _MAKERS[maker.__name__] = wrapper
    return wrapper
