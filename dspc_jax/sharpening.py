"""Sharper circuits: the weights of every sum to a power."""

from dspc_jax import parameters
from dspc_jax.arguments import instance
from dspc_jax.circuit import Circuit
from dspc_jax.parameters import CircuitParams
from dspc_jax.types import Array


def sharpened(
    circuit: Circuit, params: CircuitParams, sharpness: Array | float
) -> CircuitParams:
    r"""The circuit whose sums have their weights to a power, as parameters.

    .. math:: w_k \mapsto w_k^s / \sum_j w_j^s

    at every sum, the mixtures of partitions and of classes included: the temperature of
    language models, 1 / s, at every choice. Leaves stay as they are. With these
    parameters every query (samples, completions, likelihoods, gradients) is that of
    the sharper circuit, exactly; ``circuit.sample(..., sharpness=s)`` draws from it.

    It is not the distribution :math:`p(x)^s / Z`. Every choice is sharpened by its own
    weights, without regard to how the mass below it is spread: a sum whose weights are
    about equal, as those of many units with similar roles in a ``"tucker"`` or dense
    ``"cp"`` layer, hardly changes, although some of its children may be far more
    typical than others; two children that are alike count as two, each too small.

    Args:
        circuit: the circuit.
        params: its parameters. Behind a flow: those of the circuit alone.
        sharpness: s, a scalar that is not negative; may be traced. 1: the same circuit,
            bit for bit; above 1 fewer, more typical choices; ``inf``, the limit: the
            greatest weight alone, equal ones alike, with gradients 0; below 1 more
            diverse choices; 0: all that is possible alike.

    Returns:
        The parameters, in their own type; bfloat16 is rounded once more. A weight of 0
        stays 0. Gradients in both are finite.

    Raises:
        ValueError: the sharpness is negative, NaN or no scalar (a traced one is only
            seen to be no scalar), or the parameters belong to another circuit.
    """
    instance("circuit", circuit, Circuit)
    instance("params", params, CircuitParams)
    return parameters.sharpened(circuit.layout, params, sharpness)
