"""Probabilistic circuits with differentiable sampling, as pure JAX functions."""

from dspc_jax.chow_liu import chow_liu_tree
from dspc_jax.circuit import Circuit, CircuitConfig, build
from dspc_jax.flows.transformed import (
    TransformedCircuit,
    TransformedConfig,
    transform,
    whole_blocks,
)
from dspc_jax.learning.counts import expected_counts
from dspc_jax.learning.em import em
from dspc_jax.leaves import (
    Bernoulli,
    Binomial,
    Categorical,
    DiscretizedLogistic,
    Normal,
    UnitNormal,
)
from dspc_jax.parameters import given_class
from dspc_jax.registry import register
from dspc_jax.rows import ParameterRows, parameter_rows
from dspc_jax.serialization import load, save
from dspc_jax.sharpening import sharpened
from dspc_jax.structure.image_families import PoonDomingos, QuadGraph, QuadTree
from dspc_jax.structure.latents import with_latents
from dspc_jax.structure.random_trees import RandomBinaryTrees
from dspc_jax.structure.region_graph import (
    Partition,
    RegionGraph,
    RegionGraphBuilder,
)
from dspc_jax.structure.trees_from_data import hidden_chow_liu_tree

__all__ = [
    "Bernoulli",
    "Binomial",
    "Categorical",
    "Circuit",
    "CircuitConfig",
    "DiscretizedLogistic",
    "Normal",
    "ParameterRows",
    "Partition",
    "PoonDomingos",
    "QuadGraph",
    "QuadTree",
    "RandomBinaryTrees",
    "RegionGraph",
    "RegionGraphBuilder",
    "TransformedCircuit",
    "TransformedConfig",
    "UnitNormal",
    "build",
    "chow_liu_tree",
    "em",
    "expected_counts",
    "given_class",
    "hidden_chow_liu_tree",
    "load",
    "parameter_rows",
    "register",
    "save",
    "sharpened",
    "transform",
    "whole_blocks",
    "with_latents",
]
