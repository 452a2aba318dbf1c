"""Many steps of training as one compiled loop; it knows no model and no objective.

`run_steps` is a ``jax.lax.scan`` whose length is an argument, so a run may be cut into
chunks anywhere without recompiling and without changing a bit of the result; it adds up
the metrics, and stops where one of them is not finite. A whole run::

    def step(state, key, rows, number):
        loss, grads = jax.value_and_grad(objective)(state.params, key, data[rows])
        ...
        return state, {"loss": loss}

    run = jax.jit(functools.partial(run_steps, step), donate_argnums=0)
    carry = start(step, state, key, rows[0])
    carry, last = run(carry, key, rows, first=0, num=len(rows))
    mean_loss = carry.sums["loss"] / carry.num_steps

With keys ``[S]`` in the place of one key, S runs train together as one program.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dspc_jax.types import Array, Key, Metrics, PyTree

Step = Callable[[PyTree, Key, PyTree, Array], tuple[PyTree, Metrics]]
"""``(state, key, batch, number) -> (state, metrics)``: one step of one run.

``number`` is the int32 number of steps before this one, the same for all runs (a
``lax.cond`` on it stays a branch), ``key`` a function of the run's key and ``number``,
``metrics`` a dict of scalars.
"""


class Carry(NamedTuple):
    """What steps change, and all that a run needs to go on; arrays lead with S runs.

    Attributes:
        state: the state that the step takes and returns.
        sums: float32 sums of each metric over ``num_steps`` steps, ``[]`` or ``[S]``.
        num_steps: int32 ``[]`` or ``[S]``. For the means of a window, set it and the
            sums to zero where the window begins.
    """

    state: PyTree
    sums: Metrics
    num_steps: Array


class LastStep(NamedTuple):
    """The last step of a call.

    Attributes:
        num_done: int32 ``[]``, steps done in the call.
        metrics: float32, of the last of them, ``[]`` or ``[S]``; 0 if there was none.
        finite: bool ``[]`` or ``[S]``, whether they all are finite.
    """

    num_done: Array
    metrics: Metrics
    finite: Array


def start(step: Step, state: PyTree, key: Key, batch: PyTree) -> Carry:
    """The carry before the first step: nothing is summed yet, and nothing computed.

    Args:
        step: one step of one run.
        state: its first state; with keys ``[S]`` all arrays lead with S.
        key: one typed key, or ``[S]``.
        batch: one step's batch, of which only shapes matter.

    Returns:
        The carry.

    Raises:
        ValueError: the keys are not typed or have two axes, or a metric is no scalar.
    """
    _, metrics = jax.eval_shape(
        _step_of_runs(step, key), state, key, batch, jnp.int32(0)
    )
    for name, value in metrics.items():
        if value.shape != key.shape:
            raise ValueError(
                f"metrics must be scalars, got {name!r} of the shape "
                f"{value.shape[key.ndim :]}"
            )
    sums = {name: jnp.zeros(key.shape, jnp.float32) for name in metrics}
    return Carry(state, sums, jnp.zeros(key.shape, jnp.int32))


def run_steps(
    step: Step, carry: Carry, key: Key, batches: PyTree, first: Any, num: Any
) -> tuple[Carry, LastStep]:
    """Steps ``first .. first + num - 1``, fewer if a metric is not finite.

    Meant to be called under ``jax.jit``, where ``first`` and ``num`` are traced.

    Args:
        step: one step of one run. Batches that are rows of a data set it gathers by
            itself, see `gather`.
        carry: of `start`, or of the call before.
        key: the run's typed key, the same for all calls: step n gets
            ``jax.random.fold_in(key, n)``. Or ``[S]`` of them, one a run: the step is
            then vmapped, and carry and batches have S runs.
        batches: arrays ``[N, ...]`` or ``[N, S, ...]``, one entry a step: the batches
            themselves, or whatever the step makes them from. Without arrays, as in
            ``()``, the step draws its own.
        first: steps done before, int32.
        num: steps to do, int32; at most N are done.

    Returns:
        The carry after the last step and that step's metrics. After a step with a
        metric that is not finite in one of the runs, no run goes on; the carry is the
        one after it, with the metric in its sums. With ``num`` 0 the carry is as it was
        and ``finite`` true.

    Raises:
        ValueError: the keys are not typed or have two axes, or the leading axes of
            ``batches`` differ.
    """
    step = _step_of_runs(step, key)
    first, num = jnp.asarray(first, jnp.int32), _at_most(num, batches)
    fold_in = jax.random.fold_in if key.ndim == 0 else _fold_in_each

    def go_on(loop: tuple[Carry, LastStep]) -> Array:
        _, last = loop
        return (last.num_done < num) & jnp.all(last.finite)

    def body(loop: tuple[Carry, LastStep]) -> tuple[Carry, LastStep]:
        carry, last = loop
        number = first + last.num_done
        batch = gather(batches, last.num_done)
        state, metrics = step(carry.state, fold_in(key, number), batch, number)
        metrics = {name: m.astype(jnp.float32) for name, m in metrics.items()}
        sums = {name: carry.sums[name] + m for name, m in metrics.items()}
        finite = jnp.ones(key.shape, bool)
        for value in metrics.values():
            finite &= jnp.isfinite(value)
        return (
            Carry(state, sums, carry.num_steps + 1),
            LastStep(last.num_done + 1, metrics, finite),
        )

    none = LastStep(
        jnp.int32(0),
        jax.tree.map(jnp.zeros_like, carry.sums),
        jnp.ones(key.shape, bool),
    )
    return jax.lax.while_loop(go_on, body, (carry, none))


def gather(
    examples: PyTree, rows: Any, sharding: jax.sharding.Sharding | None = None
) -> PyTree:
    """The examples of these rows.

    Args:
        examples: arrays ``[n, ...]``, of NumPy on the host or on the device.
        rows: one number, or int ``[B]``; beyond the end they are the last, on a device.
        sharding: how the batch lies over a mesh; only under ``jax.jit``.

    Returns:
        Arrays ``[...]`` or ``[B, ...]``.
    """
    batch = jax.tree.map(lambda array: array[rows], examples)
    if sharding is None:
        return batch
    return jax.lax.with_sharding_constraint(batch, sharding)


def over_runs(
    function: Callable[..., PyTree], num_runs: int, in_axes: Sequence[int | None]
) -> Callable[..., PyTree]:
    """``vmap`` over S runs; a single one is called as it is, without a batch axis.

    Args:
        function: of one run.
        num_runs: S.
        in_axes: for each argument 0, or None where all runs share it.

    Returns:
        The function of all runs, whose arrays lead with S. A run among others is what
        it is alone, up to rounding.
    """
    if num_runs > 1:
        return jax.vmap(function, tuple(in_axes))

    def of_one(*arguments: PyTree) -> PyTree:
        single = [
            argument if axis is None else gather(argument, 0)
            for argument, axis in zip(arguments, in_axes, strict=True)
        ]
        return jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], function(*single))

    return of_one


_fold_in_each = jax.vmap(jax.random.fold_in, (0, None))


def _step_of_runs(step: Step, key: Key) -> Step:
    """The step as the keys ask for it: of one run, or of all of them."""
    typed = isinstance(key, jax.Array) and jnp.issubdtype(
        key.dtype, jax.dtypes.prng_key
    )
    if not typed or key.ndim > 1:
        raise ValueError(
            "key must be one typed key, as from jax.random.key, or one a run, "
            f"got {key!r}"
        )
    return step if key.ndim == 0 else over_runs(step, len(key), (0, 0, 0, None))


def _at_most(num: Any, batches: PyTree) -> Array:
    """``num``, but no more than there are batches."""
    num = jnp.asarray(num, jnp.int32)
    sizes = {len(array) for array in jax.tree.leaves(batches)}
    if len(sizes) > 1:
        raise ValueError(
            f"batches must have one leading axis, got the sizes {sorted(sizes)}"
        )
    return jnp.minimum(num, *sizes) if sizes else num
