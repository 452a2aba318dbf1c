"""Probabilistic circuits with differentiable sampling, as pure JAX functions."""

from dspc_jax.circuit import Circuit, CircuitConfig, build
from dspc_jax.flows.transformed import TransformedCircuit, transform, whole_blocks
from dspc_jax.learning.em import em, expected_counts
from dspc_jax.leaves import (
    Bernoulli,
    Binomial,
    Categorical,
    DiscretizedLogistic,
    Normal,
    UnitNormal,
)
from dspc_jax.parameters import given_class
from dspc_jax.serialization import load, save
from dspc_jax.structure.families import QuadTree, RandomBinaryTrees
from dspc_jax.structure.latents import with_latents
from dspc_jax.structure.region_graph import Partition, RegionGraph

__all__ = [
    "Bernoulli",
    "Binomial",
    "Categorical",
    "Circuit",
    "CircuitConfig",
    "DiscretizedLogistic",
    "Normal",
    "Partition",
    "QuadTree",
    "RandomBinaryTrees",
    "RegionGraph",
    "TransformedCircuit",
    "UnitNormal",
    "build",
    "em",
    "expected_counts",
    "given_class",
    "load",
    "save",
    "transform",
    "whole_blocks",
    "with_latents",
]
