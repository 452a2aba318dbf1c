"""Every public entry gives the same for equal numbers of all types."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dspc_jax as pc
from dspc_jax import networks, objectives
from dspc_jax.evaluation import dequantization
from dspc_jax.objectives.expected_kernels import log_mean_kernel
from dspc_jax.objectives.score_function import mmd_advantages
from dspc_jax.objectives.variational import variational_loss
from tests import cases

V, N = 4, 6
KERNEL = objectives.gaussian_kernel([200.0])
CIRCUIT = pc.build(
    pc.CircuitConfig(
        pc.QuadTree(2, 2), pc.Normal(max_scale=300.0), num_leaves=2, num_sums=2
    )
)


def key():
    return jax.random.key(0)


PARAMS = CIRCUIT.init(key())


def sample(keys, params):
    return jax.vmap(CIRCUIT.sample, (0, None))(keys, params)


def loss(function, **options):
    return lambda x: function(PARAMS, key(), x, **options)[0]


def critic_loss(x):
    critic = networks.convolutional_critic(
        2, 2, value_range=(0, 255), num_filters=2, num_features=2
    )
    return objectives.penalized_critic_loss(
        *(critic.init(key()), key(), x),
        params=PARAMS,
        sample=sample,
        critic=critic,
        kernel=objectives.rational_quadratic_kernel(),
    )[0]


def discriminator_loss(x):
    discriminator = networks.mlp_discriminator(V, value_range=(0, 255))
    return objectives.discriminator_loss(
        *(discriminator.init(key()), key(), x),
        params=PARAMS,
        sample=sample,
        discriminator=discriminator,
        r1_weight=1.0,
        gradient_penalty_weight=1.0,
    )[0]


def auto_encoding_loss(x):
    joint = pc.build(
        pc.CircuitConfig(pc.with_latents(pc.QuadTree(2, 2), 1), pc.Normal(), 1, 2, 2, 1)
    )
    return objectives.auto_encoding_loss(
        *(joint.init(key()), key(), x),
        encode=objectives.circuit_encoder(joint, "mean"),
        decode=objectives.circuit_decoder(joint, "mean"),
        reconstruction="mse",
        ll_weight=1.0,
        log_prob=joint.log_prob,
    )[0]


ENTRIES = {
    "log_prob": lambda x: jax.vmap(CIRCUIT.log_prob, (None, 0))(PARAMS, x),
    "init": lambda x: CIRCUIT.init(key(), x),
    "expected_counts": lambda x: pc.expected_counts(CIRCUIT, PARAMS, x),
    "median_bandwidths": objectives.median_bandwidths,
    "mmd2_unbiased": lambda x: objectives.mmd2_unbiased(x, x[::-1] * 0, KERNEL),
    "mmd2_biased": lambda x: objectives.mmd2_biased(x, x[::-1] * 0, KERNEL),
    "mmd_advantages": lambda x: mmd_advantages(x, x * 0, KERNEL),
    "mmd_loss": loss(objectives.mmd_loss, sample=sample, kernel=KERNEL),
    "exact_mmd_loss": loss(
        objectives.exact_mmd_loss, circuit=CIRCUIT, bandwidths=[200.0]
    ),
    "log_mean_kernel": lambda x: log_mean_kernel(CIRCUIT, PARAMS, x, 200.0),
    "likelihood": loss(objectives.negative_log_likelihood, log_prob=CIRCUIT.log_prob),
    "sample_spread": lambda x: objectives.sample_spread(x, x * 0 + 1),
    "augmentation": lambda x: objectives.augment_images(key(), x, height=2, width=2),
    "critic": critic_loss,
    "discriminator": discriminator_loss,
    "auto_encoding": auto_encoding_loss,
    "variational": loss(
        variational_loss,
        encode=lambda params, x: (x[..., 0] / 300, x[..., 0] * 0),
        decode=lambda params, z: z[..., None],
    ),
    "bits": lambda x: dequantization.bits_per_example(
        dequantization.uniform_codec(256), x, jnp.zeros(len(x))
    ),
}


LONG = ("critic", "auto_encoding", "discriminator", "augmentation")
LONG += ("mmd_loss", "exact_mmd_loss", "log_mean_kernel")


# Halves take the way of 8-bit pixels through every entry (tests/ops/test_values.py).
@pytest.mark.parametrize(
    "dtype", ["uint8", pytest.param("float16", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("name", cases.parameters(ENTRIES, LONG))
def test_values_of_any_type_give_what_floats_give(name, dtype):
    pixels = np.random.default_rng(0).integers(0, 256, (N, V, 1))
    both = cases.jit(lambda *values: [ENTRIES[name](x) for x in values])
    wanted, got = both(pixels.astype(np.float32), pixels.astype(dtype))
    assert all(np.isfinite(a).all() for a in jax.tree.leaves(wanted))
    jax.tree.map(np.testing.assert_array_equal, got, wanted)


def test_bools_count_as_numbers():
    config = pc.CircuitConfig(pc.RandomBinaryTrees(V, 1), pc.Bernoulli(), 1, 2, 2)
    circuit = pc.build(config)
    bits = np.random.default_rng(0).random((N, V, 1)) < 0.5
    params = circuit.init(key(), bits)
    counts = functools.partial(pc.expected_counts, circuit, params)
    jax.tree.map(np.testing.assert_array_equal, counts(bits), counts(bits * 1.0))


@pytest.mark.parametrize("observed", [np.ones((N, V)), np.ones(V, bool)])
def test_expected_counts_refuse_other_masks(observed):
    x = np.zeros((N, V, 1))
    with pytest.raises(ValueError, match="observed must be bool of shape"):
        pc.expected_counts(CIRCUIT, PARAMS, x, observed)
