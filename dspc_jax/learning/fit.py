"""Training as one function: compiled steps, validation, the best parameters."""

from collections.abc import Callable
import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dspc_jax.arguments import shown, whole_number
from dspc_jax.circuit import Circuit
from dspc_jax.examples import as_mask, check_key, rows
from dspc_jax.learning.batches import batch_indices
from dspc_jax.learning.em import EM
from dspc_jax.learning.loop import gather, run_steps, start
from dspc_jax.supports import check
from dspc_jax.types import Array, Key, Metrics, PyTree

Objective = Callable[[Any, Key, Array], tuple[Array, Metrics]]
"""``objective(params, key, batch[B, V, C]) -> (loss, metrics)``."""
Callback = Callable[[int, PyTree, dict[str, float]], bool | None]
"""``callback(step, params, metrics)``; True ends the training."""

_EPOCHS = 20  # where the number of steps is not given


class History(NamedTuple):
    """What a training measured, E times.

    Attributes:
        step: ``[E]`` int, steps done.
        train: by name, ``[E]`` float: the mean of a metric over the steps since the
            entry before. ``loss`` is in nats per example where there is no other
            objective than the likelihood.
        valid: ``[E]`` float, the loss of the validation examples; NaN without any.
        best_step: the step whose parameters were returned.
    """

    step: np.ndarray
    train: dict[str, np.ndarray]
    valid: np.ndarray
    best_step: int


