"""Chains: variables in the order of time, one state behind each."""

import dataclasses

from dspc_jax.arguments import store, whole_number
from dspc_jax.structure.region_graph import RegionGraph, RegionGraphBuilder


@dataclasses.dataclass(frozen=True)
class HiddenMarkovChain:
    """The structure of hidden Markov models: each variable meets all after it.

    Units of the region of the variables from t on are the states at t - 1: with
    ``sum_layer="cp_t"`` and ``num_leaves=num_sums`` the weights of its sums are the
    transitions to the states at t, and those of the root the first state's. Region 2t
    holds the variables from t on, region 2t + 1 variable t alone, and partition t cuts
    the one into the other and the rest (the last one holds the last variable alone).

    Attributes:
        length: V, the number of variables.
    """

    length: int

    def __post_init__(self):
        store(self, length=whole_number("length", self.length, least=1))

    @property
    def num_variables(self) -> int:
        """V."""
        return self.length

    @property
    def homogeneous(self) -> tuple[int, ...]:
        """Groups for ``tie_sums``: the first state alone, and all transitions."""
        return (0, *([2, 1] * (self.length - 1)), 2)

    def region_graph(self) -> RegionGraph:
        """The region graph."""
        builder = RegionGraphBuilder(self.length)
        rest = 0
        for t in range(self.length):
            children = [builder.add_region([t])]
            if t + 1 < self.length:
                children.append(builder.add_region(range(t + 1, self.length)))
            builder.add_partition(rest, *children)
            rest = children[-1]
        return builder.build()
