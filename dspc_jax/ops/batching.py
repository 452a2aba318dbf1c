"""One example per call at the edge, one batch per call inside.

The public functions of a circuit take one example; users batch them with ``jax.vmap``.
Inside, arrays carry their examples on an explicit last axis ``N``, so that the memory
layout of every product is chosen here and not by the batching rules of single
operations. `foldable` joins the two: a batched function becomes a function of one
example whose ``vmap`` folds the mapped axis into ``N`` instead of adding an axis.
"""

from collections.abc import Callable, Hashable, Sequence
import functools
from typing import Any, NamedTuple

import jax
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from dspc_jax.ops.derivatives import varying_alike
from dspc_jax.ops.meshes import placed
from dspc_jax.types import Array


def foldable(
    batched: Callable[..., Any], *, repeats: bool = False
) -> Callable[..., Any]:
    """Turns a function of a batch into a function of one example that folds ``vmap``.

    ``jax.vmap(foldable(f), (None, 0))(params, x)`` is ``f(params, x)`` with all
    examples in one call, and so is a second ``vmap`` around it. If ``params`` are
    mapped too (one circuit per seed), ``f`` itself is vmapped. Differentiation sees the
    operations of ``f``, its custom derivatives included. ``f`` is compiled where it is
    called outside of ``jax.jit``, its derivatives as well, and traced once for equal
    shapes. On a mesh with explicit axes the compiler places what is inside ``f``; the
    results lie as the mapped examples do.

    Args:
        batched: ``f(params, *examples, **static) -> pytree``. Every array in
            ``examples`` and in the result has a leading axis ``N`` of independent
            examples; ``params`` has none. Examples may be None.
        repeats: whether ``f`` takes all examples but the first with an axis of 1, if
            none of them is mapped.

    Returns:
        ``g(params, *example, shape=None, **static) -> pytree`` without the axis ``N``.
        Static arguments are hashable. A caller that knows the ``shape`` of the one
        floating-point array that results saves the trace that finds it out.
    """

    @functools.wraps(batched)
    def single(
        params: Any,
        *example: Any,
        shape: tuple[int, ...] | None = None,
        **static: Hashable,
    ) -> Any:
        example = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], example)
        param_leaves, param_tree = jax.tree.flatten(params)
        example_leaves, example_tree = jax.tree.flatten(example)
        call = _Call(batched, tuple(static.items()), param_tree, example_tree, repeats)
        leaves = varying_alike((*param_leaves, *example_leaves))
        if shape is None:
            results = jax.eval_shape(functools.partial(_placed, call), *leaves)
        else:
            results = jax.ShapeDtypeStruct((1, *shape), _float_type(param_leaves))
        kinds, tree = jax.tree.flatten(results)
        out = _fold_p.bind(
            *leaves,
            call=call,
            kinds=tuple((kind.shape[1:], kind.dtype) for kind in kinds),
        )
        return jax.tree.unflatten(tree, [leaf[0] for leaf in out])

    return single


class _Call(NamedTuple):
    """A batched function with its static arguments, and the trees of its arrays.

    Equal calls share their traces.
    """

    function: Callable[..., Any]
    static: tuple[tuple[str, Hashable], ...]
    param_tree: Any
    example_tree: Any
    repeats: bool


@functools.partial(jax.jit, static_argnums=0)
def _apply(call: _Call, *leaves: Any) -> Any:
    """The batched function of lists of leaves, compiled."""
    count = call.param_tree.num_leaves
    params = jax.tree.unflatten(call.param_tree, leaves[:count])
    examples = jax.tree.unflatten(call.example_tree, leaves[count:])
    function = functools.partial(call.function, **dict(call.static))
    size = leaves[count].shape[0]
    if isinstance(size, int) and size == 0:  # no product has an axis to infer
        one = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct((1, *leaf.shape[1:]), leaf.dtype),
            examples,
        )
        out = jax.eval_shape(function, params, *one)
        return jax.tree.map(lambda a: jnp.zeros((0, *a.shape[1:]), a.dtype), out)
    return function(params, *examples)


def _placed(call: _Call, *leaves: Any) -> Any:
    """`_apply`, whose results lie over an explicit mesh as its examples do."""
    rows = _rows_of(call, [jax.typeof(leaf) for leaf in leaves])
    return placed(functools.partial(_apply, call), rows)(*leaves)


def _rows_of(call: _Call, avals: Sequence[Any]) -> PartitionSpec:
    """Over which explicit axes of a mesh the examples lie."""
    specs = [aval.sharding.spec for aval in avals[call.param_tree.num_leaves :]]
    return PartitionSpec(next((s[0] for s in specs if s and s[0] is not None), None))


