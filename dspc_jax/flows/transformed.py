r"""A circuit behind a flow: the distribution of values, from a circuit over features.

.. math:: \log p(x) = \log S(f(x)) + \log |\det \partial f / \partial x|

with a circuit S over the features of a flow f (`dspc_jax.flows.flow.Flow`). It is
exact, and its samples are :math:`f^{-1}(z)` for samples z of S, differentiable in both.
Since the blocks of a flow do not mix, the features of observed blocks are known and
those of the others are not. Integrating blocks out integrates out the same variables of
S:

.. math:: \log p(x_O) = \log S(f_O(x_O))
  + \sum_{g \in O} \log |\det \partial f_g / \partial x_g|.

Therefore the flow decides which queries stay exact:

================================  ============  =============  =====================
query                             affine flow   blocks, not    one block
                                                affine
================================  ============  =============  =====================
log_prob, class queries, samples  yes           yes            yes
conditionals, marginals           whole blocks  whole blocks   no
mpe, mean                         whole blocks  no             no
================================  ============  =============  =====================

A query that the flow has lost raises a ValueError, while tracing as well. Masks have
one entry per block, so that no mask can cut a block; `whole_blocks` makes them from
masks of variables.

References:
    Dinh, Sohl-Dickstein and Bengio, "Density estimation using Real NVP", ICLR 2017.
    Lucas, Shmelkov, Alahari, Schmid and Verbeek, "Adaptive Density Estimation for
    Generative Models", NeurIPS 2019.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dspc_jax import examples, protocols
from dspc_jax.arguments import instance
from dspc_jax.circuit import Circuit, CircuitConfig
from dspc_jax.flows.flow import Flow, FlowConfig
from dspc_jax.leaves import ContinuousLeaf
from dspc_jax.ops import missing
from dspc_jax.ops.batching import foldable
from dspc_jax.ops.float_types import computed_in, float_type, widened
from dspc_jax.ops.values import as_values, refuse_huge, refuse_nan
from dspc_jax.structure.pieces import ROW_TYPE
from dspc_jax.types import Array, Key


@dataclasses.dataclass(frozen=True)
class TransformedConfig:
    """Everything that makes a transformed circuit, hashable.

    Attributes:
        circuit: over the features.
        flow: what the flow is made from.
    """

    circuit: CircuitConfig
    flow: FlowConfig

    def __post_init__(self):
        if not isinstance(self.circuit, CircuitConfig):
            raise ValueError(
                f"circuit must be a CircuitConfig, got {self.circuit!r:.80}"
            )
        if not isinstance(self.flow, FlowConfig):
            raise ValueError(f"flow must be a FlowConfig, got {self.flow!r:.80}")

    def build(self) -> "TransformedCircuit":
        """The transformed circuit; as `dspc_jax.build`, which takes both kinds."""
        return transform(self.circuit.build(), self.flow.build())


def _query() -> Any:
    """A field with a function, which circuit and flow determine."""
    return dataclasses.field(compare=False, repr=False)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class TransformedCircuit:
    """Pure functions of a circuit over a flow's features, as those of `Circuit`.

    One example per call (batch by vmap, which makes one call of the flow as well).
    Parameters are ``{"circuit": ..., "flow": ...}``. ``observed`` is bool ``[G]``, one
    entry per block; values of blocks that are not observed do not matter.

    Attributes:
        circuit: S.
        flow: f.
        init: the flow by the data, then the circuit by their features.
        log_prob: log-likelihood and marginals.
        class_log_probs: the same given each class.
        joint_log_probs: those of the example and each class.
        class_posterior: probabilities of the classes given the example.
        sample: exact samples, ancestral or conditional.
        sample_differentiable: relaxed features through the inverse.
        mpe: a most probable explanation; affine flows only.
        mean: exact conditional means; affine flows only.
    """

    circuit: Circuit
    flow: Flow
    init: protocols.Init = _query()
    log_prob: protocols.LogProb = _query()
    class_log_probs: protocols.ClassLogProbs = _query()
    joint_log_probs: protocols.JointLogProbs = _query()
    class_posterior: protocols.ClassPosterior = _query()
    sample: protocols.Sample = _query()
    sample_differentiable: protocols.SampleDifferentiable = _query()
    mpe: protocols.Mpe = _query()
    mean: protocols.Mean = _query()

    def __reduce__(self):
        return transform, (self.circuit, self.flow)

    @property
    def config(self) -> TransformedConfig:
        """What it was built from; a ValueError if its flow has no configuration."""
        if self.flow.config is None or not self.flow.is_configured:
            raise ValueError(
                "flow must be made by a function that `configured` knows, got "
                f"{self.flow.name}"
            )
        return TransformedConfig(self.circuit.config, self.flow.config)


def transform(circuit: Circuit, flow: Flow) -> TransformedCircuit:
    """Puts a circuit behind a flow.

    Args:
        circuit: over the features; all leaves must have densities (`Normal`), and its
            variables must be as many as the flow's.
        flow: from values to features.

    Returns:
        The pure functions; the same objects for the same arguments.

    Raises:
        ValueError: the circuit does not fit the flow; on use, shapes that are wrong, or
            a query that the flow has lost.
    """
    instance("circuit", circuit, Circuit)
    instance("flow", flow, Flow)
    return _transform(circuit, flow)


@functools.lru_cache(maxsize=64)
def _transform(circuit: Circuit, flow: Flow) -> TransformedCircuit:
    num_variables = circuit.config.structure.num_variables
    if num_variables != len(flow.blocks):
        raise ValueError(
            f"circuit must have the {len(flow.blocks)} variables of {flow.name}, "
            f"got {num_variables}"
        )
    for leaf in circuit.config.leaves:
        if not isinstance(leaf, ContinuousLeaf):
            raise ValueError(f"circuit must have leaves with densities, got {leaf!r}")
    forward, inverse = foldable(flow.forward), foldable(flow.inverse)
    blocks = np.asarray(flow.blocks, ROW_TYPE)

    def example(params, x: Any) -> Array:
        x = as_values("x", x, params["circuit"].classes.dtype)
        return examples.with_channels(circuit.layout, x, 2)

    def features(params, x: Any, observed: Any):
        """One example's features, log-determinant, and mask ``[V]`` of known ones."""
        x = example(params, x)
        examples.check_values(circuit.layout, "x", x.shape)
        if observed is None:
            z, log_det = forward(params["flow"], x)
            return z, jnp.sum(log_det), None
        observed = _check_observed(flow, observed)
        known = observed[blocks]
        z, log_det = forward(params["flow"], jnp.where(known[:, None], x, 0.0))
        return z, jnp.sum(jnp.where(observed, log_det, 0.0)), known

    def query(function, has_density=True):
        """Turns a query of features into one of values."""

        def single(params, x, observed=None):
            params, _ = widened(params)
            z, log_det, known = features(params, x, observed)
            out = function(params["circuit"], z, known)
            return out + log_det if has_density else out

        return single

    def through(function, params, x, observed):
        """Values from the features ``function(z, known)``, given the known ones."""
        if x is None and observed is None:
            return inverse(params["flow"], function(None, None))
        if x is None or observed is None:
            missing = "x" if x is None else "observed"
            raise ValueError(
                f"{missing} must be given with the other of x and observed, got None"
            )
        z, _, known = features(params, x, observed)
        assert known is not None
        out = inverse(params["flow"], function(z, known))
        return jnp.where(known[:, None], example(params, x), out)

    @functools.partial(jax.jit, static_argnums=2)
    def standardized(key, data, dtype):
        params = jax.tree.map(lambda p: p.astype(dtype), flow.init(key, data))
        return params, flow.forward(params, data)[0]

    def init(
        key: Key,
        data: Any = None,
        observed: Any = None,
        *,
        method: str = "examples",
        labels: Any = None,
        spread: float = 0.5,
        dtype: Any = None,
    ):
        if data is None:
            raise ValueError(f"data must be given to start {flow.name}, got None")
        dtype = float_type(dtype)
        wide = computed_in(dtype)
        data = examples.values_of_rows(circuit.layout, "data", data, wide)
        known = None
        if observed is not None:
            observed = _check_observed(flow, observed, data.shape[:1])
            known = observed[:, blocks]
        refuse_nan("data", data, known)
        refuse_huge("data", data, known)
        key_flow, key_circuit = jax.random.split(key)
        if observed is not None:
            key_rows = jax.random.fold_in(key_flow, 1)
            data = _filled(key_rows, data, observed, blocks)
        params, z = standardized(key_flow, data, wide)
        options: Any = {"method": method, "labels": labels, "spread": spread}
        start = circuit.init(key_circuit, z, known, dtype=wide, **options)
        params = {"circuit": start, "flow": params}
        return jax.tree.map(lambda p: p.astype(dtype), params)

    def sampler(function):
        """Turns a sampler of features into one of values."""

        def sample(key, params, x=None, observed=None, **options):
            params, _ = widened(params)

            def draw(z, known):
                return function(key, params["circuit"], z, known, **options)

            return through(draw, params, x, observed)

        return sample

    def affine_only(name, function):
        """Turns a query of features into one of values, behind an affine flow."""

        def single(params, x=None, observed=None, **options):
            if not flow.affine:
                raise ValueError(
                    f"flow must be affine for {name} (otherwise that of the features "
                    f"is not that of the values), got {flow.name}"
                )
            params, _ = widened(params)
            return through(
                lambda z, known: function(params["circuit"], z, known, **options),
                *(params, x, observed),
            )

        return single

    queries = {
        "init": init,
        "log_prob": query(circuit.log_prob),
        "class_log_probs": query(circuit.class_log_probs),
        "joint_log_probs": query(circuit.joint_log_probs),
        "class_posterior": query(circuit.class_posterior, has_density=False),
        "sample": sampler(circuit.sample),
        "sample_differentiable": sampler(circuit.sample_differentiable),
        "mpe": affine_only("mpe", circuit.mpe),
        "mean": affine_only("mean", circuit.mean),
    }
    described = {
        name: protocols.described(TransformedCircuit, name, function)
        for name, function in queries.items()
    }
    return TransformedCircuit(circuit, flow, **described)


