"""One example per call at the edge, one batch per call inside.

The public functions of a circuit take one example; users batch them with ``jax.vmap``.
Inside, arrays carry their examples on an explicit last axis ``N``, so that the memory
layout of every product is chosen here and not by the batching rules of single
operations. `foldable` joins the two: a batched function becomes a function of one
example whose ``vmap`` folds the mapped axis into ``N`` instead of adding an axis.
"""

from collections.abc import Callable
import functools
from typing import Any, NamedTuple

import jax
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
import jax.numpy as jnp


def foldable(batched: Callable[..., Any]) -> Callable[..., Any]:
    """Turns a function of a batch into a function of one example that folds ``vmap``.

    ``jax.vmap(foldable(f), (None, 0))(params, x)`` is ``f(params, x)`` with all
    examples in one call, and so is a second ``vmap`` around it. If ``params`` are
    mapped too (one circuit per seed), ``f`` itself is vmapped. Differentiation sees the
    operations of ``f``, its custom derivatives included.

    Args:
      batched: ``f(params, *examples) -> pytree``. Every array in ``examples`` and in
        the result has a leading axis ``N`` of independent examples; ``params`` has
        none.

    Returns:
      ``g(params, *example) -> pytree`` without the axis ``N``.
    """

    @functools.wraps(batched)
    def single(params: Any, *example: Any) -> Any:
        example = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], example)
        param_leaves, param_tree = jax.tree.flatten(params)
        example_leaves, example_tree = jax.tree.flatten(example)
        call = _on_leaves(batched, param_tree, example_tree)
        out_tree = jax.tree.structure(jax.eval_shape(batched, params, *example))
        out = _fold_p.bind(*param_leaves, *example_leaves, call=call)
        return jax.tree.unflatten(out_tree, [leaf[0] for leaf in out])

    return single


class _OnLeaves(NamedTuple):
    """A batched function that takes and returns lists of array leaves."""

    call: Callable[..., list[Any]]
    num_params: int


@functools.cache
def _on_leaves(batched: Callable[..., Any], param_tree: Any, example_tree: Any):
    """The same object for the same function and trees, so that traces are reused."""
    num_params = param_tree.num_leaves

    def call(*leaves):
        params = jax.tree.unflatten(param_tree, leaves[:num_params])
        example = jax.tree.unflatten(example_tree, leaves[num_params:])
        return jax.tree.leaves(batched(params, *example))

    return _OnLeaves(call, num_params)


_fold_p = Primitive("dspc_fold")
_fold_p.multiple_results = True


@_fold_p.def_impl
def _impl(*leaves, call):
    return jax.jit(call.call)(*leaves)


@_fold_p.def_abstract_eval
def _abstract_eval(*avals, call):
    inputs = [jax.ShapeDtypeStruct(aval.shape, aval.dtype) for aval in avals]
    outputs = jax.eval_shape(call.call, *inputs)
    return [ShapedArray(out.shape, out.dtype) for out in outputs]


def _fold_batch(leaves, dims, *, call):
    size = next(x.shape[d] for x, d in zip(leaves, dims, strict=True) if d is not None)
    if any(d is not None for d in dims[: call.num_params]):
        out = jax.vmap(call.call, dims, axis_size=size)(*leaves)
        return out, [0] * len(out)
    folded = list(leaves[: call.num_params])
    for x, d in zip(leaves[call.num_params :], dims[call.num_params :], strict=True):
        x = (
            jnp.broadcast_to(x, (size, *x.shape))
            if d is None
            else jnp.moveaxis(x, d, 0)
        )
        folded.append(x.reshape(-1, *x.shape[2:]))
    out = _fold_p.bind(*folded, call=call)
    return [x.reshape(size, -1, *x.shape[1:]) for x in out], [0] * len(out)


def _fold_jvp(primals, tangents, *, call):
    moving = [i for i, t in enumerate(tangents) if not isinstance(t, ad.Zero)]

    def along(*values):
        leaves = list(primals)
        for i, value in zip(moving, values, strict=True):
            leaves[i] = value
        return call.call(*leaves)

    return jax.jvp(along, [primals[i] for i in moving], [tangents[i] for i in moving])


batching.primitive_batchers[_fold_p] = _fold_batch
ad.primitive_jvps[_fold_p] = _fold_jvp
mlir.register_lowering(_fold_p, mlir.lower_fun(lambda *x, call: call.call(*x), True))
