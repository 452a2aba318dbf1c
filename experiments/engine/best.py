"""The best state of a run so far, by bits per dimension on the validation images."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from dspc_jax.learning.loop import Carry
from experiments.console.errors import UserError
from experiments.data import Dataset
from experiments.engine.system import Labelled, System

_BITS = "bits_per_dim", "bits_per_dim_bound"  # a program has one of them, or none


class Best(NamedTuple):
    """The state of each of S seeds at the evaluation that was its best; on the host.

    Attributes:
        bits: float64 ``[S]``, bits per dimension; infinite before the first evaluation.
        step: int64 ``[S]``, steps done before that evaluation.
        state: every array leading with S seeds.
    """

    bits: np.ndarray
    step: np.ndarray
    state: Any


class Progress(NamedTuple):
    """What a checkpoint holds: a `Carry`, and the best state where one is kept.

    Attributes:
        state: see `Carry`, as the next two.
        sums: of metrics.
        num_steps: in the sums.
        best: None where it is not kept: the checkpoint is then that of the carry.
        num_closed: int64 ``[]``, closing steps among all that were done; None where a
            run has none.
    """

    state: Any
    sums: Any
    num_steps: Any
    best: Best | None
    num_closed: Any = None

    @property
    def carry(self) -> Carry:
        """All but the best state."""
        return Carry(self.state, self.sums, self.num_steps)


def check(system: System, dataset: Dataset) -> None:
    """Refuses a system that does not measure bits; looks at shapes, computes nothing.

    Args:
        system: the functions that are trained.
        dataset: the images.

    Raises:
        UserError: its metrics have neither bits per dimension nor a bound of them.
    """
    batch: Any = dataset.valid[:2]
    if system.labelled:
        batch = Labelled(batch, np.zeros(len(batch), np.int32))
    key = jax.random.key(0)
    state = jax.eval_shape(system.init, key)
    names = jax.eval_shape(system.evaluate, state, key, batch)
    if not set(_BITS) & set(names):
        raise UserError(
            "--keep_best must go with a program that measures bits per dimension, got "
            f"one that measures {', '.join(sorted(names))}"
        )


def nothing(num_seeds: int, state: Any) -> Best:
    """The best before the first evaluation.

    Args:
        num_seeds: S.
        state: of the start, or its shapes alone.
    """
    return Best(np.full(num_seeds, np.inf), np.zeros(num_seeds, np.int64), state)


def on_host(state: Any) -> Any:
    """A copy of a state that stays as it is when the state is given up."""
    return jax.tree.map(np.array, state)


def updated(
    best: Best, metrics: Mapping[str, np.ndarray], step: int, state: Any
) -> Best:
    """The best after one more evaluation.

    Args:
        best: that before.
        metrics: of the evaluation, ``valid/bits_per_dim`` or its bound among them;
            ``[S]`` each.
        step: steps done.
        state: that was evaluated; every array leading with S seeds.

    Returns:
        With the new state of those seeds that have fewer bits than ever before; NaN and
        equal bits are no improvement.
    """
    names = (f"valid/{name}" for name in _BITS)
    bits = next(metrics[name] for name in names if name in metrics)
    better = bits < best.bits
    if not better.any():
        return best

    def chosen(new: Any, old: np.ndarray) -> np.ndarray:
        new = np.asarray(new)
        return np.where(better.reshape(-1, *(1,) * (new.ndim - 1)), new, old)

    new = Best(bits, np.full_like(best.step, step), state)
    return jax.tree.map(chosen, new, best)


def is_over(best: Best | None, step: int, patience: int, eval_every: int) -> bool:
    """Whether no seed has improved for so many evaluations.

    Args:
        best: so far; None: not kept.
        step: steps done.
        patience: evaluations; 0: never over.
        eval_every: steps between them.

    Returns:
        The same whenever it is asked between two evaluations.
    """
    if best is None or not patience:
        return False
    return step // eval_every - int(best.step.max()) // eval_every >= patience
