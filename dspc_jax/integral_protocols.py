"""The queries that are integrals as types: their signatures, and what they promise.

As `dspc_jax.protocols` for the others. Those behind a flow have none of them: an event
or a function of features is not one of values.
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from dspc_jax.types import Array, PyTree


class Covariance(Protocol):
    """Type of ``circuit.covariance``."""

    def __call__(self, params: PyTree, x: Any = None, observed: Any = None) -> Array:
        """The exact conditional covariance of every pair of variables.

        It takes as many passes as there are variables times channels. Differentiable
        in ``params`` and ``x``.

        Args:
            params: the circuit's.
            x: values ``[V, C]``.
            observed: bool ``[V]``, given together with ``x``; None: nothing is
                observed.

        Returns:
            ``[V, C, V, C]``, symmetric, in the squared units of the values; 0 of
            observed variables and where the evidence is impossible.

        Raises:
            ValueError: a shape or type is another, or a leaf has neither finitely many
                values nor a variance.
        """
        ...


class Expectation(Protocol):
    """Type of ``circuit.expectation``."""

    def __call__(
        self,
        params: PyTree,
        functions: Mapping[Any, Callable[[Array], Array]],
        x: Any = None,
        observed: Any = None,
    ) -> Array:
        r"""The exact conditional expectation of a product of functions of one variable.

        :math:`E[\prod_v f_v(x_v) \mid x_{obs}]`, with functions of either sign. A
        moment has powers for functions; a sum of products is the sum of their
        expectations. For a function that is no product there is
        `dspc_jax.expectation_estimate`.

        Args:
            params: the circuit's.
            functions: of each variable that the product has a factor of (with several
                channels, of each pair ``(variable, channel)``): takes an array of
                values of any shape, and gives its own for each. They are traced.
            x: values ``[V, C]``.
            observed: bool ``[V]``, given together with ``x``; None: nothing is
                observed.

        Returns:
            A scalar, differentiable in ``params`` and ``x``, and in what the functions
            close over. Sums over the values of leaves that have finitely many; of
            Normal leaves by quadrature, which is exact for polynomials of degrees below
            64 and wants smooth functions (an indicator is an event:
            ``circuit.event_log_prob``). 0 where the evidence is impossible.

        Raises:
            ValueError: a shape or type is another, a key is no coordinate, or a leaf
                has neither finitely many values nor a quadrature rule.
        """
        ...


class EventLogProb(Protocol):
    """Type of ``circuit.event_log_prob``."""

    def __call__(
        self, params: PyTree, event: Any, x: Any = None, observed: Any = None
    ) -> Array:
        """The log-probability of an event: an interval or a set for each variable.

        Without evidence it is that of the event; with evidence the joint one,
        ``log p(x_observed, event)``: less ``log_prob(params, x, observed)`` it is that
        of the event given the evidence.

        Args:
            params: the circuit's.
            event: a `dspc_jax.Event` of all variables that are not observed.
            x: values ``[V, C]``.
            observed: bool ``[V]``, given together with ``x``; None: nothing is
                observed. What the event says of observed variables does not count.

        Returns:
            Nats, a scalar: exact, by sums over values or by distribution functions,
            with gradients in ``params``, ``x`` and the bounds. 0 of an event without
            bounds; ``-inf`` with zero gradients of an impossible one, such as an
            interval whose end is below its start, or a point of a continuous variable.

        Raises:
            ValueError: a shape or type is another, or a leaf has neither finitely many
                values nor a distribution function.
        """
        ...
