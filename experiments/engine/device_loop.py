"""What the training loop asks of the devices: where data lie, chunks, evaluation.

The steps are those of `dspc_jax.learning.loop`: a chunk may end wherever the host wants
(to log, to save, because a signal came) without recompiling and without changing a bit
of the result.
"""

import collections
from collections.abc import Mapping
import contextlib
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
import numpy as np

from dspc_jax.learning.batches import batch_indices
from dspc_jax.learning.loop import (
    Carry,
    Step,
    gather,
    over_runs,
    run_steps,
    start,
)
from experiments.console.errors import UserError
from experiments.data import Dataset
from experiments.engine.batches import examples_of, mirror, mirrored
from experiments.engine.full_batch import FullBatch
from experiments.engine.seed_keys import bits_of
from experiments.engine.system import Failure, System

_STREAM_BYTES = 64 * 2**20  # rows of one chunk, where the data set stays on the host
_MAX_CHUNK = 128  # steps; at 1 ms a step still many chunks a second
_EVAL_BATCH = 256  # examples
_START = 1  # folded into the key that a state starts from


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
        self._mesh, self._everywhere = mesh, NamedSharding(mesh, PartitionSpec())
        self._sharded = NamedSharding(mesh, PartitionSpec(None, None, "batch"))
        self._system, self._flip = system, flip

        self._bits = bits_of(self._seeds)

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

        # Traced once: `init` looks at what `run` runs.
        self._step = jax.jit(self._step_of_one_seed)
        self._init = jax.jit(self._init_carry, out_shardings=self._everywhere)
        self._steps = jax.jit(
            self._run_steps, donate_argnums=0, out_shardings=self._everywhere
        )
        self._evaluate = jax.jit(
            over_runs(system.evaluate, num_seeds, (0, 0, None)),
            out_shardings=self._everywhere,
        )
        self._sample = jax.jit(system.sample, static_argnums=2)
        self._any_nan = jax.jit(_any_nan)
        self.closing = None
        if system.closing is not None:
            self.closing = FullBatch(
                *(system, dataset, self._bits, batch_size, mesh), flip=flip
            )

    @property
    def units(self) -> Mapping[str, str]:
        """The metrics of steps that are shown, and their units."""
        return self._system.units

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
        return examples_of(self._dataset, split, self._system.labelled)

    def _on_mesh(self) -> contextlib.AbstractContextManager:
        """What is traced meets the mesh in every type, or it is traced again."""
        return jax.set_mesh(self._mesh)

    def _keys(self, bits: np.ndarray) -> jax.Array:
        return self.put(jax.random.wrap_key_data(jnp.asarray(bits)))

    # ---- state ---------------------------------------------------------------------

    def init(self) -> Carry:
        """The carry before the first step."""
        with self._on_mesh():
            return self._init(self._keys(self._bits.init))

    def started(self, carry: Carry) -> Carry:
        """The carry after the system has looked at all training images."""
        if self._system.start is None:
            return carry
        keys = jax.vmap(jax.random.fold_in, (0, None))(
            self._keys(self._bits.init), _START
        )
        states = [
            self._system.start(
                jax.tree.map(lambda leaf, i=i: leaf[i], carry.state),
                keys[i],
                self.examples("train"),
            )
            for i in range(len(self._seeds))
        ]
        state = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
        return self.put(carry._replace(state=state))

    def abstract(self) -> Carry:
        """Shapes and types of the carry, without computing it."""
        with self._on_mesh():
            return jax.eval_shape(self._init_carry, self._keys(self._bits.init))

    def abstract_state(self) -> Any:
        """Shapes and types of the state alone, without looking at a step."""
        return jax.eval_shape(self._init_state, self._keys(self._bits.init))

    def put(self, arrays: Any) -> Any:
        """Moves a carry, or a state, from the host to the devices."""
        return jax.device_put(arrays, self._everywhere)

    def _init_state(self, keys: jax.Array) -> Any:
        return over_runs(self._system.init, len(self._seeds), (0,))(keys)

    def _init_carry(self, keys: jax.Array) -> Carry:
        rows = jnp.zeros((len(self._seeds), self._batch_size), jnp.int32)
        flips = rows == 0 if self._flip else None
        num_examples = (
            len(self._dataset.train) if self._resident else self.max_chunk * rows.size
        )
        data = jax.tree.map(  # of which only shapes matter
            lambda array: jnp.zeros((num_examples, *array.shape[1:]), array.dtype),
            self.examples("train"),
        )
        return start(self._step_on(data), self._init_state(keys), keys, (rows, flips))

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

    def _step_on(self, data: Any) -> Step:
        """One step of one seed, on the images of ``data``; its batch is (rows, flips).

        Args:
            data: the training images on the devices, or all that a chunk needs.
        """
        return lambda state, key, batch, number: self._step(
            state, key, data, *batch, number
        )

    def _step_of_one_seed(self, state, key, data, rows, flips, number):
        """One step, on ``rows`` int32 ``[B]`` of ``data``.

        Images are mirrored where ``flips``, bool ``[B]``, is true; None mirrors none.
        """
        num_examples = len(jax.tree.leaves(data)[0])
        sharding = NamedSharding(self._mesh, PartitionSpec("batch"))

        def batch_of(rows, flips):
            batch = gather(data, rows, sharding)
            return batch if flips is None else mirror(batch, flips, self._dataset.width)

        def draw(key):
            if not self._resident:
                raise UserError(
                    "this program draws batches of its own, so the training images "
                    f"must fit on a device; those of {self._dataset.name} do not"
                )
            flips, shape = None, (self._batch_size,)
            if self._flip:
                key, flip_key = jax.random.split(key)
                flips = jax.random.bernoulli(flip_key, shape=shape)
            return batch_of(jax.random.randint(key, shape, 0, num_examples), flips)

        return self._system.step(state, key, batch_of(rows, flips), number, draw)

    def _run_steps(self, carry, data, keys, flip_keys, indices, first, num):
        """Steps of all seeds, on the rows ``[N, S, B]`` of ``data``."""
        num_steps, _, batch_size = indices.shape
        flips = (
            mirrored(flip_keys, first, num_steps, batch_size) if self._flip else None
        )
        return run_steps(self._step_on(data), carry, keys, (indices, flips), first, num)

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
            data = self.put(gather(self.examples("train"), indices.reshape(-1)))
            indices = np.arange(indices.size, dtype=np.int32).reshape(indices.shape)
        with self._on_mesh():
            carry, last = self._steps(
                carry,
                data,
                self._keys(self._bits.step),
                self._keys(self._bits.flip),
                jax.device_put(indices, self._sharded),
                jnp.int32(first),
                jnp.int32(num),
            )
        num_done, metrics, finite = jax.device_get(last)
        if finite.all():
            return carry, None
        place = int(np.argmin(finite))
        name = next(k for k, v in metrics.items() if not np.isfinite(v[place]))
        value = float(metrics[name][place])
        return carry, Failure(first + int(num_done), self._seeds[place], name, value)

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
        size, num_examples = self._eval_size, len(jax.tree.leaves(examples)[0])
        of_examples: dict[str, Any] = collections.defaultdict(float)
        of_sets: dict[str, Any] = collections.defaultdict(float)
        for number, begin in enumerate(range(0, num_examples, size)):
            rows = np.arange(begin, begin + size) % num_examples
            valid = min(size, num_examples - begin)
            keys = jax.vmap(jax.random.fold_in, (0, None))(
                self._keys(self._bits.eval), number
            )
            batch = jax.device_put(gather(examples, rows), self._eval_sharding)
            metrics = jax.device_get(self._evaluate(state, keys, batch))
            for name, value in metrics.items():
                value = value.astype(np.float64)
                if value.ndim == 2:
                    of_examples[name] += value[:, :valid].sum(1) / num_examples
                elif valid == size:
                    of_sets[name] += value
        num_full = num_examples // size
        means = {name: total / num_full for name, total in of_sets.items()}
        return dict(sorted((of_examples | means).items()))

    def sample(self, state: Any, num: int) -> dict[str, np.ndarray]:
        """Samples of the first seed, with the same noise at every call."""
        first = jax.tree.map(lambda leaf: leaf[0], state)
        return jax.device_get(
            self._sample(first, self._keys(self._bits.sample)[0], num)
        )


def _any_nan(state: Any) -> jax.Array:
    """Whether each seed's state, at least a count of steps, holds a NaN: ``[S]``."""
    leaves = jax.tree.leaves(state)
    broken = jnp.zeros(leaves[0].shape[0], bool)
    for leaf in leaves:
        if jnp.issubdtype(leaf.dtype, jnp.floating):
            broken |= jnp.isnan(leaf).reshape(leaf.shape[0], -1).any(1)
    return broken
