"""Random binary trees (RAT): repeated random halves of the variables."""

import dataclasses
import functools

import numpy as np

from dspc_jax.arguments import store, whole_number
from dspc_jax.structure.lifted_inputs import lift_inputs
from dspc_jax.structure.region_graph import RegionGraph, RegionGraphBuilder


@dataclasses.dataclass(frozen=True)
class RandomBinaryTrees:
    """Repetitions of a random balanced binary partition of the variables.

    Each repetition halves the variables at random ``depth`` times, which gives
    ``2**depth`` input regions whose sizes differ by at most one. The repetitions are
    the partitions of the root region, so they are mixed there. ``depth=0`` is a plain
    mixture of factorized distributions.

    Attributes:
        num_variables: V.
        depth: D; needs ``2**D <= V``, so that no region is empty.
        num_repetitions: R.
        seed: seed of the NumPy generator that draws the partitions.

    Raises:
        ValueError: a number is too small, or the depth does not fit the variables.

    References:
        Peharz et al., "Random Sum-Product Networks", UAI 2019.
        Lang et al. 2022, section 4.
    """

    num_variables: int
    depth: int
    num_repetitions: int = 1
    seed: int = 0

    def __post_init__(self):
        least = {"num_variables": 1, "depth": 0, "num_repetitions": 1, "seed": 0}
        for name, number in least.items():
            value = whole_number(name, getattr(self, name), least=number)
            store(self, **{name: value})
        if self.depth >= self.num_variables.bit_length():  # floor(log2 V) + 1
            raise ValueError(
                f"depth must satisfy 2**depth <= num_variables={self.num_variables} "
                f"(no region may be empty), got {self.depth}"
            )

    @functools.lru_cache(maxsize=16)  # noqa: B019 (frozen and small)
    def region_graph(self) -> RegionGraph:
        """The region graph; the same object for the same numbers."""
        rng = np.random.default_rng(self.seed)
        graph = RegionGraphBuilder(self.num_variables)
        for _ in range(self.num_repetitions):
            if self.depth == 0:
                graph.add_partition(0, graph.add_region(graph.scopes[0]))
                continue
            splits = [(0, self.depth)]
            while splits:
                region, depth = splits.pop()
                if depth == 0:
                    continue
                shuffled = rng.permutation(graph.scopes[region])
                middle = len(shuffled) // 2
                if len(shuffled) % 2 and rng.integers(2):
                    middle += 1
                halves = [
                    graph.add_region(half)
                    for half in (shuffled[:middle], shuffled[middle:])
                ]
                graph.add_partition(region, *halves)
                splits += [(half, depth - 1) for half in halves]
        return lift_inputs(graph.build())
