"""Exact queries against enumeration and quadrature."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

import dspc_jax as pc
from dspc_jax.structure.region_graph import Partition, RegionGraph
from tests import cases, oracles

# Float32 sums of a few terms of size up to 10 nats.
assert_close = functools.partial(np.testing.assert_allclose, rtol=2e-5, atol=2e-5)

discrete = pytest.mark.parametrize("name", cases.parameters(cases.DISCRETE))


@discrete
def test_the_whole_table(name):
    case, table = cases.case(name), cases.case(name).table
    log_p = np.asarray(case.log_prob(case.params, case.values), np.float64)
    assert_close(log_p, np.log(table.probs))
    np.testing.assert_allclose(np.exp(log_p).sum(), 1, rtol=1e-5)


@discrete
def test_every_marginal_conditional_and_class_posterior(name):
    case, table = cases.case(name), cases.case(name).table
    x, observed = cases.every_query(case)
    # What stands in an unobserved place is nobody's business: NaN, to be sure.
    evidence = np.where(observed[..., None], x, np.nan).astype(np.float32)
    answers = case.queries(case.params, evidence, observed)
    log_m, per_class, posterior = (np.asarray(a, np.float64) for a in answers)
    joint = [
        np.exp(table.joint[:, table.agrees(a, o)]).sum(axis=1)
        for a, o in zip(x, observed, strict=True)
    ]
    marginal = np.sum(joint, axis=1)
    assert_close(log_m, np.log(marginal))
    assert_close(posterior, joint / marginal[:, None])
    log_classes = special.log_softmax(np.asarray(case.params.classes, np.float64))
    assert_close(per_class, np.log(joint) - log_classes)
    assert (np.abs(log_m[~observed.any(axis=1)]) < 1e-6).all()  # nothing observed
    # Bayes: the conditional of everything given what is observed.
    log_p = np.asarray(case.log_prob(case.params, x.astype(np.float32)), np.float64)
    conditional = table.probs[table.find(x)] / marginal
    np.testing.assert_allclose(np.exp(log_p - log_m), conditional, rtol=1e-4)


@pytest.mark.parametrize("name", cases.parameters(cases.NORMAL, ("normal-trees",)))
def test_normal_leaves_by_quadrature(name):
    """Trapezoids on a grid of 0.02: the narrowest leaf here is 0.2 wide."""
    case = cases.case(name)
    step = 0.02
    line = np.arange(-8, 8, step)
    grid = np.stack(np.meshgrid(line, line, indexing="ij"), -1).reshape(-1, 2)
    num_variables = case.config.structure.num_variables
    x = grid.reshape(len(grid), num_variables, -1).astype(np.float32)
    leaf = case.params.leaves[0]
    wide = case.params._replace(
        leaves=(leaf._replace(scale_logit=leaf.scale_logit + 1),)
    )
    log_p = case.log_prob(wide, x)
    density = np.exp(np.asarray(log_p, np.float64)).reshape(len(line), len(line))
    np.testing.assert_allclose(density.sum() * step**2, 1, rtol=1e-4)
    oracle = oracles.Oracle(case.circuit, wide)
    some = slice(0, None, 997)
    assert_close(log_p[some], oracle.log_prob(x[some]))
    if num_variables == 1:  # the axes are channels of one variable
        return
    observed = np.tile([True, False], (len(line), 1))
    first = np.stack([line, np.full_like(line, np.nan)], 1)[..., None]
    log_m, _, _ = case.queries(wide, first.astype(np.float32), observed)
    np.testing.assert_allclose(np.exp(log_m), density.sum(1) * step, atol=1e-4)


def renumbered(graph: RegionGraph, seed: int):
    """The same graph with regions and partitions in another order."""
    rng = np.random.default_rng(seed)
    new, order = (
        rng.permutation(len(graph.scopes)),
        rng.permutation(len(graph.partitions)),
    )
    scopes = tuple(graph.scopes[r] for r in np.argsort(new))
    partitions = tuple(
        Partition(int(new[p.region]), tuple(int(new[c]) for c in p.children))
        for p in (graph.partitions[i] for i in order)
    )
    return RegionGraph(graph.num_variables, scopes, partitions), new, order


@pytest.mark.parametrize("name", cases.parameters(["nested", "shared"]))
def test_the_numbering_of_a_graph_does_not_matter(name):
    """Parameters moved with their regions: the same; so is the oracle's bookkeeping."""
    config = cases.DISCRETE[name]
    old = cases.case(name)
    graph = config.structure.region_graph()
    other, new, order = renumbered(graph, seed=5)
    circuit = pc.build(dataclasses.replace(config, structure=other))
    params = jax.tree.map(np.array, cases.random_params(circuit, seed=0))
    source = oracles.locate(graph, old.circuit.layout.graph)
    target = oracles.locate(other, circuit.layout.graph)
    move = jax.tree.map(np.array, old.params)
    position = {int(number): i for i, number in enumerate(order)}
    for region, (level, row) in source.regions.items():
        new_level, new_row = target.regions[int(new[region])]
        assert new_level == level
        if level == 0:
            for a, b in zip(
                jax.tree.leaves(params.leaves),
                jax.tree.leaves(move.leaves),
                strict=True,
            ):
                a[new_row] = b[row]
    for number, (at, place) in source.partitions.items():
        to, new_place = target.partitions[position[number]]
        params.sums[to[0] - 1][to[1]][to[2]] = move.sums[at[0] - 1][at[1]][at[2]]
        mixture = params.mixtures[at[0] - 1]
        if mixture is not None:
            row = source.regions[graph.partitions[number].region][1]
            new_row = target.regions[int(new[graph.partitions[number].region])][1]
            mixture[new_row, :, new_place] = move.mixtures[at[0] - 1][row, :, place]
    for region, at in source.lifted.items():
        to = target.lifted[int(new[region])]
        params.sums[to[0] - 1][to[1]][to[2]] = move.sums[at[0] - 1][at[1]][at[2]]
    params = params._replace(classes=move.classes)
    log_p = cases.jit(jax.vmap(circuit.log_prob, (None, 0)))(params, old.values)
    assert_close(log_p, np.log(old.table.probs))


