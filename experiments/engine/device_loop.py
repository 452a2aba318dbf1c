"""The part of the training loop that runs on the devices; it knows no objective.

One compiled function runs any number of steps: their number is an argument, so a chunk
may end wherever the host wants (to log, to save, because a signal came) without
recompiling and without changing a bit of the result.
"""

from collections.abc import Callable
import functools
from typing import Any, cast

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
import numpy as np

from experiments.console.errors import UserError
from experiments.data import Dataset
from experiments.engine.batches import batch_indices
from experiments.engine.flips import mirror
from experiments.engine.system import Carry, Failure, Labelled, System

_STREAM_BYTES = 64 * 2**20  # rows of one chunk, where the data set stays on the host
_MAX_CHUNK = 128  # steps; at 1 ms a step still many chunks a second
_EVAL_BATCH = 256  # examples
_FLIPS = 2**31 - 1  # folded into a seed's key: a stream apart from its splits


class DeviceLoop:
    """Runs a `System` for S seeds on all devices of a mesh.

    The batch is sharded over the devices, everything else is on each of them. Seed
    ``i`` is the run of ``seed + i`` alone, up to rounding.
    """

    def __init__(
        self,
        system: System,
        dataset: Dataset,
        seed: int,
        num_seeds: int,
        batch_size: int,
        mesh: Mesh,
        resident_bytes: int,
        *,
        flip: bool = False,
    ):
        """Prepares the compiled functions and moves the data.

        Args:
            system: what is trained.
            dataset: its images.
            seed: the first seed.
            num_seeds: S.
            batch_size: B, a multiple of the number of devices.
            mesh: the devices, along one axis named ``batch``.
            resident_bytes: training sets up to this size live on the devices; of larger
                ones each chunk brings its rows.
            flip: mirror each training image with probability 1/2, anew at every step.
        """
        if batch_size % mesh.size:
            raise ValueError(
                f"batch_size must be a multiple of the {mesh.size} devices, "
                f"got {batch_size}"
            )
        self._dataset, self._batch_size = dataset, batch_size
        self._seeds = range(seed, seed + num_seeds)
        self._everywhere = NamedSharding(mesh, PartitionSpec())
        self._sharded = NamedSharding(mesh, PartitionSpec(None, None, "batch"))
        self._system, self._flip = system, flip

        keys = jax.vmap(lambda s: jax.random.split(jax.random.key(s), 4))(
            jnp.array(self._seeds, jnp.uint32)
        )
        # Their bits: the same keys are meant to be used again, in each call anew.
        self._init_bits, self._step_bits, self._eval_bits, self._sample_bits = (
            np.asarray(jax.random.key_data(keys[:, i])) for i in range(4)
        )
        # Not one of the splits: those are the same with and without flips.
        self._flip_bits = np.asarray(
            jax.vmap(
                lambda s: jax.random.key_data(
                    jax.random.fold_in(jax.random.key(s), _FLIPS)
                )
            )(jnp.array(self._seeds, jnp.uint32))
        )

        self._resident = dataset.train.nbytes <= resident_bytes
        step_bytes = num_seeds * batch_size * dataset.train[0].nbytes
        self.max_chunk = (
            _MAX_CHUNK
            if self._resident
            else max(1, min(_MAX_CHUNK, _STREAM_BYTES // step_bytes))
        )
        # The same batches on any number of devices: one that cannot be split is not.
        self._eval_size = min(_EVAL_BATCH, len(dataset.valid), len(dataset.test))
        divides = self._eval_size % mesh.size == 0
        self._eval_sharding = NamedSharding(
            mesh, PartitionSpec("batch") if divides else PartitionSpec()
        )

        self._over_seeds = _vmap_seeds if num_seeds > 1 else _one_seed
        self._init = jax.jit(self._init_carry, out_shardings=self._everywhere)
        self._steps = jax.jit(
            self._run_steps,
            donate_argnums=0,
            out_shardings=(self._everywhere,) * 4,
        )
        self._evaluate = jax.jit(
            self._over_seeds(system.evaluate, (0, 0, None)),
            out_shardings=self._everywhere,
        )
        self._sample = jax.jit(system.sample, static_argnums=2)
        self._any_nan = jax.jit(_any_nan)

    @functools.cached_property
    def _train(self) -> Any:
        """The training set on the devices, moved there when it is first needed."""
        return self.put(self.examples("train")) if self._resident else None

    def examples(self, split: str) -> Any:
        """The images of a split, with their labels where the system asks for them.

        Args:
            split: ``train``, ``valid`` or ``test``.

        Returns:
            Arrays as in a batch, with all the split's examples.

        Raises:
            UserError: there are no labels.
        """
        images = getattr(self._dataset, split)
        if not self._system.labelled:
            return images
        labels = getattr(self._dataset, f"{split}_labels")
        if labels is None:
            raise UserError(
                f"--dataset must have labels for this program, got "
                f"{self._dataset.name!r}, which has none"
            )
        return Labelled(images, np.asarray(labels, np.int32))

    def _keys(self, bits: np.ndarray) -> jax.Array:
        return self.put(jax.random.wrap_key_data(jnp.asarray(bits)))

    # ---- state ---------------------------------------------------------------------

    def init(self) -> Carry:
        """The carry before the first step."""
        return self._init(self._keys(self._init_bits))

    def abstract(self) -> Carry:
        """Shapes and types of the carry, without computing it."""
        return cast(
            Carry, jax.eval_shape(self._init_carry, self._keys(self._init_bits))
        )

    def abstract_state(self) -> Any:
        """Shapes and types of the state alone, without looking at a step."""
        return jax.eval_shape(self._init_state, self._keys(self._init_bits))

    def put(self, arrays: Any) -> Any:
        """Moves a carry, or a state, from the host to the devices."""
        return jax.device_put(arrays, self._everywhere)

    def _init_state(self, keys: jax.Array) -> Any:
        return self._over_seeds(self._system.init, (0,))(keys)

    def _init_carry(self, keys: jax.Array) -> Carry:
        state = self._init_state(keys)
        row = _rows(self.examples("train"), np.zeros(1, np.int32))
        rows = jax.tree.map(jnp.asarray, row)
        batch = jax.tree.map(
            lambda a: jnp.zeros(
                (len(self._seeds), self._batch_size, *a.shape[1:]), a.dtype
            ),
            rows,
        )
        _, metrics = jax.eval_shape(
            lambda: self._step_seeds(state, keys, batch, jnp.int32(0), rows)
        )
        sums = {name: jnp.zeros(m.shape, jnp.float32) for name, m in metrics.items()}
        return Carry(state, sums, jnp.zeros((len(self._seeds),), jnp.int32))

    def drain(self, carry: Carry) -> tuple[Carry, dict[str, np.ndarray]]:
        """Takes the mean of the step metrics since the last call, ``[S]`` each."""
        count = np.maximum(np.asarray(carry.num_steps), 1)
        means = {name: np.asarray(total) / count for name, total in carry.sums.items()}
        zeros = jax.tree.map(
            np.zeros_like, jax.device_get((carry.sums, carry.num_steps))
        )
        return Carry(carry.state, *self.put(zeros)), means

    def seeds_with_nan(self, carry: Carry) -> list[int]:
        """Seeds whose state holds a NaN."""
        broken = np.asarray(self._any_nan(carry.state))
        return [s for s, bad in zip(self._seeds, broken, strict=True) if bad]

    # ---- training ------------------------------------------------------------------

    def _step_seeds(self, state, keys, batch, step, data):
        mesh = self._everywhere.mesh

        def draw(key):
            if not self._resident:
                raise UserError(
                    "this program draws batches of its own, so the training images "
                    f"must fit on a device; those of {self._dataset.name} do not"
                )
            key, flip_key = jax.random.split(key) if self._flip else (key, None)
            num_examples = jax.tree.leaves(data)[0].shape[0]
            rows = jax.random.randint(key, (self._batch_size,), 0, num_examples)
            batch = jax.lax.with_sharding_constraint(
                _rows(data, rows), NamedSharding(mesh, PartitionSpec("batch"))
            )
            return batch if flip_key is None else self._mirror(flip_key, batch)

        def one_seed(state, key, batch, step):
            return self._system.step(state, key, batch, step, draw)

        return self._over_seeds(one_seed, (0, 0, 0, None))(state, keys, batch, step)

    def _mirror(self, key: jax.Array, batch: Any) -> Any:
        width = self._dataset.width
        if isinstance(batch, Labelled):
            return batch._replace(levels=mirror(key, batch.levels, width))
        return mirror(key, batch, width)

    def _run_steps(self, carry, data, keys, flip_keys, indices, first, num):
        """Steps ``first .. first + num - 1``, fewer if a metric is not finite."""

        def go_on(loop):
            done, _, _, finite = loop
            return (done < num) & jnp.all(finite)

        def body(loop):
            done, carry, _, _ = loop
            batch = jax.lax.with_sharding_constraint(
                _rows(data, indices[done]),
                NamedSharding(self._sharded.mesh, PartitionSpec(None, "batch")),
            )
            if self._flip:
                at_step = jax.vmap(jax.random.fold_in, (0, None))(
                    flip_keys, first + done
                )
                batch = jax.vmap(self._mirror)(at_step, batch)
            step_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, first + done)
            state, metrics = self._step_seeds(
                carry.state, step_keys, batch, first + done, data
            )
            metrics = {k: v.astype(jnp.float32) for k, v in metrics.items()}
            finite = jnp.stack([jnp.isfinite(v) for v in metrics.values()]).all(0)
            sums = {k: carry.sums[k] + v for k, v in metrics.items()}
            return done + 1, Carry(state, sums, carry.num_steps + 1), metrics, finite

        start = (
            jnp.int32(0),
            carry,
            jax.tree.map(jnp.zeros_like, carry.sums),
            jnp.ones((len(self._seeds),), bool),
        )
        done, carry, metrics, finite = jax.lax.while_loop(go_on, body, start)
        return carry, done, metrics, finite

    def run(self, carry: Carry, first: int, num: int) -> tuple[Carry, Failure | None]:
        """Runs ``num`` steps; ``carry`` is given up.

        Args:
            carry: the state after ``first`` steps.
            first: steps done before.
            num: steps to do, at most ``max_chunk``.

        Returns:
            The carry after them, or after the failing step, and the failure if any.
        """
        indices = np.zeros(
            (self.max_chunk, len(self._seeds), self._batch_size), np.int32
        )
        num_examples = len(self._dataset.train)
        for i, seed in enumerate(self._seeds):
            indices[:num, i] = batch_indices(
                seed, first, num, self._batch_size, num_examples
            )
        data = self._train
        if data is None:
            data = self.put(_rows(self.examples("train"), indices.reshape(-1)))
            indices = np.arange(indices.size, dtype=np.int32).reshape(indices.shape)
        carry, done, metrics, finite = self._steps(
            carry,
            data,
            self._keys(self._step_bits),
            self._keys(self._flip_bits),
            jax.device_put(indices, self._sharded),
            jnp.int32(first),
            jnp.int32(num),
        )
        done, metrics, finite = jax.device_get((done, metrics, finite))
        if finite.all():
            return carry, None
        place = int(np.argmin(finite))
        name = next(k for k, v in metrics.items() if not np.isfinite(v[place]))
        value = float(metrics[name][place])
        return carry, Failure(first + int(done), self._seeds[place], name, value)

    # ---- looking at the state ------------------------------------------------------

    def evaluate(self, state: Any, examples: Any) -> dict[str, np.ndarray]:
        """Metrics of every seed on all examples, with the same noise at every call.

        Args:
            state: every array leading with S seeds.
            examples: ``[n, V, C]`` uint8, n at least one batch, with labels where the
                system asks for them: see `examples`.

        Returns:
            Name to ``[S]``; see `System.evaluate`.
        """
        size, totals, batches = self._eval_size, {}, 0
        num_examples = len(jax.tree.leaves(examples)[0])
        for number, start in enumerate(range(0, num_examples, size)):
            rows = np.arange(start, start + size) % num_examples
            valid = min(size, num_examples - start)
            keys = jax.vmap(jax.random.fold_in, (0, None))(
                self._keys(self._eval_bits), number
            )
            batch = jax.device_put(_rows(examples, rows), self._eval_sharding)
            metrics = jax.device_get(self._evaluate(state, keys, batch))
            full = valid == size
            batches += full
            for name, value in metrics.items():
                per_example = value.ndim == 2
                if not per_example and not full:
                    continue
                part = (
                    value[:, :valid].astype(np.float64).sum(1) / num_examples
                    if per_example
                    else value.astype(np.float64)
                )
                weight = 0 if per_example else 1
                total, _ = totals.get(name, (0.0, weight))
                totals[name] = (total + part, weight)
        return {k: v / (batches if w else 1) for k, (v, w) in totals.items()}

    def sample(self, state: Any, num: int) -> dict[str, np.ndarray]:
        """Samples of the first seed, with the same noise at every call."""
        first = jax.tree.map(lambda leaf: leaf[0], state)
        return jax.device_get(
            self._sample(first, self._keys(self._sample_bits)[0], num)
        )


def _rows(examples: Any, rows: Any) -> Any:
    """The examples of these numbers."""
    return jax.tree.map(lambda array: array[rows], examples)


def _vmap_seeds(function: Callable, in_axes: tuple) -> Callable:
    return jax.vmap(function, in_axes)


def _one_seed(function: Callable, in_axes: tuple) -> Callable:
    """``vmap`` over an axis of length 1, without batching anything."""

    def call(*arguments):
        single = [
            arg if axis is None else jax.tree.map(lambda leaf: leaf[0], arg)
            for arg, axis in zip(arguments, in_axes, strict=True)
        ]
        return jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], function(*single))

    return call


def _any_nan(state: Any) -> jax.Array:
    """Whether each seed's state, at least a count of steps, holds a NaN: ``[S]``."""
    leaves = jax.tree.leaves(state)
    broken = jnp.zeros(leaves[0].shape[0], bool)
    for leaf in leaves:
        if jnp.issubdtype(leaf.dtype, jnp.floating):
            broken |= jnp.isnan(leaf).reshape(leaf.shape[0], -1).any(1)
    return broken
