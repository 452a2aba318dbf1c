"""One circuit over images and Gaussian latents, for probabilistic auto-encoding."""

import dataclasses
import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import dspc_jax as pc
from experiments.data import Dataset
from experiments.engine.flags import Settings
from experiments.models import circuit as model
from experiments.models.adapted_circuit import adapted


class JointModel(NamedTuple):
    """A circuit over image and latents, seen whole and as a model of images.

    Attributes:
        circuit: over V pixels and, after them, the latents.
        image: its marginal over the pixels, latents integrated out; whatever takes the
            model of a program takes this one, with the same parameters.
        codes: ``[n, L, C]`` principal components of each latent's patch in the
            reference images: where the latents' leaves start.
        latent_scale: deviation of the latents' leaves at the start.
    """

    circuit: pc.Circuit
    image: model.Model
    codes: np.ndarray
    latent_scale: float


def make_joint_model(
    settings: Settings,
    dataset: Dataset,
    *,
    num_latents: int,
    patch: int | None,
    latent_leaf: pc.Normal,
    latent_scale: float,
) -> JointModel:
    """Builds the circuit.

    Args:
        settings: the shared flags.
        dataset: the images.
        num_latents: L.
        patch: side of the quad tree's input regions, in pixels; None: the least from 2
            on that gives no more of them than latents.
        latent_leaf: family of the latents.
        latent_scale: deviation of their leaves at the start.

    Returns:
        The model.

    Raises:
        UserError: the flags describe no circuit on these images; one line.
    """
    config = model.circuit_config(settings, dataset)
    structure = config.structure
    if isinstance(structure, pc.QuadTree):
        if patch is None:
            patch = smallest_patch(dataset.height, dataset.width, num_latents)
        structure = dataclasses.replace(structure, leaf_size=patch)
    with model.describing_flags():
        graph = pc.with_latents(structure, num_latents)
        ties = config.tie_leaves
        if ties == "all":  # of pixels, each of which has the same leaf
            ties = (*[0] * structure.num_variables, *range(1, num_latents + 1))
        joint = dataclasses.replace(
            config,
            structure=graph,
            leaf=config.leaves + (latent_leaf,) * num_latents,
            tie_leaves=ties,
        )
        circuit = pc.build(joint)
    num_pixels = structure.num_variables
    marginal = _image_marginal(circuit, num_pixels)
    image = model.of_circuit(settings, dataset, marginal, num_latents)
    gray = image.references.astype(np.float32) / (dataset.num_values - 1)
    codes = patch_codes(graph, num_pixels, gray)
    return JointModel(circuit, image, codes, latent_scale)


def smallest_patch(height: int, width: int, most: int) -> int:
    """The least side, from 2 on, of at most so many input regions of a quad tree."""

    def count(length, side):
        return 1 if length <= side else 2 ** math.ceil(math.log2(length / side))

    side = 2
    while count(height, side) * count(width, side) > most:
        side += 1
    return side


def init(joint: JointModel, key: jax.Array) -> model.Params:
    """Initial parameters: leaves at reference images and their patches' codes."""
    noise_key, init_key = jax.random.split(key)
    image = joint.image
    x = image.codec.encode(noise_key, jnp.asarray(image.references))
    params = joint.circuit.init(
        init_key, jnp.concatenate([x, jnp.asarray(joint.codes, x.dtype)], axis=1)
    )
    leaves = list(params.leaves)
    for number, block in enumerate(joint.circuit.layout.leaf_blocks):
        is_latent = block.scopes >= x.shape[1]
        if is_latent.any():
            mean = leaves[number].mean
            std = jnp.full_like(mean, joint.latent_scale)
            leaves[number] = jax.tree.map(
                functools.partial(jnp.where, is_latent[:, None, :, None]),
                block.leaf.from_moments(mean, std),
                leaves[number],
            )
    return {"circuit": params._replace(leaves=tuple(leaves))}


def patch_codes(
    graph: pc.RegionGraph, num_pixels: int, images: np.ndarray
) -> np.ndarray:
    """Principal components of the patch that each latent stands beside.

    Args:
        graph: of `with_latents`.
        num_pixels: V; what comes after are latents.
        images: ``[n, V, C]``.

    Returns:
        ``[n, L, C]`` float32, of mean 0 and deviation 1. A latent's patch is the
        smallest region with pixels that holds it. Where a patch has fewer components
        than its latents have values, the rest are Normal numbers from a fixed seed.
    """
    num, _, num_channels = images.shape
    num_latents = graph.num_variables - num_pixels
    codes = np.random.default_rng(0).normal(size=(num, num_latents, num_channels))
    patches: dict[int, tuple[int, ...]] = {}
    for scope in sorted(graph.scopes, key=len, reverse=True):
        if scope[0] < num_pixels:
            patches.update({v: scope for v in scope if v >= num_pixels})
    for scope in set(patches.values()):
        own = [v - num_pixels for v, patch in patches.items() if patch == scope]
        pixels = images[:, [v for v in scope if v < num_pixels]].reshape(num, -1)
        left, size, _ = np.linalg.svd(pixels - pixels.mean(0), full_matrices=False)
        count = min(int((size > 1e-3 * np.sqrt(num)).sum()), len(own) * num_channels)
        values = codes[:, own].reshape(num, -1)
        values[:, :count] = left[:, :count] * np.sqrt(num)
        codes[:, own] = values.reshape(num, len(own), num_channels)
    return codes.astype(np.float32)


def _image_marginal(circuit: pc.Circuit, num_pixels: int) -> pc.Circuit:
    """The circuit's functions of images alone; parameters and layout are shared."""
    total = circuit.config.structure.num_variables

    def joined(x, observed):
        """Image and mask ``[V]`` with latents that are not observed."""
        if x is None:
            return None, observed
        pixels = jnp.ones(num_pixels, bool) if observed is None else observed
        return (
            jnp.pad(x, ((0, total - num_pixels), (0, 0))),
            jnp.pad(pixels, (0, total - num_pixels)),
        )

    return adapted(circuit, joined, lambda x: x[:num_pixels])
