"""The queries of a circuit as types: their signatures, and what they promise.

This is the one home of their documentation: fields of `dspc_jax.Circuit` and of
`dspc_jax.TransformedCircuit` have these types, so an editor shows it, and the functions
of a built circuit carry it.

Every query takes one example; batches are made with ``jax.vmap``. An example is
``[V, C]``, or ``[V]`` where C is 1. ``observed`` is bool ``[V]``; behind a flow it has
one entry for each block of variables.
"""

from collections.abc import Callable
import dataclasses
import inspect
from typing import Any, Protocol

from dspc_jax.types import Array, Key, PyTree


class Init(Protocol):
    """Type of ``circuit.init``."""

    def __call__(
        self,
        key: Key,
        data: Any = None,
        observed: Any = None,
        *,
        method: str = "examples",
        labels: Any = None,
        spread: float = 0.5,
        dtype: Any = None,
    ) -> Any:
        """Parameters before any training.

        Args:
            key: a typed key.
            data: ``[N, V, C]``, where the method needs it. A flow, which starts by
                standardizing the data, cannot do without.
            observed: bool ``[N, V]``, which of the data there are; the others do not
                matter and may be NaN. In their places leaves start at values of other
                examples, and where no example has the variable, at random.
            method: ``"examples"``: weights are random, leaves start at examples, or are
                random without data. ``"distill"``: all parameters are frequencies
                under clusters of the data (`dspc_jax.starts.distillation`), a start
                that is better by far, takes seconds to minutes, wants all of the data,
                and cannot be traced.
            labels: integers ``[N]`` in ``0 .. num_classes - 1``, the classes of the
                data, which the roots then stand for; only with ``"distill"``. None:
                the roots stand for clusters.
            spread: of the leaves around these, in deviations of the data.
            dtype: of the parameters, one of `dspc_jax.ops.float_types.FLOAT_TYPES`,
                which says what it means; None: float32, or float64 under
                ``jax_enable_x64``. Equal keys start alike in all types, up to rounding.

        Returns:
            The parameters, a pytree of arrays of this type.

        Raises:
            ValueError: the method is unknown, has no data or does not suit the
                structure; the data, the mask or the labels have another shape, type or
                value, there is no example or an observed NaN or number of size 1e15 and
                above (one that is traced is not seen), a flow has no data, or the type
                of the parameters is another.
        """
        ...


class LogProb(Protocol):
    """Type of ``circuit.log_prob``."""

    def __call__(self, params: PyTree, x: Any, observed: Any = None) -> Array:
        """The log-likelihood of one example, or the marginal one of observed values.

        Args:
            params: the circuit's.
            x: values ``[V, C]``; where they are not observed, any.
            observed: bool ``[V]``; None: everything is observed.

        Returns:
            ``log p(x)`` in nats, a scalar; classes are mixed. ``-inf`` with zero
            gradients where the evidence is impossible, as every value of size 1e15 and
            above counts, in all types; 0 where nothing is observed; NaN, with gradients
            NaN, where an observed value is NaN. It is float32, or float64 of float64
            parameters, whatever the type of ``x``.

        Raises:
            ValueError: a shape or type is another, of the parameters as well.
        """
        ...


class ClassLogProbs(Protocol):
    """Type of ``circuit.class_log_probs``."""

    def __call__(self, params: PyTree, x: Any, observed: Any = None) -> Array:
        """The log-likelihood of one example given each class, without the class's own.

        ``p(x | y)`` is the conditional one: `JointLogProbs` has ``p(x, y)``, and
        `ClassPosterior` ``p(y | x)``.

        Args:
            params: the circuit's.
            x: values ``[V, C]``; where they are not observed, any.
            observed: bool ``[V]``; None: everything is observed.

        Returns:
            ``log p(x | y)`` in nats, ``[Y]``; NaN where an observed value is NaN.

        Raises:
            ValueError: a shape or type is another.
        """
        ...


class JointLogProbs(Protocol):
    """Type of ``circuit.joint_log_probs``."""

    def __call__(self, params: PyTree, x: Any, observed: Any = None) -> Array:
        """The joint log-likelihood of one example and each class.

        Args:
            params: the circuit's.
            x: values ``[V, C]``; where they are not observed, any.
            observed: bool ``[V]``; None: everything is observed.

        Returns:
            ``log p(x, y) = log p(x | y) + log p(y)`` in nats, ``[Y]``, whose
            ``logsumexp`` is `LogProb`; of nothing observed, the classes' own. ``-inf``
            where example or class is impossible, NaN where an observed value is NaN.

        Raises:
            ValueError: a shape or type is another.
        """
        ...


class ClassPosterior(Protocol):
    """Type of ``circuit.class_posterior``."""

    def __call__(self, params: PyTree, x: Any, observed: Any = None) -> Array:
        """The probability of each class given one example.

        Args:
            params: the circuit's.
            x: values ``[V, C]``; where they are not observed, any.
            observed: bool ``[V]``; None: everything is observed.

        Returns:
            ``p(y | x)``, ``[Y]``; the prior where the evidence is impossible, NaN where
            an observed value is NaN.

        Raises:
            ValueError: a shape or type is another.
        """
        ...


