"""Steps on all training images, whose counts are added up batch by batch."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
import numpy as np

from dspc_jax.learning.loop import gather, over_runs
from experiments.data import Dataset
from experiments.engine.batches import examples_of, mirror
from experiments.engine.seed_keys import Bits
from experiments.engine.system import System

_CLOSING = 2  # folded into a seed's first key: apart from that of starts
_fold_in = jax.vmap(jax.random.fold_in, (0, None))


class FullBatch:
    """The closing steps of a `System` for S seeds, on all devices of a mesh.

    On the devices are the counts and one batch, which is sharded. A step is a function
    of the state and of the number of closing steps before it.
    """

    def __init__(
        self,
        system: System,
        dataset: Dataset,
        bits: Bits,
        batch_size: int,
        mesh: Mesh,
        *,
        flip: bool,
    ):
        """Prepares the compiled functions.

        Args:
            system: with closing steps.
            dataset: its images.
            bits: of the keys of all seeds.
            batch_size: B, a multiple of the number of devices.
            mesh: the devices, along one axis named ``batch``.
            flip: whether images count as they are and mirrored.
        """
        closing = system.closing
        assert closing is not None
        self._system, self._dataset, self._flip = system, dataset, flip
        self._first_bits, self._batch_size, self._mesh = bits.init, batch_size, mesh
        num_seeds = len(bits.init)
        of_seeds = over_runs(closing.statistics, num_seeds, (0, 0, None, None))
        everywhere = NamedSharding(mesh, PartitionSpec())

        def count(state, keys, batch, flipped, weights, counts):
            chosen = jnp.broadcast_to(flipped, weights.shape)
            batch = mirror(batch, chosen, dataset.width) if flip else batch
            new = of_seeds(state, keys, batch, weights)
            return new if counts is None else jax.tree.map(jnp.add, counts, new)

        self._count = jax.jit(count, donate_argnums=5, out_shardings=everywhere)
        self._update = jax.jit(
            over_runs(closing.update, num_seeds, (0, 0)), out_shardings=everywhere
        )

    def step(
        self, state: Any, number: int, is_over: Callable[[], bool] = lambda: False
    ) -> Any:
        """One step.

        Args:
            state: every array leading with S seeds.
            number: closing steps done before.
            is_over: asked before every batch whether to give up.

        Returns:
            The state after it; None: given up.
        """
        examples = examples_of(self._dataset, "train", self._system.labelled)
        size, num_examples = self._batch_size, len(self._dataset.train)
        sharding = NamedSharding(self._mesh, PartitionSpec("batch"))
        keys = jax.random.wrap_key_data(jnp.asarray(self._first_bits))
        keys = _fold_in(_fold_in(keys, _CLOSING), number)
        counts, num_batches = None, -(-num_examples // size)
        for place in range(num_batches * (2 if self._flip else 1)):
            if is_over():
                return None
            flipped, begin = place >= num_batches, place % num_batches * size
            rows = np.arange(begin, begin + size)
            batch = gather(examples, rows % num_examples)
            weights = (rows < num_examples).astype(np.float32)
            batch, weights = jax.device_put((batch, weights), sharding)
            with jax.set_mesh(self._mesh):
                counts = self._count(
                    state, _fold_in(keys, place), batch, flipped, weights, counts
                )
        with jax.set_mesh(self._mesh):
            return self._update(state, counts)