ZEROS = ["trees-tucker", "odd-trees-cp", "shared", "nested"]


@pytest.mark.parametrize(
    "name", cases.parameters(ZEROS, [name for name in ZEROS if name != "nested"])
)
def test_zero_weights(name):
    """Exact values, finite gradients, and gradient 0 into what is forbidden."""
    case = cases.case(name)
    params = cases.with_zeros(case.circuit, case.params, 6, 0.33)
    table = oracles.tabulate(case.circuit, params)
    np.testing.assert_allclose(table.probs.sum(), 1)
    x = case.values[:: -(-len(case.values) // 64)]
    exact = table.probs[table.find(np.asarray(x))]

    def total(params):
        log_p = jax.vmap(case.circuit.log_prob, (None, 0))(params, x)
        return jnp.sum(jnp.where(log_p > -jnp.inf, log_p, 0.0)), log_p

    gradient, log_p = cases.jit(jax.grad(total, has_aux=True))(params)
    possible = exact > 0
    assert_close(log_p[possible], np.log(exact[possible]))
    assert (log_p[~possible] == -np.inf).all()
    for g, p in zip(jax.tree.leaves(gradient), jax.tree.leaves(params), strict=True):
        assert np.isfinite(g).all()
        assert (np.asarray(g)[p == -np.inf] == 0).all()


def forbidden(sum_layer):
    """A circuit whose third value is forbidden, with evidence that is impossible."""
    config = pc.CircuitConfig(
        pc.RandomBinaryTrees(3, 1, 2),
        pc.Categorical(3),
        num_leaves=2,
        num_sums=2,
        num_classes=2,
        sum_layer=sum_layer,
    )
    case = cases.compiled(config)
    (leaf,) = case.params.leaves
    leaf = leaf._replace(logits=leaf.logits.at[..., 2].set(-jnp.inf))
    # Value 2 is forbidden; 7 and 0.5 are no values at all; the last row is possible.
    x = jnp.array([[2.0, 0, 0], [0, 7, 1], [0.5, 0, 0], [0, 1, 0]])[..., None]
    observed = jnp.array([[True, True, False]]).repeat(4, axis=0)
    return case, case.params._replace(leaves=(leaf,)), x, observed


@pytest.mark.parametrize("sum_layer", cases.parameters(["tucker", "cp_t"], ["cp_t"]))
def test_impossible_evidence(sum_layer):
    """-inf with gradients 0, and the prior for the classes."""
    case, params, x, observed = forbidden(sum_layer)

    def total(params):
        log_p = jax.vmap(case.circuit.log_prob, (None, 0, 0))(params, x, observed)
        return log_p[0] + log_p[1] + log_p[2]

    gradient = cases.jit(jax.grad(total))(params)
    assert all((np.asarray(g) == 0).all() for g in jax.tree.leaves(gradient))
    log_p, _, posterior = case.queries(params, x, observed)
    assert (log_p[:3] == -np.inf).all()
    assert np.isfinite(log_p[3])
    prior = jax.nn.softmax(params.classes)
    assert_close(posterior[:3], jnp.broadcast_to(prior, (3, 2)))


def test_samplers_survive_impossible_evidence():
    """Finite values and gradients; what is observed is kept."""
    case, params, x, observed = forbidden("tucker")
    keys = cases.fresh_keys
    drawn = case.conditional(keys(0, 4), params, x, observed)
    result = [drawn, case.mpe(params, x, observed)]
    result += case.soft(keys(0, 4), params, 0.5, cases.SOFT, x, observed).values()
    for values in result:
        assert np.isfinite(values).all()
        assert (np.asarray(values)[np.asarray(observed)] == x[observed]).all()

    @cases.jit
    @jax.grad
    def gradient(params, key):
        out = case.circuit.sample_differentiable(
            key, params, temperature=0.5, x=x[0], observed=observed[0]
        )
        return jnp.sum(out)

    result = gradient(params, jax.random.key(1))
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(result))


@pytest.mark.parametrize("sum_layer", cases.parameters(["tucker", "cp_t"], ["cp_t"]))
def test_improbable_evidence(sum_layer):
    """Log-likelihoods from -1e3 to -1e7: finite, ordered, right to float32's digits."""
    config = pc.CircuitConfig(
        pc.RandomBinaryTrees(16, 2, 2),
        pc.UnitNormal(min_scale=0.02, max_scale=0.5),
        num_leaves=3,
        num_sums=3,
        sum_layer=sum_layer,
    )
    circuit = pc.build(config)
    params = cases.random_params(circuit, seed=1)
    far = np.random.default_rng(0).normal(size=(1, 16, 1)) + 2
    x = (far * np.geomspace(1, 300, 12)[:, None, None]).astype(np.float32)
    log_p, gradient = cases.jit(
        jax.vmap(jax.value_and_grad(circuit.log_prob), (None, 0))
    )(params, x)
    log_p = np.asarray(log_p, np.float64)
    assert np.isfinite(log_p).all()
    assert log_p.min() < -1e6
    assert (np.diff(log_p) < 0).all()
    exact = oracles.Oracle(circuit, params).log_prob(x)
    np.testing.assert_allclose(log_p, exact, rtol=3e-6)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradient))


