"""Starts from data of tied circuits: what is shared sees the data of all copies."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

import dspc_jax as pc
from dspc_jax.starts import clusters
from dspc_jax.starts.distillation import Smoothing, distill
from tests import cases


@pytest.mark.parametrize("is_masked", [False, True])
def test_leaves_start_at_values_of_all_their_variables(is_masked):
    config = pc.CircuitConfig(
        pc.QuadTree(2, 2), pc.Normal(), 1, 32, 32, tie_leaves=(0, 0, 1, 1)
    )
    x = np.tile(np.array([[1.0, 2.0, 3.0, 4.0]], np.float32), (50, 1))[..., None]
    observed = np.array([True, True, True, not is_masked])
    observed = np.broadcast_to(observed, x.shape[:2]) if is_masked else None
    params = pc.build(config).init(jax.random.key(0), x, observed)
    means = np.asarray(params.leaves[0].mean)[:, :, 0, 0]
    assert set(means[0].tolist()) == {1.0, 2.0}
    assert set(means[1].tolist()) == ({3.0} if is_masked else {3.0, 4.0})


@pytest.mark.parametrize("leaf", [pc.Categorical(3), pc.Normal()])
def test_distilled_leaves_have_the_counts_of_all_their_variables(leaf):
    """One leaf for all: frequencies, or moments, of all values."""
    config = pc.CircuitConfig(
        pc.QuadTree(2, 3), leaf, 1, 1, 1, tie_leaves="all", tie_sums="levels"
    )
    x = np.random.default_rng(0).integers(0, 3, (30, 6, 1)).astype(np.float32)
    x[:, 0] = 2
    params = distill(
        pc.build(config).layout,
        jax.random.key(0),
        jnp.asarray(x),
        smoothing=Smoothing(0.0, 1e-6, 1e-6),
    )
    if isinstance(leaf, pc.Categorical):
        share = np.bincount(x.astype(int).ravel()) / x.size
        result = special.softmax(params.leaves[0].logits)[0, 0, 0, 0]
        np.testing.assert_allclose(result, share, rtol=1e-4)
    else:
        mean, std = jax.tree.map(np.ravel, leaf.components(params.leaves[0]))
        np.testing.assert_allclose([mean, std], [[x.mean()], [x.std()]], rtol=1e-4)


@pytest.mark.parametrize("sum_layer", cases.parameters(["cp", "tucker"], ["cp"]))
def test_copies_take_the_same_clusters_for_the_same(sum_layer):
    """Two halves of one pattern, in another order: tied, they keep it apart."""
    patterns = np.array([[0, 0, 2, 2], [2, 2, 0, 0]], np.float32)
    x = patterns[np.arange(60) % 2][..., None]
    config = pc.CircuitConfig(
        *(pc.QuadTree(1, 4), pc.Categorical(3), 1, 2, 2),
        sum_layer=sum_layer,
        tie_leaves="all",
        tie_sums="levels",
    )
    circuit = pc.build(config)
    params = distill(
        circuit.layout,
        jax.random.key(0),
        jnp.asarray(x),
        smoothing=Smoothing(0.0, 1e-3, 1e-3),
    )
    log_p = cases.jit(jax.vmap(circuit.log_prob, (None, 0)))(params, x[:2])
    # The products of a root of one unit are mixed alike.
    assert (np.exp(log_p) > (0.45 if sum_layer == "tucker" else 0.2)).all()


def test_patches_of_a_group_share_their_centers():
    """Equal patches have equal labels, in the columns of the one and of the other."""
    rng = np.random.default_rng(0)
    own = rng.normal(size=(200, 2)).astype(np.float32)
    table = jnp.asarray(np.concatenate([own, own, rng.normal(size=(200, 2))], 1))
    patches = [np.arange(2) + start for start in (0, 2, 4)]
    result = clusters.labels(
        jax.random.key(0), table, patches, 8, groups=np.array([0, 0, 1])
    )
    np.testing.assert_array_equal(result[0], result[1])
    assert (result[0] != result[2]).any()
    assert len(np.unique(result[0])) == 8
