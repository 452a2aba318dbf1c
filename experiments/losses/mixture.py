"""Training through samples beside the likelihood: one step for all such programs.

A program supplies a `Generator` and a `Term` (a loss on samples, with whatever is
trained against it); the rest is the same for all: pre-training by likelihood, a
likelihood term beside the loss, and how the two gradients are joined.
"""

from collections.abc import Callable, Mapping
import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from dspc_jax.learning.balance import BALANCES, balanced_gradient
from experiments.console.errors import UserError
from experiments.engine import flags
from experiments.engine.flags import Settings
from experiments.engine.system import System, levels_and_labels
from experiments.losses.term import Metrics, Term, objective
from experiments.models import generators
from experiments.models.em import Em, make_em
from experiments.models.generators import NATS, Generator


@dataclasses.dataclass(frozen=True)
class MixtureSettings:
    """The flags of every program that trains a circuit through samples."""

    pretrain_steps: int = flags.flag(
        500,
        "first steps, which maximize the likelihood instead, by --optimizer",
        flags.at_least(0),
    )
    ll_weight: float = flags.flag(
        0.1,
        "weight of the negative log-likelihood (nats a dimension) beside the loss on "
        "samples",
        flags.at_least(0),
    )
    sample_weight: float = flags.flag(
        1.0,
        "weight of the loss on samples; 0: likelihood alone, all else the same, the "
        "control of a study",
        flags.at_least(0),
    )
    sampler_learning_rate: float | None = flags.flag(
        0.003,
        "Adam's step size after pre-training, where the gradient passes samples",
        flags.above(0),
    )
    balance: str = flags.flag(
        "none",
        "how the gradients of samples and likelihood are added: as they are (none), "
        "or each divided by its norm first (norm)",
        flags.one_of(*BALANCES),
    )
    clip_norm: float | None = flags.flag(
        None,
        "greatest norm of a gradient: a longer one is shortened to it (default: none)",
        flags.above(0),
        kind=float,
    )


# Of networks, which have no likelihood; Adam's step size is --learning_rate alone.
NO_LIKELIHOOD = MixtureSettings(
    pretrain_steps=0, ll_weight=0.0, sampler_learning_rate=None
)


class State(NamedTuple):
    """Everything that is trained.

    Attributes:
        params: of the generator.
        opt_state: of its Adam.
        em_state: of EM during pre-training, or ``()``.
        adversary: what `Term.init` made.
    """

    params: Any
    opt_state: optax.OptState
    em_state: Any
    adversary: Any


def make_system(
    settings: Settings,
    mixture: MixtureSettings,
    generator: Generator,
    term: Term,
    rates: Mapping[str, float] | None = None,
) -> System:
    """Training through samples as the training loop sees it.

    Its step metrics are ``loss``, ``NAME_term`` and ``ll_term`` (the terms as they
    entered the loss, weights included; 0 where a term was not part of it), the norms of
    the gradients, the temperature, and what the term reports.

    Args:
        settings: the shared flags.
        mixture: how the likelihood takes part.
        generator: what is trained.
        term: by what.
        rates: step sizes of parts of the parameters, by name, as shares of the others'.

    Returns:
        The system.

    Raises:
        UserError: a likelihood is asked for where there is none.
    """
    if generator.likelihood_loss is None and (
        mixture.pretrain_steps or mixture.ll_weight
    ):
        raise UserError("--ll_weight must be 0 for a generator without likelihood")
    if not (mixture.sample_weight or mixture.ll_weight):
        raise UserError("--ll_weight must be greater than 0 with --sample_weight=0")
    em = _em(settings, mixture, generator)
    training = _Training(settings, mixture, generator, term, rates or {}, em)
    unit = _unit(mixture, term)
    return generators.system(generator, training.init, training.step, unit=unit)


def _unit(mixture: MixtureSettings, term: Term) -> str:
    """The unit of the loss: of a sum, that of each part with its weight."""
    weights = {term.unit: mixture.sample_weight}
    weights[NATS] = weights.get(NATS, 0.0) + mixture.ll_weight
    parts = [
        unit if weight == 1 or term.unit == NATS else f"{weight:g} x {unit}"
        for unit, weight in weights.items()
        if weight
    ]
    unit, before = " + ".join(parts), mixture.pretrain_steps
    return f"{NATS}, after step {before} {unit}" if before and unit != NATS else unit


