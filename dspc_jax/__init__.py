"""Probabilistic circuits with differentiable sampling, as pure JAX functions."""

import functools
from importlib import metadata

from dspc_jax.analysis.conditioning import conditional_circuit, marginal_circuit
from dspc_jax.analysis.enumeration import (
    cross_entropy,
    entropy,
    kl_divergence,
    mutual_information,
)
from dspc_jax.analysis.estimates import (
    Estimate,
    cross_entropy_estimate,
    entropy_estimate,
    expectation_estimate,
    kl_divergence_estimate,
    mutual_information_estimate,
)
from dspc_jax.analysis.marginal_map import MarginalMap, marginal_map
from dspc_jax.analysis.products import (
    cauchy_schwarz_divergence,
    collision_entropy,
    log_inner_product,
    product,
)
from dspc_jax.analysis.wasserstein import circuit_wasserstein
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
from dspc_jax.inference.events import Event
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
from dspc_jax.ports import from_einet, region_graph_from_json
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
    "Estimate",
    "Event",
    "Gamma",
    "GammaPoisson",
    "Geometric",
    "HiddenMarkovChain",
    "Histogram",
    "History",
    "Laplace",
    "LogNormal",
    "MarginalMap",
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
    "cauchy_schwarz_divergence",
    "check",
    "chow_liu_tree",
    "circuit_wasserstein",
    "collision_entropy",
    "conditional_circuit",
    "count_params",
    "cross_entropy",
    "cross_entropy_estimate",
    "em",
    "entropy",
    "entropy_estimate",
    "expectation_estimate",
    "expected_counts",
    "fit",
    "from_einet",
    "given_class",
    "hidden_chow_liu_tree",
    "hidden_markov_chain",
    "kl_divergence",
    "kl_divergence_estimate",
    "load",
    "log_inner_product",
    "marginal_circuit",
    "marginal_map",
    "markov_tables",
    "mutual_information",
    "mutual_information_estimate",
    "parameter_rows",
    "product",
    "region_graph_from_json",
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
