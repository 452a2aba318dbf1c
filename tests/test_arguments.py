"""Configurations take numbers of NumPy, keep them as plain ones, and refuse others."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dspc_jax
from dspc_jax import networks, registry
from dspc_jax.arguments import real_number, sequence, shown, whole_number
from dspc_jax.flows import ladder

pc: Any = dspc_jax  # of other types than the declared ones
flows: Any = ladder


def plain(structure, leaf):
    return pc.CircuitConfig(structure, leaf, 1, 2, 2, 1)


def of_numpy(number):
    """Configurations and their parts with every number made by ``number``."""
    one, two, four = number(1), number(2), number(4)
    leaves = [pc.Binomial(four), pc.Categorical(four), pc.DiscretizedLogistic(four)]
    structures = [
        pc.RandomBinaryTrees(four, one, two, one),
        pc.QuadTree(two, two, one, four),
        pc.QuadGraph(two, two, one),
        pc.PoonDomingos(two, two, one),
        pc.PoonDomingos(two, two, [two, one]),
        pc.RegionGraph(
            two,
            [np.array([0, 1]), [number(0)], (number(1),)],
            [pc.Partition(number(0), [one, two])],
        ),
    ]
    configs = [pc.CircuitConfig(s, pc.Normal(), one, two, two) for s in structures]
    return (*leaves, *structures, *configs)


@pytest.mark.parametrize("number", [np.int64, np.uint8, np.asarray, jnp.int32])
def test_integers_of_any_library_make_the_same_configuration(number):
    for got, wanted in zip(of_numpy(number), of_numpy(int), strict=True):
        assert got == wanted
        assert hash(got) == hash(wanted)
        assert repr(got) == repr(wanted)
        assert registry.to_json(got) == registry.to_json(wanted)


def test_what_is_made_with_numbers_of_numpy_can_be_saved(tmp_path):
    x = np.random.default_rng(0).integers(0, 5, (8, 4, 1))
    leaf = (
        *(pc.Categorical(x.max() + 1), pc.Binomial(x.max())),
        *(pc.Normal(np.float32(0.5), 8), pc.DiscretizedLogistic(5, np.float32(0.5))),
    )
    config = pc.CircuitConfig(pc.RandomBinaryTrees(x.shape[1], 1), list(leaf), 1, 2, 2)
    params = pc.build(config).init(jax.random.key(0), x)
    pc.save(tmp_path / "model.npz", config, params)
    assert pc.load(tmp_path / "model.npz")[0] == config


def test_flows_of_numbers_of_numpy_are_those_of_plain_ones():
    for make in (flows.identity_flow, flows.color_flow):
        flow = make(np.int64(2), np.uint8(3), 1)
        assert make(2, 3, 1) is flow
        assert set(map(type, dict(flow.config.arguments).values())) == {int}
    bounded = flows.after_logit(flow, alpha=np.float32(0.25))
    assert flows.after_logit(flow, alpha=0.25) is bounded
    assert dict(bounded.config.arguments)["alpha"].__class__ is float
    for wrong in (True, 1.0):  # although each equals 1
        with pytest.raises(ValueError, match="num_channels must be a whole number"):
            flows.identity_flow(2, 3, wrong)


WRONG_SIZES = [9.0, np.float64(9), True, np.True_, "9", None, jnp.ones(2), [9]]


@pytest.mark.parametrize("wrong", WRONG_SIZES)
@pytest.mark.parametrize(
    "make",
    [
        pc.Categorical,
        pc.Binomial,
        pc.DiscretizedLogistic,
        lambda n: pc.RandomBinaryTrees(n, 1),
        lambda n: pc.RandomBinaryTrees(64, n),
        lambda n: pc.RandomBinaryTrees(64, 1, seed=n),
        lambda n: pc.QuadTree(4, n),
        lambda n: pc.QuadTree(4, 4, arity=n),
        lambda n: pc.QuadGraph(n, 4),
        lambda n: pc.PoonDomingos(n, 4, 1),
        lambda n: pc.PoonDomingos(4, 4, (n,)),
        lambda n: pc.with_latents(pc.QuadTree(4, 4), n),
        lambda n: pc.CircuitConfig(pc.QuadTree(2, 2), pc.Normal(), num_sums=n),
        lambda n: pc.RegionGraph(n, ((0,),), ()),
        lambda n: pc.Partition(n, (1,)),
        lambda n: networks.mlp_discriminator(n),
        lambda n: networks.mlp_discriminator(4, hidden_sizes=(4, n)),
    ],
)
def test_a_size_is_an_integer(make, wrong):
    with pytest.raises(ValueError, match=r"^[a-z_\[\]01]+ must be a whole number, got"):
        make(wrong)


def test_a_refused_configuration_does_not_spoil_the_right_one():
    with pytest.raises(ValueError, match="num_values must be a whole number, got 9.0"):
        pc.Categorical(9.0)
    config = pc.CircuitConfig(pc.RandomBinaryTrees(4, 1), pc.Categorical(9), 1, 2, 2)
    pc.build(config).init(jax.random.key(0))


@pytest.mark.parametrize("wrong", [True, "0.5", None, np.nan, np.inf, 1j, jnp.ones(2)])
def test_a_scale_is_a_finite_number(wrong):
    with pytest.raises(ValueError, match="min_scale must be a finite number, got"):
        pc.Normal(min_scale=wrong)
    with pytest.raises(ValueError, match=r"init_mean\[?0?\]? must be"):
        pc.Normal(init_mean=(wrong, 1.0))
    assert real_number("x", np.float16(0.5)) == 0.5


def test_a_number_below_the_least_is_named():
    with pytest.raises(ValueError, match="depth must be at least 0, got -1"):
        pc.RandomBinaryTrees(4, np.int8(-1))
    assert whole_number("n", np.int64(3), least=3) == 3


@pytest.mark.parametrize("wrong", ["text", 3, None, {1: 2}])
def test_a_sequence_is_no_string_and_no_number(wrong):
    with pytest.raises(ValueError, match="^s must be a sequence, got"):
        sequence("s", wrong)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (np.zeros((3, 4), np.float32), "float32 of shape (3, 4)"),
        (pc.Normal, "the class Normal"),
        (list(range(1000)), "[0, 1, 2"),
        ("a\nb", r"'a\nb'"),
        (pc.Partition(0, (1, 2)), "Partition(region=0, children=(1, 2))"),
    ],
)
def test_a_value_is_shown_in_one_short_line(value, text):
    assert shown(value).startswith(text)
    assert len(shown(value)) <= 80
    assert "\n" not in shown(value)


@pytest.mark.parametrize("label", [5, np.int64(5), np.int64(-1), 1.5, True, [0], "1"])
def test_a_label_out_of_range_is_refused_whatever_its_type(label):
    config = pc.CircuitConfig(pc.QuadTree(1, 2), pc.Normal(), 1, 2, 2, 3)
    params = pc.build(config).init(jax.random.key(0))
    with pytest.raises(ValueError, match="^label must be"):
        pc.given_class(params, label)
    with pytest.raises(ValueError, match="^label must be one integer"):
        jax.jit(pc.given_class)(params, 1.5)
    for right in (np.int64(2), jnp.int32(2)):
        chosen = pc.given_class(params, right)
        np.testing.assert_array_equal(chosen.classes, [-np.inf, -np.inf, 0])
