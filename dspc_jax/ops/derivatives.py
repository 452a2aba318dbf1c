"""Derivatives that are written by hand in reverse, for every mode of differentiation.

The products, the sums and the choices of a circuit know better ways back than those
that JAX derives: other memory layouts, no division by a probability that may be 0, the
forward computed again and not stored. `jax.custom_vjp` would take these and refuse
forward mode. A `Differentiable` takes the same pair of functions; since the way back is
linear in the cotangents, its transpose is the derivative forward.
"""

from collections.abc import Callable, Sequence
import functools
from typing import Any, NamedTuple

import jax
from jax.custom_derivatives import SymbolicZero
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
import jax.numpy as jnp


class Differentiable:
    """A function of pytrees of arrays with a derivative that is written in reverse.

    As with `jax.custom_vjp`, ``f.defvjp(forward, backward)`` gives the derivative:
    ``forward(*arguments) -> (result, residuals)`` and ``backward(*static, residuals,
    cotangents) -> one cotangent per argument that is not static``. ``backward`` must be
    linear in the cotangents, and ``forward`` calls ``f`` itself, if second derivatives
    are to see the rule and not what is behind it.

    Attributes:
        function: what is computed.
        num_static: of the first arguments, those that are hashable and no arrays.
    """

    def __init__(self, function: Callable[..., Any], num_static: int = 0):
        functools.update_wrapper(self, function)
        self.num_static = num_static
        self._rule = jax.custom_jvp(function, nondiff_argnums=tuple(range(num_static)))

    def __call__(self, *arguments: Any) -> Any:
        """The function's value."""
        static = arguments[: self.num_static]
        return self._rule(*static, *varying_alike(arguments[self.num_static :]))

    def defvjp(
        self,
        forward: Callable[..., Any],
        backward: Callable[..., Any],
        reverse_only: str = "",
    ) -> None:
        """Defines the derivative.

        Args:
            forward: see above.
            backward: see above.
            reverse_only: why ``backward`` is not linear, if it is not. Forward mode is
                then impossible, and a TypeError gives the reason where it runs or is
                compiled; reverse mode of every order is not touched.
        """
        name = getattr(self, "__name__", "function")
        reason = f"{name} must not be differentiated forward: {reverse_only}"

        def rule(*arguments):
            *static, primals, tangents = arguments
            result, residuals = forward(*static, *primals)
            pull = _Pullback(backward, tuple(static), reason if reverse_only else "")
            return result, _along(pull, residuals, tangents, result)

        self._rule.defjvp(rule, symbolic_zeros=True)


def varying_alike(arguments: Any) -> Any:
    """Arrays that vary over the same axes of a mesh, inside of `jax.shard_map`.

    What is the same on all devices becomes, without a copy, an array of each device;
    where it is differentiated, the devices' cotangents are added up.
    """

    def axes(array) -> frozenset[str]:
        return jax.typeof(array).manual_axis_type.varying

    every = frozenset().union(*map(axes, jax.tree.leaves(arguments)))
    if not every:
        return arguments

    def varying(leaf):
        missing = tuple(sorted(every - axes(leaf)))
        return jax.lax.pcast(leaf, missing, to="varying") if missing else leaf

    return jax.tree.map(varying, arguments)


class _Pullback(NamedTuple):
    """The way back: from residuals and cotangents, lists of arrays, to cotangents.

    Attributes:
        backward: the user's.
        static: its static arguments.
        refusal: the error of forward mode, if it is impossible.
        residuals: the tree of its residuals.
        result: the tree of its cotangents.
        places: of the arrays that it returns, those that are wanted.
    """

    backward: Callable[..., Any]
    static: tuple[Any, ...]
    refusal: str
    residuals: Any = None
    result: Any = None
    places: tuple[int, ...] = ()

    def __call__(self, residuals: Sequence[Any], cotangents: Sequence[Any]) -> Any:
        out = self.backward(
            *self.static,
            jax.tree.unflatten(self.residuals, residuals),
            jax.tree.unflatten(self.result, cotangents),
        )
        leaves = jax.tree.leaves(out)
        return [leaves[place] for place in self.places]


class _Mapped(NamedTuple):
    """A way back for many residuals or cotangents at once, these on their first axes.

    Attributes:
        pull: of one.
        dims: the mapped axes of the residuals.
        size: the number of them.
        refusal: as that of ``pull``.
    """

    pull: Any
    dims: tuple[int | None, ...]
    size: int
    refusal: str

    def __call__(self, residuals: Sequence[Any], cotangents: Sequence[Any]) -> Any:
        mapped = jax.vmap(self.pull, (list(self.dims), 0), axis_size=self.size)
        return mapped(list(residuals), list(cotangents))