class _Training:
    """The first state and the step, which need all the parts together."""

    def __init__(
        self,
        settings: Settings,
        mixture: MixtureSettings,
        generator: Generator,
        term: Term,
        rates: Mapping[str, float],
        em: Em | None,
    ):
        self._settings, self._mixture, self._rates = settings, mixture, rates
        self._generator, self._term, self._em = generator, term, em
        self._adam = optax.scale_by_adam()
        if mixture.clip_norm is not None:
            clip = optax.clip_by_global_norm(mixture.clip_norm)
            self._adam = optax.chain(clip, self._adam)

    def init(self, key):
        generator_key, term_key = jax.random.split(key)
        params = self._generator.init(generator_key)
        em_state = () if self._em is None else self._em.init(params)
        return State(
            params, self._adam.init(params), em_state, self._term.init(term_key)
        )

    def step(self, state, key, batch, step, draw):
        noise_key, *keys = jax.random.split(key, 4)
        levels, labels = levels_and_labels(batch)
        x = self._generator.codec.encode(noise_key, levels)
        num_before = self._mixture.pretrain_steps
        new, metrics = _either(
            step < num_before if num_before else None,
            lambda: self._pretrain(state, keys[0], x, labels),
            lambda: self._train(state, keys, x, labels, step, draw),
        )
        terms = [metrics.get(f"{name}_term", 0.0) for name in (self._term.name, "ll")]
        metrics["loss"] = jnp.asarray(terms[0] + terms[1])
        heat = self._generator.sampler(state.params, step).temperature
        metrics["temperature"] = jnp.asarray(heat, jnp.float32)
        return new, metrics

    def _pretrain(self, state, key, x, labels):
        """A step of the likelihood alone."""
        loss = self._likelihood(key, x, labels)
        if self._em is not None:
            value, _ = loss(state.params)
            params, em_state = self._em.step(state.params, state.em_state, x, labels)
            return state._replace(params=params, em_state=em_state), {"ll_term": value}
        grads, metrics = balanced_gradient(state.params, {"ll": (1.0, loss)})
        return self._moved(state, grads, self._settings.learning_rate), metrics

    def _train(self, state, keys, x, labels, step, draw):
        """A step of the loss on samples and of the likelihood beside it."""
        mixture, losses, metrics = self._mixture, {}, {}
        if mixture.sample_weight:
            state, metrics = self._train_adversary(state, keys[2], step, draw)
            loss = self._on_samples(state.adversary, keys[1], x, step)
            losses[self._term.name] = mixture.sample_weight, loss
        if mixture.ll_weight:
            loss = self._likelihood(keys[0], x, labels)
            losses["ll"] = mixture.ll_weight, loss
        grads, of_losses = balanced_gradient(
            state.params, losses, balance=mixture.balance
        )
        rate = mixture.sampler_learning_rate or self._settings.learning_rate
        return self._moved(state, grads, rate), metrics | of_losses

    def _train_adversary(self, state, key, step, draw):
        if self._term.train is None:
            return state, {}
        codec = self._generator.codec

        def draw_unit(key):
            draw_key, noise_key = jax.random.split(key)
            levels, _ = levels_and_labels(draw(draw_key))
            return codec.to_unit(codec.encode(noise_key, levels))

        adversary, metrics = self._term.train(
            state.adversary,
            state.params,
            key,
            step - self._mixture.pretrain_steps,
            draw_unit,
            self._generator.sampler(state.params, step),
        )
        return state._replace(adversary=adversary), metrics

    def _on_samples(self, adversary, key, x, step):
        """The term as a function of the parameters."""
        generator = self._generator

        def loss(params):
            on_samples = objective(
                self._term,
                adversary,
                generator.sampler(params, step),
                self._settings.relaxation,
                generator.circuit and generator.circuit.circuit,
                generator.codec.to_unit,
            )
            return on_samples(params, key, generator.codec.to_unit(x))

        return loss

    def _likelihood(self, key, x, labels):
        """Negative, as a function of the parameters."""

        def loss(params):
            assert self._generator.likelihood_loss is not None
            return self._generator.likelihood_loss(params, key, x, labels), {}

        return loss

    def _moved(self, state, grads, rate):
        """The state after a step of Adam."""
        updates: Any
        updates, opt_state = self._adam.update(grads, state.opt_state, state.params)
        updates = {
            name: optax.tree.scale(-rate * self._rates.get(name, 1.0), part)
            for name, part in updates.items()
        }
        params = optax.apply_updates(state.params, updates)
        return state._replace(params=params, opt_state=opt_state)


Outcome = tuple[State, Metrics]


def _either(
    first: jax.Array | None, one: Callable[[], Outcome], other: Callable[[], Outcome]
) -> Outcome:
    """``one()`` where ``first`` holds, else ``other()``; metrics that lack are 0."""
    if first is None:
        return other()
    shapes = jax.eval_shape(one)[1] | jax.eval_shape(other)[1]

    def padded(branch):
        def run():
            state, metrics = branch()
            zeros = {k: jnp.zeros(v.shape, v.dtype) for k, v in shapes.items()}
            return state, zeros | metrics

        return run

    return jax.lax.cond(first, padded(one), padded(other))


def _em(
    settings: Settings, mixture: MixtureSettings, generator: Generator
) -> Em | None:
    """EM for pre-training, where the flags ask for it."""
    if settings.optimizer != "em":
        return None
    if generator.circuit is None or not mixture.pretrain_steps:
        raise UserError(
            "--optimizer must be adam without --pretrain_steps of a circuit (EM sees "
            f"no samples), got {settings.optimizer!r}"
        )
    return make_em(settings, generator.circuit)
