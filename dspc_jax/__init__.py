"""Probabilistic circuits with differentiable sampling, as pure JAX functions."""

import functools
from importlib import metadata

from dspc_jax.chow_liu import chow_liu_tree
from dspc_jax.circuit import Circuit, CircuitConfig, build
from dspc_jax.flows.transformed import (
    TransformedCircuit,
    TransformedConfig,
    transform,
    whole_blocks,
)
from dspc_jax.hidden_markov import (
    MarkovTables,
    hidden_markov_chain,
    markov_tables,
    state_posteriors,
    with_markov_tables,
)
from dspc_jax.learning.counts import expected_counts
from dspc_jax.learning.em import em
from dspc_jax.learning.fit import History, fit
from dspc_jax.leaves import (
    Bernoulli,
    Binomial,
    Categorical,
    DiscretizedLogistic,
    Gamma,
    GammaPoisson,
    Geometric,
    Histogram,
    Laplace,
    LogNormal,
    NegativeBinomial,
    Normal,
    Poisson,
    UnitNormal,
    ZeroInflated,
)
from dspc_jax.parameters import given_class
from dspc_jax.registry import register
from dspc_jax.rows import ParameterRows, count_params, parameter_rows
from dspc_jax.samplers import sampler
from dspc_jax.serialization import load, save
from dspc_jax.sharpening import sharpened
from dspc_jax.structure.chains import HiddenMarkovChain
from dspc_jax.structure.image_families import PoonDomingos, QuadGraph, QuadTree
from dspc_jax.structure.latents import with_latents
from dspc_jax.structure.random_trees import RandomBinaryTrees
from dspc_jax.structure.region_graph import (
    Partition,
    RegionGraph,
    RegionGraphBuilder,
)
from dspc_jax.structure.trees_from_data import hidden_chow_liu_tree
from dspc_jax.supports import check

__all__ = [
    "Bernoulli",
    "Binomial",
    "Categorical",
    "Circuit",
    "CircuitConfig",
    "DiscretizedLogistic",
    "Gamma",
    "GammaPoisson",
    "Geometric",
    "HiddenMarkovChain",
    "Histogram",
    "History",
    "Laplace",
    "LogNormal",
    "MarkovTables",
    "NegativeBinomial",
    "Normal",
    "ParameterRows",
    "Partition",
    "Poisson",
    "PoonDomingos",
    "QuadGraph",
    "QuadTree",
    "RandomBinaryTrees",
    "RegionGraph",
    "RegionGraphBuilder",
    "TransformedCircuit",
    "TransformedConfig",
    "UnitNormal",
    "ZeroInflated",
    "build",
    "check",
    "chow_liu_tree",
    "count_params",
    "em",
    "expected_counts",
    "fit",
    "given_class",
    "hidden_chow_liu_tree",
    "hidden_markov_chain",
    "load",
    "markov_tables",
    "parameter_rows",
    "register",
    "sampler",
    "save",
    "sharpened",
    "state_posteriors",
    "transform",
    "whole_blocks",
    "with_latents",
    "with_markov_tables",
]

__version__ = metadata.version("dspc_jax")
__dir__ = functools.partial(sorted, [*__all__, "__version__"])