def _reshaped(x: Array, rank: int, *first: Any) -> Array:
    """``x`` with these axes for its first ``rank``; they lie as the first one did."""
    shape, sharding = (*first, *x.shape[rank:]), jax.typeof(x).sharding
    if not sharding.mesh.explicit_axes:
        return x.reshape(shape)
    rows, *others = sharding.spec
    spec = (rows, *(None,) * (len(first) - 1), *others[rank - 1 :])
    place = NamedSharding(sharding.mesh, PartitionSpec(*spec))
    return jnp.reshape(x, shape, out_sharding=place)


def _float_type(leaves: list[Any]) -> Any:
    """The type of numbers that are computed from these and from float32 numbers."""
    wide = any(jnp.result_type(leaf) == jnp.float64 for leaf in leaves)
    return jnp.dtype(jnp.float64 if wide else jnp.float32)


_fold_p = Primitive("dspc_fold")
_fold_p.multiple_results = True


@_fold_p.def_impl
def _impl(*leaves, call, kinds):
    del kinds
    return jax.tree.leaves(_placed(call, *leaves))


@_fold_p.def_abstract_eval
def _abstract_eval(*avals, call, kinds):
    size = avals[call.param_tree.num_leaves].shape[0]
    mesh, varying = avals[0].sharding.mesh, avals[0].manual_axis_type
    rows = _rows_of(call, avals)
    return [
        ShapedArray(
            (size, *shape),
            dtype,
            sharding=NamedSharding(mesh, PartitionSpec(*rows, *(None,) * len(shape))),
            manual_axis_type=varying,
        )
        for shape, dtype in kinds
    ]


def _fold_batch(leaves, dims, *, call, kinds):
    size = next(x.shape[d] for x, d in zip(leaves, dims, strict=True) if d is not None)
    count = call.param_tree.num_leaves
    if any(d is not None for d in dims[:count]):
        out = jax.vmap(functools.partial(_placed, call), dims, axis_size=size)(*leaves)
        out = jax.tree.leaves(out)
        return out, [0] * len(out)

    rows = [
        jnp.broadcast_to(x, (size, *x.shape)) if d is None else jnp.moveaxis(x, d, 0)
        for x, d in zip(leaves[count:], dims[count:], strict=True)
    ]
    inner = rows[0].shape[1]
    examples = [
        _reshaped(jnp.broadcast_to(x, (size, inner, *x.shape[2:])), 2, size * inner)
        for x in rows
    ]
    others = list(zip(leaves, dims, strict=True))[count + 1 :]
    if call.repeats and all(d is None and _is_one(x.shape[0]) for x, d in others):
        examples[1:] = [x for x, _ in others]
    out = _fold_p.bind(*leaves[:count], *examples, call=call, kinds=kinds)
    return [_reshaped(x, 1, size, inner) for x in out], [0] * len(out)


def _is_one(size: Any) -> bool:
    return isinstance(size, int) and size == 1  # not symbolic


def _fold_jvp(primals, tangents, *, call, kinds):
    del kinds
    moving = [i for i, t in enumerate(tangents) if not isinstance(t, ad.Zero)]

    def along(*values):
        leaves = list(primals)
        for i, value in zip(moving, values, strict=True):
            leaves[i] = value
        return jax.tree.leaves(_placed(call, *leaves))

    return jax.jvp(along, [primals[i] for i in moving], [tangents[i] for i in moving])


def _lowered(*leaves, call, kinds):
    out = jax.tree.leaves(_placed(call, *leaves))
    size = leaves[call.param_tree.num_leaves].shape[0]
    for x, (shape, dtype) in zip(out, kinds, strict=True):
        if x.shape != (size, *shape) or x.dtype != dtype:
            raise TypeError(
                f"{call.function.__name__} must return {dtype} of shape "
                f"{(size, *shape)}, got {x.dtype} of shape {x.shape}"
            )
    return out


batching.primitive_batchers[_fold_p] = _fold_batch
ad.primitive_jvps[_fold_p] = _fold_jvp
mlir.register_lowering(_fold_p, mlir.lower_fun(_lowered, True))


@jax.custom_batching.custom_vmap
def for_all(condition: Array) -> Array:
    """A condition bool ``[]``; under ``vmap`` whether it holds for all that is mapped.

    A branch on it stays a branch, where `jax.lax.cond` of a mapped condition computes
    both sides.
    """
    return condition


@for_all.def_vmap
def _for_all_of_batch(size, is_batched, condition):
    del size, is_batched
    return for_all(jnp.all(condition, axis=0)), False