def _along(pull, residuals, tangents, result):
    """The tangents of ``result``, a tree."""
    kinds, tree = jax.tree.flatten(jax.tree.map(_tangent_type, result))
    residual_leaves, residual_tree = jax.tree.flatten(residuals)
    moving = [
        (place, leaf)
        for place, leaf in enumerate(jax.tree.leaves(tangents))
        if not isinstance(leaf, SymbolicZero)
    ]
    places = tuple(place for place, _ in moving)
    out = _push_p.bind(
        *residual_leaves,
        *(leaf for _, leaf in moving),
        pull=pull._replace(residuals=residual_tree, result=tree, places=places),
        kinds=tuple(kinds),
        num_residuals=len(residual_leaves),
    )
    return jax.tree.unflatten(tree, out)


def _tangent_type(array):
    return jax.typeof(array).to_tangent_aval()


_push_p = Primitive("dspc_push")
"""From residuals and tangents of arguments to tangents of results.

Its transpose is the way back as it is written, in every order of differentiation.
"""
_push_p.multiple_results = True


@_push_p.def_abstract_eval
def _push_type(*avals, pull, kinds, num_residuals):
    del avals, pull, num_residuals
    return list(kinds)


def _push(*leaves, pull, kinds, num_residuals):
    if pull.refusal:
        raise TypeError(pull.refusal)
    residuals, tangents = leaves[:num_residuals], leaves[num_residuals:]
    along = jax.linear_transpose(lambda *g: pull(residuals, g), *kinds)
    return list(along(list(tangents)))


@_push_p.def_impl
def _push_now(*leaves, **settings):
    return jax.jit(functools.partial(_push, **settings))(*leaves)


def _push_jvp(primals, tangents, *, num_residuals, **settings):
    """Linear in the tangents; through the residuals, as JAX derives it."""
    push = functools.partial(_push_p.bind, num_residuals=num_residuals, **settings)
    residuals, linear = primals[:num_residuals], primals[num_residuals:]
    out = push(*primals)
    terms = []
    moved = tangents[num_residuals:]
    if not all(isinstance(t, ad.Zero) for t in moved):
        terms.append(push(*residuals, *map(ad.instantiate_zeros, moved)))
    moving = [
        i for i, t in enumerate(tangents[:num_residuals]) if not isinstance(t, ad.Zero)
    ]
    if moving:

        def at(*values):
            leaves = list(residuals)
            for i, value in zip(moving, values, strict=True):
                leaves[i] = value
            return _push(*leaves, *linear, num_residuals=num_residuals, **settings)

        values = [residuals[i] for i in moving], [tangents[i] for i in moving]
        terms.append(jax.jvp(at, *values)[1])
    return out, [functools.reduce(jnp.add, parts) for parts in zip(*terms, strict=True)]


def _push_transpose(cotangents, *leaves, pull, kinds, num_residuals):
    residuals, linear = leaves[:num_residuals], leaves[num_residuals:]
    cotangents = [
        jnp.zeros(kind.shape, kind.dtype) if isinstance(g, ad.Zero) else g
        for g, kind in zip(cotangents, kinds, strict=True)
    ]
    out = pull(residuals, varying_alike((residuals, cotangents))[1])
    wanted = [
        g if ad.is_undefined_primal(x) else None
        for g, x in zip(out, linear, strict=True)
    ]
    return [None] * num_residuals + wanted


def _push_batch(leaves, dims, *, pull, kinds, num_residuals):
    size = next(x.shape[d] for x, d in zip(leaves, dims, strict=True) if d is not None)
    linear = [
        jnp.broadcast_to(x, (size, *x.shape)) if d is None else jnp.moveaxis(x, d, 0)
        for x, d in zip(leaves[num_residuals:], dims[num_residuals:], strict=True)
    ]
    out = _push_p.bind(
        *leaves[:num_residuals],
        *linear,
        pull=_Mapped(pull, tuple(dims[:num_residuals]), size, pull.refusal),
        kinds=tuple(_with_leading(kind, size) for kind in kinds),
        num_residuals=num_residuals,
    )
    return out, [0] * len(out)


def _with_leading(kind, size):
    """The type of ``size`` arrays of this type, stacked."""
    stack = jax.make_jaxpr(lambda x: jnp.broadcast_to(x, (size, *x.shape)))
    return stack(kind).out_avals[0]


ad.primitive_jvps[_push_p] = _push_jvp
ad.primitive_transposes[_push_p] = _push_transpose
batching.primitive_batchers[_push_p] = _push_batch
mlir.register_lowering(_push_p, mlir.lower_fun(_push, multiple_results=True))