def fit(
    circuit: Any,
    params: PyTree,
    data: Any,
    *,
    key: Key,
    objective: Objective | None = None,
    optimizer: optax.GradientTransformation | None = None,
    num_steps: int | None = None,
    batch_size: int = 256,
    observed: Any = None,
    valid: Any = None,
    valid_observed: Any = None,
    eval_every: int | None = None,
    patience: int | None = None,
    callback: Callback | None = None,
) -> tuple[PyTree, History]:
    """Trains a circuit: any objective, any optimizer, or expectation maximization.

    Steps run on the device, many at a call, compiled once for each circuit, objective
    and optimizer (the same objects) and each shape. Batches are a function of the key
    and the step: every example comes once an epoch, in a new order.

    Args:
        circuit: a `dspc_jax.Circuit`, or one behind a flow.
        params: its parameters, as from ``circuit.init(key, data)``.
        data: values ``[N, V, C]`` (``[N, V]`` with one channel), in the leaves' units.
        key: one typed key.
        objective: a function ``(params, key, batch) -> (loss, metrics)`` that is
            minimized, such as those of `dspc_jax.objectives` with their other arguments
            bound; None: the mean negative log-likelihood, marginal where something is
            not observed.
        optimizer: any optax transformation, or `dspc_jax.em` (for the likelihood
            alone); None: Adam with steps of 0.01.
        num_steps: the number of steps; None: as many as 20 epochs have.
        batch_size: B; as many examples as there are, if there are fewer.
        observed: bool ``[N, V]``, which of the data there are (the others may be NaN);
            only for the likelihood.
        valid: validation examples ``[M, V, C]``, or None. Where there are any, the
            parameters of the least validation loss are returned, the first ones among
            them.
        valid_observed: bool ``[M, V]``, as ``observed``.
        eval_every: steps from one entry of the history to the next; None: one epoch.
        patience: entries in a row without a lower validation loss that end the
            training; None: none do.
        callback: called at every entry with the steps done, the parameters and the
            entry's metrics as numbers (those of training, and ``valid_loss``); where it
            returns True, the training ends.

    Returns:
        The parameters, and the history.

    Raises:
        ValueError: an argument has another type, shape or range; a value is NaN, or
            impossible under its leaf (`dspc_jax.check`); EM with an objective.
        FloatingPointError: the loss, or a metric, became infinite or NaN; the message
            names it and the step.
    """
    plain = getattr(circuit, "circuit", circuit)
    if not isinstance(plain, Circuit):
        raise ValueError(f"circuit must be a Circuit, got {shown(circuit)}")
    check_key(key)
    examples = _examples(circuit, "data", data, observed)
    held_out = None
    if valid is not None:
        held_out = _examples(circuit, "valid", valid, valid_observed)
    elif valid_observed is not None or patience is not None:
        name = "patience" if valid_observed is None else "valid_observed"
        raise ValueError(f"valid must be given with {name}, got None")
    if objective is not None and not (examples[1] is None and valid_observed is None):
        raise ValueError("observed must be None with an objective, got a mask")
    if optimizer is None:
        optimizer = _adam()
    is_em = isinstance(optimizer, EM)
    if is_em and objective is not None:
        raise ValueError(
            "optimizer must be another than em with an objective of your own, got em"
        )
    size = min(whole_number("batch_size", batch_size, least=1), len(examples[0]))
    epoch = -(-len(examples[0]) // size)
    every = whole_number(
        "eval_every", epoch if eval_every is None else eval_every, least=1
    )
    total = whole_number(
        "num_steps", _EPOCHS * epoch if num_steps is None else num_steps, least=1
    )
    if patience is not None:
        patience = whole_number("patience", patience, least=1)
    trainer = _Trainer(circuit, objective, optimizer, size)
    return _train(
        trainer, params, key, examples, held_out, total, every, patience, callback
    )


@functools.cache  # one object, so that a second call compiles nothing
def _adam() -> optax.GradientTransformation:
    return optax.adam(1e-2)


def _examples(circuit, name, x, observed):
    """Values ``[N, V, C]`` and their mask, possible under the leaves."""
    if isinstance(circuit, Circuit):
        x, observed = rows(circuit.layout, name, x, observed, None)
        check(circuit, x, observed, name=name)
    else:  # its masks are of values, whose leaves have features
        x, _ = rows(circuit.circuit.layout, name, x, None, None)
        if observed is not None:
            observed = as_mask(observed, x.shape[:2], "[N, V]")
    if not len(x):
        raise ValueError(f"{name} must hold at least one example, got none")
    return x, observed


@dataclasses.dataclass(frozen=True)
class _Trainer:
    """What is compiled, but for arrays."""

    circuit: Any
    objective: Objective | None
    optimizer: optax.GradientTransformation
    batch_size: int

    def loss(self, params, key, x, observed):
        """The loss of a batch, and metrics."""
        if self.objective is not None:
            return self.objective(params, key, x)
        return -jnp.mean(_log_probs(self.circuit, params, x, observed)), {}

    def step(self, state, key, x, observed):
        """One step: ``(params, optimizer's state)`` and metrics."""
        params, memory = state
        if isinstance(self.optimizer, EM):
            loss, metrics = self.loss(params, key, x, observed)
            updates = self.optimizer.counts(params, x, observed)
        else:
            graded = jax.value_and_grad(self.loss, has_aux=True)
            (loss, metrics), updates = graded(params, key, x, observed)
        updates, memory = self.optimizer.update(updates, memory, params)
        params = optax.apply_updates(params, updates)
        return (params, memory), {"loss": loss, **metrics}


def _log_probs(circuit, params, x, observed):
    axes = (None, 0, None if observed is None else 0)
    return jax.vmap(circuit.log_prob, axes)(params, x, observed)


@functools.partial(jax.jit, static_argnums=0)
def _run(trainer: _Trainer, carry, key, examples, indices, first, num):
    return run_steps(_step_on(trainer, examples), carry, key, indices, first, num)


def _step_on(trainer: _Trainer, examples):
    def step(state, key, row, number):
        del number
        return trainer.step(state, key, *gather(examples, row))

    return step


@functools.partial(jax.jit, static_argnums=0)
def _loss_of(trainer: _Trainer, params, key, examples):
    """The loss of all examples; an objective's over batches, the rest left out."""
    if trainer.objective is None:

        def one(example):
            x, observed = example
            return trainer.circuit.log_prob(params, x, observed)

        return -jnp.mean(jax.lax.map(one, examples, batch_size=trainer.batch_size))
    x, _ = examples
    size = min(trainer.batch_size, len(x))
    num = len(x) // size
    parts = x[: num * size].reshape(num, size, *x.shape[1:])

    def part(inputs):
        number, batch = inputs
        return trainer.loss(params, jax.random.fold_in(key, number), batch, None)[0]

    return jnp.mean(jax.lax.map(part, (jnp.arange(num), parts)))


def _train(trainer, params, key, examples, held_out, total, every, patience, callback):
    key_steps, key_valid = jax.random.split(key)
    seed = int(jax.random.bits(jax.random.fold_in(key_valid, 1), dtype=jnp.uint32))
    count, size = len(examples[0]), trainer.batch_size
    state = params, trainer.optimizer.init(params)
    entries: list[tuple[int, dict[str, float], float]] = []
    best, best_step = params, 0
    least = float("inf")
    if held_out is not None:
        least = float(_loss_of(trainer, params, key_valid, held_out))
    indices = np.zeros((every, size), np.int32)
    carry = start(_step_on(trainer, examples), state, key_steps, indices[0])
    for first in range(0, total, every):
        num = min(every, total - first)
        indices[:num] = batch_indices(seed, first, num, size, count)
        carry = carry._replace(
            sums=jax.tree.map(jnp.zeros_like, carry.sums), num_steps=jnp.int32(0)
        )
        carry, last = _run(trainer, carry, key_steps, examples, indices, first, num)
        _check_finite(last, first)
        params, step = carry.state[0], first + num
        means = {name: float(value) / num for name, value in carry.sums.items()}
        valid = float("nan")
        if held_out is not None:
            valid = float(_loss_of(trainer, params, key_valid, held_out))
        entries.append((step, means, valid))
        if held_out is None or valid < least:
            least, best_step = valid, step
            best = params
        metrics = means if held_out is None else {**means, "valid_loss": valid}
        if callback is not None and callback(step, params, metrics):
            break
        passed = sum(entry[0] > best_step for entry in entries)
        if patience is not None and passed >= patience:
            break
    return best, _history(entries, best_step)


def _check_finite(last, first):
    if bool(last.finite):
        return
    values = {name: float(value) for name, value in last.metrics.items()}
    name = next(n for n, value in values.items() if not np.isfinite(value))
    raise FloatingPointError(
        f"{name} must stay finite, got {values[name]} in step "
        f"{first + int(last.num_done)} (try smaller steps, or look at the data)"
    )


def _history(entries, best_step) -> History:
    steps, means, valid = zip(*entries, strict=True)
    names = means[0]
    return History(
        np.array(steps),
        {name: np.array([each[name] for each in means]) for name in names},
        np.array(valid),
        best_step,
    )
