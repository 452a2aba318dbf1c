"""The table's rows of objectives: ``(circuit, params, case) -> loss``, a scalar.

`tests.transformations.test_modes` holds that every objective is here. The batch is the
case's example and two neighbors. Whatever an objective trains is made of the circuit's
parameters: its discriminators, critics and codes are queries of the circuit.
"""

from collections.abc import Callable
import functools
import inspect
from typing import Any

import jax
import jax.numpy as jnp

from dspc_jax import objectives
from dspc_jax.interfaces import AutoEncoder, FeatureCritic
from dspc_jax.objectives.expected_kernels import log_mean_kernel
from tests import cases

NAMES = tuple(
    name
    for name in objectives.__all__
    if inspect.isfunction(function := getattr(objectives, name))
    and {"key", "batch"} <= set(inspect.signature(function).parameters)
)
"""What is called with a key and a batch."""
BANDWIDTHS = (0.5, 1.0)
KERNEL = objectives.gaussian_kernel(BANDWIDTHS)


def batch_of(case: Any) -> jax.Array:
    """``[3, V, C]``, a function of the example: of its type, with its gradient."""
    return jnp.stack([case.x, case.x + 0.5, 0.5 - case.x])


def _row(objective: Callable[..., Any], options: Callable[..., dict[str, Any]]):
    def loss(circuit, params, case):
        key = jax.random.clone(case.key)
        chosen = options(circuit, params)
        return objective(params, key, batch_of(case), **chosen)[0]

    return loss


def _sample(circuit):
    """Soft samples, whose second derivatives are slopes of the first."""
    draw = functools.partial(
        circuit.sample_differentiable, relaxation="gumbel_softmax", temperature=0.7
    )
    return jax.vmap(draw, (0, None))


def _fixed(circuit, params):
    """Another's parameters, of the type of these; the same numbers in every type."""
    others = cases.random_params(circuit, 5)
    return jax.tree.map(
        lambda a, p: a.astype(jnp.bfloat16).astype(p.dtype), others, params
    )


def _discriminator(circuit):
    return objectives.class_discriminator(circuit.class_log_probs, circuit.init)


def _against_another(circuit, params):
    return {"params": _fixed(circuit, params), "sample": _sample(circuit)}


def _critic(circuit, params):
    def features(params, x):
        return jax.vmap(circuit.class_log_probs, (None, 0))(params, x)

    return _against_another(circuit, params) | {
        "critic": FeatureCritic(
            circuit.init, features, lambda params, x: (features(params, x),)
        ),
        "kernel": KERNEL,
    }


def _auto_encoder(circuit):
    def encode(params, x):
        return jax.vmap(circuit.class_log_probs, (None, 0))(params["encoder"], x)

    def decode(params, features):
        mean = circuit.mean(params["decoder"])
        return jnp.tanh(features[..., None] - mean[None])

    return {
        "auto_encoder": AutoEncoder(circuit.init, encode, decode, jnp.tanh),
        "kernel": KERNEL,
    }


def _critic_loss(critic_params, key, batch, **options):
    both = {"encoder": critic_params, "decoder": critic_params}
    return objectives.critic_loss(both, key, batch, **options)


def _auto_encoding(params, key, batch, circuit):
    """The second variable is the code of the first."""
    return objectives.auto_encoding_loss(
        *(params, key, batch[:, :1]),
        encode=objectives.circuit_encoder(
            circuit, "sample", relaxation="gumbel_softmax"
        ),
        decode=objectives.circuit_decoder(circuit, "mean"),
        reconstruction="mse",
    )


def _variational(circuit, params):
    def encode(params, x):
        return x[..., 0] * circuit.mean(params)[:, 0][None], x[..., 0] - 1

    def decode(params, z):
        return z[..., None] * params.classes[0].astype(z.dtype)

    return {"encode": encode, "decode": decode}


def _score(estimator):
    def objective(params, key, batch, circuit):
        loss = functools.partial(objectives.mmd_loss, kernel=KERNEL)
        scored = objectives.with_score(loss, circuit, estimator=estimator)
        return scored(params, key, batch)

    return _row(objective, lambda circuit, params: {"circuit": circuit})


ROWS = {
    "negative_log_likelihood": _row(
        objectives.negative_log_likelihood,
        lambda circuit, params: {"log_prob": circuit.log_prob},
    ),
    "mmd_loss": _row(
        objectives.mmd_loss,
        lambda circuit, params: {"sample": _sample(circuit), "kernel": KERNEL},
    ),
    "exact_mmd_loss": _row(
        objectives.exact_mmd_loss,
        lambda circuit, params: {"circuit": circuit, "bandwidths": BANDWIDTHS},
    ),
    "log_mean_kernel": lambda circuit, params, case: jnp.sum(
        log_mean_kernel(circuit, params, batch_of(case), 1.0)
    ),
    "auto_encoding_loss": _row(
        _auto_encoding, lambda circuit, params: {"circuit": circuit}
    ),
    "variational_loss": _row(objectives.variational_loss, _variational),
    "generator_loss": _row(
        objectives.generator_loss,
        lambda circuit, params: {
            "discriminator_params": _fixed(circuit, params),
            "sample": _sample(circuit),
            "discriminator": _discriminator(circuit),
        },
    ),
    "discriminator_loss": _row(
        objectives.discriminator_loss,
        lambda circuit, params: (
            _against_another(circuit, params)
            | {
                "discriminator": _discriminator(circuit),
                "augment": functools.partial(
                    objectives.augment_images, height=1, width=2
                ),
                "r1_weight": 1.0,
                "gradient_penalty_weight": 1.0,
            }
        ),
    ),
    "penalized_critic_loss": _row(objectives.penalized_critic_loss, _critic),
    "critic_loss": _row(
        _critic_loss,
        lambda circuit, params: (
            _against_another(circuit, params) | _auto_encoder(circuit)
        ),
    ),
    "sampler_loss": _row(
        objectives.sampler_loss,
        lambda circuit, params: (
            {
                "critic_params": {"encoder": params, "decoder": params},
                "sample": _sample(circuit),
            }
            | _auto_encoder(circuit)
        ),
    ),
}
ROWS |= {
    f"with_score, {estimator}": _score(estimator)
    for estimator in objectives.SCORE_ESTIMATORS
}
