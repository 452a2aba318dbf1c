"""The system that a program trains, and failures of its steps: no loop."""

from collections.abc import Callable, Mapping
import types
from typing import Any, NamedTuple

import jax


class Labelled(NamedTuple):
    """Images with their classes: a batch of a `System` that is ``labelled``.

    Attributes:
        levels: uint8 ``[B, V, C]``.
        labels: int32 ``[B]``.
    """

    levels: Any
    labels: Any


def levels_and_labels(batch: Any) -> tuple[Any, Any]:
    """The images of a batch, and their labels or None."""
    return batch if isinstance(batch, Labelled) else (batch, None)


class Closing(NamedTuple):
    """Full-batch steps after the last one: pure functions of one seed.

    Attributes:
        num_steps: how many there are, at least 1.
        statistics: ``(state, key, batch, weights) -> sums`` over the examples of a
            batch, each as often as its weight says (float32 ``[B]``; 0: padding).
        update: ``(state, sums) -> state``, with those of all training images.
    """

    num_steps: int
    statistics: Callable[[Any, jax.Array, Any, jax.Array], Any]
    update: Callable[[Any, Any], Any]


class System(NamedTuple):
    """Pure functions of one seed that a program trains, without knowledge of the loop.

    Attributes:
        init: ``key -> state``, any pytree of arrays.
        step: ``(state, key, batch, step, draw) -> (state, metrics)``; ``batch`` is
            uint8 ``[B, V, C]``, or a `Labelled` where the system asks for labels,
            ``step`` the int32 number of steps before this one (the
            same for all seeds, so ``lax.cond`` on it stays a branch), ``draw(key)``
            another batch, drawn with replacement (for inner loops), ``metrics`` a dict
            of scalars. A metric that is not finite stops the run.
        evaluate: ``(state, key, batch) -> metrics``: arrays ``[B]`` are per example and
            averaged over exactly all examples; scalars are estimates from a set and
            averaged over the full batches.
        sample: ``(state, key, num) -> {title: levels}`` with levels uint8
            ``[num, V, C]``; may be empty.
        labelled: whether a batch comes with its labels.
        complete: ``(state, key, levels, observed) -> {how: gray}``: gray values in
            [0, 1], ``[B, V, C]``, for pixels that are not ``observed`` (bool
            ``[B, V]``); None where the model cannot.
        sample_class: ``(state, key, label, num) -> levels``, uint8 ``[num, V, C]`` of
            one class (a traced scalar); None where the model knows no classes.
        start: ``(state, key, batch) -> state``: the state before the first step, from
            that of ``init`` and all training images as one batch, once and not
            compiled; None: that of ``init``.
        closing: full-batch steps after all others; None: there are none.
        units: the metrics of steps that are shown while it trains, and their units.
    """

    init: Callable[[jax.Array], Any]
    step: Callable[
        [Any, jax.Array, jax.Array, jax.Array, Callable[[jax.Array], jax.Array]],
        tuple[Any, dict],
    ]
    evaluate: Callable[[Any, jax.Array, jax.Array], dict]
    sample: Callable[[Any, jax.Array, int], dict[str, jax.Array]]
    labelled: bool = False
    complete: Callable[..., dict[str, jax.Array]] | None = None
    sample_class: Callable[..., jax.Array] | None = None
    start: Callable[[Any, jax.Array, Any], Any] | None = None
    closing: Closing | None = None
    units: Mapping[str, str] = types.MappingProxyType({"loss": ""})


class Failure(NamedTuple):
    """A step whose metrics were not finite.

    Attributes:
        step: its number, from 1.
        seed: the first seed it happened to.
        metric: the metric's name.
        value: the metric's value.
    """

    step: int
    seed: int
    metric: str
    value: float