def test_images_of_many_pixels_are_not_impossible():
    """The cp layer at a real size.

    The best units of two siblings are hundreds of nats ahead of the others and are not
    the same ones: every product is far below the product of the best.
    """
    config = pc.CircuitConfig(
        pc.RandomBinaryTrees(196, 2, 2),
        pc.Binomial(255),
        num_leaves=4,
        num_sums=4,
        sum_layer="cp_t",
    )
    circuit = pc.build(config)
    params = cases.random_params(circuit, seed=0)
    x = np.random.default_rng(1).integers(0, 256, (6, 196, 1)).astype(np.float32)
    log_p, gradient = cases.jit(
        jax.vmap(jax.value_and_grad(circuit.log_prob), (None, 0))
    )(params, x)
    exact = oracles.Oracle(circuit, params).log_prob(x)
    np.testing.assert_allclose(log_p, exact, rtol=3e-6)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradient))


def test_the_circuit_of_one_class():
    """p(x given y) as parameters: its likelihoods, and its samples."""
    config = pc.CircuitConfig(
        pc.RandomBinaryTrees(num_variables=3, depth=1),
        pc.Bernoulli(),
        num_leaves=3,
        num_sums=3,
        num_classes=4,
    )
    circuit = pc.build(config)
    params = cases.random_params(circuit, seed=0)  # classes of unequal weights, too
    cube = np.stack(np.meshgrid(*[[0.0, 1.0]] * 3), -1).reshape(8, 3, 1)

    @cases.jit
    def answers(params):
        log_p = jax.vmap(circuit.log_prob, (None, 0))(params, cube)
        each = jax.vmap(circuit.class_log_probs, (None, 0))(params, cube)
        return log_p, each, circuit.mean(params)

    sample = cases.jit(jax.vmap(circuit.sample, (0, None)))
    _, expected, mean_of_all = answers(params)
    for label in (1, jnp.int32(3)):
        evidence = pc.given_class(params, label)
        log_p, _, mean = answers(evidence)
        assert_close(log_p, expected[:, int(label)])
        assert_close(np.exp(log_p).sum(), 1)
        drawn = sample(cases.fresh_keys(1, 4000), evidence)
        error = 4 * np.sqrt(0.25 / len(drawn))
        np.testing.assert_allclose(np.mean(drawn, 0), mean, atol=error)
        assert np.abs(mean_of_all - mean).max() > 1e-3
    slope = jax.grad(lambda p: circuit.log_prob(pc.given_class(p, 1), cube[0]))
    grads = cases.jit(slope)(params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))
    with pytest.raises(ValueError, match=r"label must be in 0 .. 3, got 4"):
        pc.given_class(params, 4)
