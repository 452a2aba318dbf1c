"""Distributions of images through a flow, by ``--density`` of its features.

Every one is a function of ``{"flow": ..., ...}``, has a likelihood or a bound of it,
and draws samples that are differentiable in all parameters.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp
import numpy as np

import dspc_jax as pc
from dspc_jax import networks
from dspc_jax.evaluation import Codec
from dspc_jax.flows import ladder
from dspc_jax.flows.flow import Flow
from dspc_jax.objectives import gaussian_kl
from dspc_jax.objectives.kernels import squared_distances
from experiments.console.errors import UserError
from experiments.data import Dataset
from experiments.engine.flags import Settings
from experiments.models import circuit as model
from experiments.models import temperature
from experiments.models.density import Density
from experiments.models.density_settings import DensitySettings
from experiments.models.generators import Sampler
from experiments.models.networks import matching_width, num_circuit_params

_LOG_2PI = math.log(2 * math.pi)
_NOISE = 0.3  # of a feature's deviation, at first: with all of it latents stay unused


def make_flow(settings: DensitySettings, dataset: Dataset) -> Flow:
    """The flow of the flags.

    Args:
        settings: the flags.
        dataset: the images.

    Returns:
        The flow.

    Raises:
        UserError: it does not fit the images.
    """
    sides = dataset.height, dataset.width, dataset.num_channels
    size = {"num_steps": settings.flow_steps, "num_filters": settings.flow_filters}
    try:
        if settings.flow == "identity":
            flow = ladder.identity_flow(*sides)
        elif settings.flow == "colour":
            flow = ladder.color_flow(*sides)
        elif settings.flow == "patch":
            flow = ladder.patch_flow(*sides, patch=settings.flow_patch, **size)
        else:
            levels = settings.flow_levels
            flow = ladder.multi_scale_flow(*sides, num_levels=levels, **size)
    except ValueError as error:
        raise UserError(f"--flow={settings.flow} does not fit: {error}") from error
    return ladder.after_logit(flow) if settings.preprocess == "logit" else flow


def make_density(
    settings: Settings,
    density_settings: DensitySettings,
    dataset: Dataset,
    codec: Codec,
    num_steps_before: int,
) -> Density:
    """The density of the flags.

    Args:
        settings: the shared flags; they shape a circuit.
        density_settings: the flags of the density.
        dataset: the images.
        codec: the units of its values.
        num_steps_before: steps before the temperature schedule begins.

    Returns:
        The density.

    Raises:
        UserError: the flags do not fit one another or the images.
    """
    is_kernel = density_settings.density == "kernel"
    if is_kernel and (density_settings.flow, density_settings.preprocess) != (
        *("identity", "none"),
    ):
        raise UserError(
            "--flow must be identity and --preprocess none with --density=kernel, got "
            f"{density_settings.flow!r} and {density_settings.preprocess!r}"
        )
    flow = make_flow(density_settings, dataset)
    if density_settings.density == "circuit":
        return circuit_density(settings, dataset, flow, num_steps_before)
    if density_settings.density == "vae":
        return vae_density(settings, density_settings, dataset, flow)
    if density_settings.density == "gaussian":
        return gaussian_density(flow, dataset.train.shape[1:])
    num = min(density_settings.density_centres, len(dataset.train))
    rows = np.linspace(0, len(dataset.train) - 1, num).astype(np.int64)
    # For fixed noise: a center is a point.
    centres = codec.encode(jax.random.key(0), jnp.asarray(dataset.train[rows]))
    return kernel_density(np.asarray(centres), 1 / dataset.num_values)


def circuit_density(
    settings: Settings, dataset: Dataset, flow: Flow, num_steps_before: int
) -> Density:
    """Log p(x) = log S(f(x)) + log |det df/dx| with a circuit S, exact."""
    if settings.leaf != "normal":
        raise UserError(f"--leaf must be normal behind a flow, got {settings.leaf!r}")
    temperature_at = temperature.schedule(settings, num_steps_before)
    with model.describing_flags():
        config = model.circuit_config(settings, dataset)
        through = pc.transform(pc.build(config), flow)

    def init(key, x):
        return through.init(key, x) | temperature.init(settings)

    def sampler(params, step):
        heat = temperature_at(params, step)

        def draw(key, params):
            return through.sample_differentiable(
                key, params, relaxation=settings.relaxation, temperature=heat
            )

        return Sampler(jax.vmap(draw, (0, None)), heat)

    def draw(params, key, num):
        def samples(options):
            def sample(key):
                return through.sample(key, params, **options)

            return jax.vmap(sample)(jax.random.split(jax.random.clone(key), num))

        ways = model.with_sharpness(settings.sharpness, model.WAYS)
        return {title: samples(options) for title, options in ways.items()}

    def complete(params, x, observed):
        queries = {"mpe": through.mpe, "mean": through.mean}
        return {
            name: jax.vmap(query, (None, 0, 0))(params, x, observed)
            for name, query in queries.items()
        }

    return Density(
        init,
        lambda params, key, x: jax.vmap(through.log_prob, (None, 0))(params, x),
        True,
        sampler,
        draw,
        # Masks are of pixels, so a block must be one.
        complete if flow.affine and flow.num_blocks == len(flow.blocks) else None,
    )


def gaussian_density(flow: Flow, shape: tuple[int, ...]) -> Density:
    """Independent N(0, 1) features ``[V, C]``: a normalizing flow (Real NVP, Glow)."""

    def log_prob(params, key, x):
        del key
        z, log_det = flow.forward(params["flow"], x)
        return _log_normal(z, 0.0) + jnp.sum(log_det, -1)

    def sample(keys, params):
        return flow.inverse(params["flow"], _normal(keys, shape))

    return _fixed(lambda key, x: {"flow": flow.init(key, x)}, log_prob, True, sample)


def vae_density(
    settings: Settings, density_settings: DensitySettings, dataset: Dataset, flow: Flow
) -> Density:
    r"""A variational auto-encoder of the features: the system of Lucas et al. 2019.

    .. math:: \log p(x) \ge E_q \log N(f(x); \mu(z), \sigma^2) - KL(q(z \mid f(x)) \|
        N(0, I)) + \log |\det \partial f / \partial x|

    with a learned deviation for each feature. A loss on samples sees
    :math:`f^{-1}(\mu(z))`, or that of a sample around it.
    """
    latents, width = density_settings.density_latents, density_settings.density_width

    def network_of(width):
        if density_settings.density_network == "mlp":
            return networks.mlp_variational_auto_encoder(
                *dataset.train.shape[1:], width=width, num_latents=latents
            )
        return networks.convolutional_variational_auto_encoder(
            dataset.height,
            dataset.width,
            dataset.num_channels,
            num_filters=width,
            num_latents=latents,
        )

    if width is None:
        width = matching_width(network_of, num_circuit_params(settings, dataset))
    vae = network_of(width)

    def init(key, x):
        flow_key, vae_key = jax.random.split(key)
        params = flow.init(flow_key, x)
        features, _ = flow.forward(params, x)
        scale, shift = jnp.std(features, 0), jnp.mean(features, 0)
        return {
            "flow": params,
            "vae": vae.init(vae_key),
            "log_scale": jnp.log(jnp.maximum(_NOISE * scale, 1e-3)),
            "shift": shift,
        }

    def decode(params, z):
        return params["shift"][None] + vae.decode(params["vae"], z)

    def log_prob(params, key, x):
        features, log_det = flow.forward(params["flow"], x)
        mean, log_variance = vae.encode(params["vae"], features)
        noise = jax.random.normal(key, mean.shape)
        decoded = decode(params, mean + jnp.exp(0.5 * log_variance) * noise)
        fit = _log_normal(features - decoded, params["log_scale"][None])
        return fit - gaussian_kl(mean, log_variance) + jnp.sum(log_det, -1)

    def means(keys, params):
        return decode(params, _normal(keys, (latents,)))

    def samples(keys, params):
        """Means, and samples around them."""
        pairs = jax.vmap(jax.random.split)(keys)
        mean = means(pairs[:, 0], params)
        noise = _normal(pairs[:, 1], mean.shape[1:])
        return mean, mean + jnp.exp(params["log_scale"])[None] * noise

    def draw(params, key, num):
        mean, sampled = samples(jax.random.split(key, num), params)
        return {
            "sampled": flow.inverse(params["flow"], sampled),
            "sampled, means": flow.inverse(params["flow"], mean),
        }

    def sample(keys, params):
        of_means = density_settings.density_output == "mean"
        z = means(keys, params) if of_means else samples(keys, params)[1]
        return flow.inverse(params["flow"], z)

    return _fixed(init, log_prob, False, sample)._replace(draw=draw)


def kernel_density(centres: np.ndarray, bin_width: float) -> Density:
    """Equal Gaussians at training images ``[N, V, C]``, one learned deviation: a trap.

    Its samples are training images with noise, near to held-out images by any distance
    when there are many; its likelihood tells. A center does not explain itself (another
    dequantization of the same levels), or the deviation would fall to 0.

    References:
        Grover, Dhar and Ermon, "Flow-GAN: combining maximum likelihood and adversarial
        learning in generative models", AAAI 2018, section 4.
    """
    num, *shape = centres.shape
    flat = centres.reshape(num, -1)
    middle = flat.mean(0)
    # Two dequantizations of one image are sqrt(1/6) of a bin apart, root mean square.
    itself = 0.5 * bin_width**2

    def log_prob(params, key, x):
        del key
        scale = params["log_scale"]
        square = squared_distances(x, flat, center=jnp.asarray(middle))
        each = -0.5 * square * jnp.exp(-2 * scale)
        each = jnp.where(square < itself * len(middle), -jnp.inf, each)
        constant = math.log(num) + len(middle) * (scale + 0.5 * _LOG_2PI)
        return logsumexp(each, axis=1) - constant

    def sample(keys, params):
        def one(key):
            choice_key, noise_key = jax.random.split(key)
            place = jax.random.randint(choice_key, (), 0, num)
            return place, jax.random.normal(noise_key, tuple(shape))

        place, noise = jax.vmap(one)(keys)
        return jnp.asarray(centres)[place] + jnp.exp(params["log_scale"]) * noise

    def init(key, x):
        del key
        return {"log_scale": jnp.log(jnp.std(x))}

    return _fixed(init, log_prob, True, sample)


def _fixed(init: Any, log_prob: Any, is_exact: bool, sample: Any) -> Density:
    """A density whose differentiable samples are its samples, without temperature."""

    def draw(params, key, num):
        return {"sampled": sample(jax.random.split(key, num), params)}

    return Density(init, log_prob, is_exact, lambda params, step: Sampler(sample), draw)


def _normal(keys: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    return jax.vmap(lambda key: jax.random.normal(key, shape))(keys)


def _log_normal(x: jax.Array, log_scale: Any) -> jax.Array:
    """Log N(x; 0, scale^2) of ``[B, V, C]``, a scale for each feature: ``[B]``."""
    terms = -0.5 * (x * jnp.exp(-log_scale)) ** 2 - log_scale - 0.5 * _LOG_2PI
    return jnp.sum(terms, (1, 2))