def whole_blocks(flow: Flow, observed: Any) -> np.ndarray:
    """Makes masks of blocks from masks of variables, which must not cut a block.

    Args:
        flow: the flow that defines the blocks.
        observed: bool ``[..., V]``, concrete (NumPy).

    Returns:
        Bool ``[..., G]``: which blocks are observed.

    Raises:
        ValueError: another shape or type, or a mask that observes a part of a block.
    """
    observed = np.asarray(observed)
    blocks = np.asarray(flow.blocks)
    if observed.dtype != np.bool_ or observed.shape[-1:] != blocks.shape:
        raise ValueError(
            f"observed must be bool of shape [..., V] with V = {len(blocks)}, got "
            f"{observed.dtype} of shape {observed.shape}"
        )
    first = np.unique(blocks, return_index=True)[1]
    out = observed[..., first]
    cut = blocks[np.nonzero(out[..., blocks] != observed)[-1]]
    if cut.size:
        raise ValueError(
            f"observed must not cut a block of {flow.name} (its features depend on all "
            f"of its values), got parts of the blocks {sorted(set(cut.tolist()))}"
        )
    return out


def _filled(key: Key, data: Array, observed: Array, blocks: np.ndarray) -> Array:
    """Data whose missing blocks are those of other examples that have them.

    A block that no example has is the mean of all that is observed.
    """
    rows = np.arange(len(data))[:, None]
    columns = np.arange(observed.shape[1])[None]
    rows = missing.observed_rows(key, observed, rows, columns)[:, blocks]
    known = observed[:, blocks, None]
    mean = jnp.mean(data, axis=(0, 1), where=known)
    some = observed.any(axis=0)[blocks][None, :, None]
    filled = data[rows, np.arange(len(blocks))[None]]
    return jnp.where(some, filled, mean[None, None])


def _check_observed(flow: Flow, observed: Any, leading: tuple[int, ...] = ()) -> Array:
    """The mask of one example, or of as many as ``leading`` says."""
    observed = jnp.asarray(observed)
    if flow.num_blocks == 1 and len(flow.blocks) > 1:
        raise ValueError(
            f"observed must be None behind {flow.name}, which has lost marginals and "
            "conditionals (every feature depends on every value), got a mask of shape "
            f"{observed.shape}"
        )
    shape = (*leading, flow.num_blocks)
    if observed.shape != shape or observed.dtype != jnp.bool_:
        raise ValueError(
            f"observed must be bool of shape {shape}, with one entry for each of the "
            f"{flow.num_blocks} blocks of {flow.name} (whole_blocks makes it from a "
            f"mask of variables), got {observed.dtype} of shape {observed.shape}"
        )
    return observed
