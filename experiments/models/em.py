"""Expectation-maximization of the circuit among the parameters of a run."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax

import dspc_jax as pc
from experiments.console.errors import UserError
from experiments.engine import flags
from experiments.engine.flags import Settings
from experiments.engine.system import Closing, levels_and_labels
from experiments.models import circuit as model
from experiments.models.circuit import Model, Params


class Em(NamedTuple):
    """Stochastic EM as a program uses it.

    Attributes:
        init: ``params -> state``.
        step: ``(params, state, x[B, V, C], labels) -> (params, state)``; labels are
            int32 ``[B]``, or None where classes are not observed. Only the circuit's
            parameters change.
    """

    init: Callable[[Params], Any]
    step: Callable[[Params, Any, jax.Array, Any], tuple[Params, Any]]


_LAST_STEP_SIZE = flags.defaults_of([Settings])["em_last_step_size"]


def _step_size(settings: Settings) -> optax.ScalarOrSchedule:
    first, last = settings.em_step_size, settings.em_last_step_size
    if not settings.em_decay_steps:
        if last != _LAST_STEP_SIZE:
            raise UserError(
                "--em_last_step_size must go with --em_decay_steps of at least 1, got "
                f"{last} with 0"
            )
        return first
    return optax.exponential_decay(
        first, settings.em_decay_steps, last / first, end_value=last
    )


def _transformation(
    settings: Settings, circuit: Model, *, scale: float = 1.0, **options: Any
) -> optax.GradientTransformation:
    """`dspc_jax.em` with the smoothing of the flags, pseudocounts times ``scale``."""
    try:
        return pc.em(
            circuit.circuit,
            pseudocount=settings.em_pseudocount * scale,
            leaf_pseudocount=settings.em_leaf_pseudocount * scale,
            smooth_towards=settings.em_smooth_towards,
            leaf_spread=settings.em_leaf_spread,
            approximate=settings.em_approximate,
            **options,
        )
    except ValueError as error:
        reason = str(error).replace("approximate=True", "--em_approximate")
        raise UserError(
            f"--optimizer=em does not fit --leaf={settings.leaf}: {reason}"
        ) from error


def make_em(settings: Settings, circuit: Model) -> Em:
    """EM on the expected counts of a batch, with the flags' step size.

    Args:
        settings: the shared flags.
        circuit: what is trained.

    Returns:
        Its functions.

    Raises:
        UserError: leaves without an M-step.
    """
    em = _transformation(
        settings,
        circuit,
        step_size=_step_size(settings),
        momentum=settings.em_momentum,
        rescale=settings.em_rescale,
    )

    def init(params):
        return em.init(params["circuit"])

    def step(params, state, x, labels):
        own = params["circuit"]
        counts: Any = model.expected_counts(
            circuit, params, x, labels=labels, approximate=settings.em_approximate
        )
        updates, state = em.update(counts, state, own)
        return params | {"circuit": optax.apply_updates(own, updates)}, state

    return Em(init, step)


def make_closing(
    settings: Settings, circuit: Model, num_examples: int
) -> Closing | None:
    """Full-batch steps of EM, of size 1.

    Pseudocounts are examples for each batch of the flags, so for all images they are as
    many times more.

    Args:
        settings: the shared flags.
        circuit: what is trained.
        num_examples: training images; mirrored ones are counted beside them.

    Returns:
        Functions of the parameters; None: the flags ask for no such step.
    """
    if settings.optimizer != "em" or not settings.em_closing_steps:
        return None
    num_counted = num_examples * (2 if settings.flip == "horizontal" else 1)
    em = _transformation(settings, circuit, scale=num_counted / settings.batch_size)

    def count(params, key, batch, weights):
        levels, labels = levels_and_labels(batch)
        x = circuit.codec.encode(key, levels)
        return model.expected_counts(
            circuit,
            params,
            x,
            labels=labels,
            example_weights=weights,
            approximate=settings.em_approximate,
        )

    def update(params, counts):
        own = params["circuit"]
        updates, _ = em.update(counts, optax.EmptyState(), own)
        return params | {"circuit": optax.apply_updates(own, updates)}

    return Closing(settings.em_closing_steps, count, update)
