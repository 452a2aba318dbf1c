"""A discriminator inside a training step: any network or circuit that makes logits."""

from collections.abc import Callable
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from dspc_jax.interfaces import Discriminator
from dspc_jax.objectives import (
    discriminator_loss,
    generator_loss,
    generator_risk,
    mean_advantages,
)
from experiments.losses.term import Term, adversary_steps


class Adversary(NamedTuple):
    """What is trained against the generator.

    Attributes:
        params: of the discriminator.
        opt_state: of its optimizer.
        generator: the circuit's parameters before this step, where the discriminator
            needs them, else ``()``.
    """

    params: Any
    opt_state: Any
    generator: Any


def discriminator_term(
    discriminator: Discriminator | Callable[[Any], Discriminator],
    optimizer: optax.GradientTransformation,
    *,
    loss: str,
    num_steps: int = 1,
    period: int = 1,
    augment: Callable[[jax.Array, jax.Array], jax.Array] | None = None,
    r1_weight: float = 0.0,
    gradient_penalty_weight: float = 0.0,
    has_noise: bool = False,
) -> Term:
    """The discriminator's loss and the generator's as a term.

    Args:
        discriminator: its functions; or a function from the circuit's parameters before
            the step to them, for one that compares a copy of the circuit with it. Its
            parameters start as the circuit's before the first step.
        optimizer: of its parameters.
        loss: one of `ADVERSARIAL_LOSSES`.
        num_steps: of the discriminator before each step of the generator.
        period: it is trained before every so many steps of the generator only.
        augment: of what it sees, see `discriminator_loss`.
        r1_weight: see `discriminator_loss`.
        gradient_penalty_weight: see `discriminator_loss`.
        has_noise: whether its logits are random in training (dropout).

    Returns:
        The term, ``adv`` in the metrics.
    """
    compares = not isinstance(discriminator, Discriminator)

    def discriminator_at(adversary) -> Discriminator:
        if isinstance(discriminator, Discriminator):
            return discriminator
        return discriminator(adversary.generator)

    def init(key):
        params = discriminator_at(Adversary((), (), None)).init(key)
        reference = jax.tree.map(jnp.copy, params) if compares else ()
        return Adversary(params, optimizer.init(params), reference)

    def train(adversary, params, key, number, draw, sample):
        if compares:
            adversary = _following(adversary, params["circuit"], number)
        step_loss = functools.partial(
            discriminator_loss,
            params=params,
            sample=sample,
            discriminator=discriminator_at(adversary),
            loss=loss,
            augment=augment,
            r1_weight=r1_weight,
            gradient_penalty_weight=gradient_penalty_weight,
        )
        state = adversary.params, adversary.opt_state
        trained, metrics = adversary_steps(
            step_loss, optimizer, state, key, num_steps, draw
        )
        if period > 1:  # computed in any case, for its metrics
            due = number % period == 0
            trained = jax.tree.map(functools.partial(jnp.where, due), trained, state)
        adversary = adversary._replace(params=trained[0], opt_state=trained[1])
        return adversary, {f"discriminator_{k}": v for k, v in metrics.items()}

    def term_loss(params, key, x, adversary, sample):
        return generator_loss(
            params,
            key,
            x,
            discriminator_params=adversary.params,
            sample=sample,
            discriminator=discriminator_at(adversary),
            loss=loss,
            augment=augment,
        )

    def advantages(x, samples, adversary):
        """The loss is a mean over samples."""
        del x
        logits = discriminator_at(adversary).logits(adversary.params, samples)
        return mean_advantages(
            jax.vmap(lambda d: generator_risk(d[None], loss=loss))(logits)
        )

    is_mean = augment is None and not has_noise
    of_samples = advantages if is_mean else None
    return Term("adv", term_loss, init, train, of_samples, unit="adversarial loss")


def _following(adversary: Adversary, generator: Any, number: jax.Array) -> Adversary:
    """Remembers the generator, and starts from it before the first step."""
    start = jax.tree.map(
        lambda own, theirs: jnp.where(number == 0, theirs, own),
        adversary.params,
        generator,
    )
    return adversary._replace(params=start, generator=generator)