class Sample(Protocol):
    """Type of ``circuit.sample``."""

    def __call__(
        self,
        key: Key,
        params: PyTree,
        x: Any = None,
        observed: Any = None,
        *,
        leaf_mode: str = "sample",
        sharpness: Array | float = 1.0,
    ) -> Array:
        """An exact sample: ancestral, given the observed values if there are any.

        Args:
            key: a typed key.
            params: the circuit's.
            x: values ``[V, C]``, of which the observed ones are returned as given.
            observed: bool ``[V]``, given together with ``x``.
            leaf_mode: ``"sample"``, or ``"mean"`` for the means of the chosen leaves
                (behind a flow, as features).
            sharpness: the power of the weights of every sum, a scalar that is not
                negative, may be traced. Above 1 samples are more typical: exact ones
                of the sharper circuit (`dspc_jax.sharpened`), given the observed
                values as well; leaves stay as they are.

        Returns:
            ``[V, C]``; NaN where an observed value is NaN.

        Raises:
            ValueError: a shape, type or mode is another, or the sharpness is negative.
        """
        ...


class SampleDifferentiable(Protocol):
    """Type of ``circuit.sample_differentiable``."""

    def __call__(
        self,
        key: Key,
        params: PyTree,
        x: Any = None,
        observed: Any = None,
        *,
        relaxation: str = "gumbel_softmax",
        temperature: Array | float = 1.0,
        leaf_mode: str = "sample",
    ) -> Array:
        """A sample with gradients to the parameters.

        Args:
            key: a typed key; the same key gives the draw of `Sample` as the temperature
                falls to 0.
            params: the circuit's.
            x: values ``[V, C]``, of which the observed ones are returned as given.
            observed: bool ``[V]``, given together with ``x``.
            relaxation: one of `dspc_jax.queries.DIFFERENTIABLE`.
            temperature: a positive scalar, may be traced; ``"simple"`` and
                ``"implicit"`` do not depend on it.
            leaf_mode: ``"sample"``, or ``"mean"`` for the means of the chosen leaves.

        Returns:
            ``[V, C]``; NaN where an observed value is NaN.

        Raises:
            ValueError: a shape, type or name is another, the temperature is not a
                positive scalar, or the circuit has no implicit gradient.

        References:
            Lang et al., "Elevating Perceptual Sample Quality in PCs through
            Differentiable Sampling", 2022, section 3.2.
        """
        ...


class Mpe(Protocol):
    """Type of ``circuit.mpe``."""

    def __call__(
        self,
        params: PyTree,
        x: Any = None,
        observed: Any = None,
        *,
        method: str = "max_product",
    ) -> Array:
        """A most probable explanation of observed values.

        Exact for deterministic circuits, whatever the method; for others the problem
        is NP-hard, and each method gives a lower bound.

        Args:
            params: the circuit's.
            x: values ``[V, C]``, of which the observed ones are returned as given.
            observed: bool ``[V]``, given together with ``x``; None: nothing is
                observed.
            method: ``"max_product"``: the greatest term, jointly over variables and
                latent choices, backtracked; ``"sum_product"``: from the root down the
                choice that is most probable given the evidence, then modes of the
                leaves; ``"best"``: of these two the one of greater `log_prob`, at the
                cost of both and of two likelihoods.

        Returns:
            ``[V, C]``; NaN where an observed value is NaN.

        Raises:
            ValueError: a shape, type or name is another, or a flow is not affine.

        References:
            Poon and Domingos, "Sum-Product Networks", UAI 2011, section 4.
        """
        ...


class Mean(Protocol):
    """Type of ``circuit.mean``."""

    def __call__(self, params: PyTree, x: Any = None, observed: Any = None) -> Array:
        """The exact conditional mean of every variable given the observed ones.

        Differentiable in ``params`` and ``x``.

        Args:
            params: the circuit's.
            x: values ``[V, C]``, of which the observed ones are returned as given.
            observed: bool ``[V]``, given together with ``x``; None: nothing is
                observed.

        Returns:
            ``[V, C]``; 0 where the evidence is impossible, NaN where an observed value
            is NaN.

        Raises:
            ValueError: a shape or type is another, or a flow is not affine.
        """
        ...


def described(owner: type, name: str, function: Callable[..., Any]) -> Any:
    """The function with the name, signature and documentation of a circuit's field.

    Args:
        owner: a dataclass with a field of one of the types above.
        name: the field.
        function: its value; it is changed.

    Returns:
        The same function.
    """
    (protocol,) = (f.type for f in dataclasses.fields(owner) if f.name == name)
    call = getattr(protocol, "__call__")  # noqa: B004, B009 (of a type)
    signature = inspect.signature(call)
    for attribute, value in {
        "__name__": name,
        "__qualname__": f"{owner.__name__}.{name}",
        "__doc__": call.__doc__,
        "__signature__": signature.replace(
            parameters=list(signature.parameters.values())[1:]
        ),
    }.items():
        object.__setattr__(function, attribute, value)
    return function
