"""Trees from data: bins, mutual information, and the hidden Chow-Liu tree."""

import jax
import numpy as np
import pytest
from scipy import sparse
from scipy.sparse import csgraph

import dspc_jax as pc
from dspc_jax.structure import mutual_information as mi
from dspc_jax.structure import region_graph as rg
from dspc_jax.structure.folding import fold
from dspc_jax.structure.trees_from_data import chow_liu_tree

RNG = np.random.default_rng(0)


def edges(parents: np.ndarray) -> set[frozenset[int]]:
    return {frozenset((v, int(p))) for v, p in enumerate(parents) if p >= 0}


def sampled(parents: list[int], num_rows: int, num_values: int) -> np.ndarray:
    """Rows of a tree whose variables keep their parent's value with probability 3/4."""
    x = RNG.integers(num_values, size=(num_rows, len(parents)))
    for v, parent in enumerate(parents):
        if parent >= 0:
            x[:, v] = np.where(RNG.random(num_rows) < 0.25, x[:, v], x[:, parent])
    return x


def test_bins_of_few_values_are_exact():
    x = np.array([[3.0, -1.0, 7.0], [1.0, -1.0, 7.5], [3.0, np.nan, 7.0]])
    codes, sizes = mi.binned(x, np.isfinite(x), 2)
    assert codes.tolist() == [[1, 0, 1], [0, 0, -1], [0, 1, 0]]
    assert sizes.tolist() == [2, 1, 2]
    nobody = mi.binned(x, np.zeros(x.shape, bool), 2)
    assert (nobody[0] == -1).all()
    assert nobody[1].tolist() == [1, 1, 1]


def test_bins_of_many_values_are_about_equally_full():
    x = RNG.standard_normal((1000, 1))
    codes, sizes = mi.binned(x, np.ones(x.shape, bool), 8)
    assert sizes.tolist() == [8]
    assert np.bincount(codes[0]).tolist() == [125] * 8
    assert (np.diff(codes[0][np.argsort(x[:, 0])]) >= 0).all()


def test_a_frequent_value_leaves_bins_for_the_others():
    """Nine of ten values are 0, as in images; quantiles would leave two bins."""
    x = np.where(np.arange(2000) < 1800, 0, np.arange(2000))[:, None]
    codes, sizes = mi.binned(x, np.ones(x.shape, bool), 16)
    counts = np.bincount(codes[0])
    assert counts[0] == 1800
    assert len(counts) == sizes[0] >= 9
    assert counts[1:].max() <= 2 * counts[1:-1].min()


@pytest.mark.parametrize("pseudocount", [0.0, 0.5])
def test_mutual_information_is_that_of_every_table(pseudocount, monkeypatch):
    """Also in blocks of few columns and few rows, with values that are missing."""
    monkeypatch.setattr(mi, "_MOST_COLUMNS", 6)
    monkeypatch.setattr(mi, "_MOST_INDICATORS", 100)
    x = sampled([-1, 0, 1, 0, 3, -1, 2], 60, 4)
    x[:, 1] //= 2
    x[:, 4] = x[:, 4] > 1
    x[:, 5] = 3
    observed = RNG.random(x.shape) < 0.8
    observed[:, 6] &= ~observed[:, 2]  # a pair that no row has
    codes, sizes = mi.binned(x, observed, 4)
    information = mi.mutual_information(codes, sizes, pseudocount)
    for i in range(7):
        for j in range(7):
            both = observed[:, i] & observed[:, j]
            table = np.full((sizes[i], sizes[j]), pseudocount)
            np.add.at(table, (codes[i, both], codes[j, both]), 1)
            p = table / max(table.sum(), 1e-9)
            q = p.sum(axis=1, keepdims=True) * p.sum(axis=0)
            wanted = (p[p > 0] * np.log(p[p > 0] / q[p > 0])).sum()
            np.testing.assert_allclose(
                information[i, j],
                0 if i == j else wanted,
                atol=1e-12,
                err_msg=f"{i}, {j}",
            )
    np.testing.assert_array_equal(information, information.T)


@pytest.mark.parametrize("num_values", [2, 5])
def test_the_tree_that_made_the_data_is_found(num_values):
    parents = [-1, 0, 1, 1, 0, 4, 5, 5, 2, 8, 9]
    x = sampled(parents, 4000, num_values)
    tree = chow_liu_tree(x[..., None])
    assert edges(tree) == edges(np.array(parents))
    graph = pc.hidden_chow_liu_tree(x, root=0)
    wanted = {
        tuple(sorted(below(parents, v))): sorted(
            [(v,), *(tuple(sorted(below(parents, c))) for c in children(parents, v))]
        )
        for v in range(11)
    }
    for p in graph.partitions:
        parts = [graph.scopes[c] for c in p.children]
        assert sorted(parts) == sorted(wanted[graph.scopes[p.region]])
        assert len(parts[0]) == 1  # the variable itself
        heights = [graph.heights[c] for c in p.children]
        assert heights == sorted(heights)
    assert len(graph.partitions) == 11
    assert rg.is_structured_decomposable(graph)


def children(parents: list[int], v: int) -> list[int]:
    return [c for c, parent in enumerate(parents) if parent == v]


def below(parents: list[int], v: int) -> list[int]:
    return [v, *(u for c in children(parents, v) for u in below(parents, c))]


def test_continuous_and_missing_values_find_the_same_tree():
    parents = [-1, 0, 1, 2, 0, 4]
    x = RNG.standard_normal((4000, 6))
    for v, parent in enumerate(parents[1:], 1):
        x[:, v] += 1.5 * x[:, parent]
    observed = RNG.random(x.shape) < 0.8
    x[~observed] = np.nan
    tree = chow_liu_tree(x, observed, num_bins=8)
    assert edges(tree) == edges(np.array(parents))
    monotone = chow_liu_tree(np.exp(x / 4), observed, num_bins=8)
    np.testing.assert_array_equal(tree, monotone)  # quantiles are of ranks


def test_the_tree_is_a_greatest_one():
    x = RNG.integers(3, size=(50, 20))
    codes, sizes = mi.binned(x, np.ones(x.shape, bool), 16)
    weights = mi.mutual_information(codes, sizes, 0.1)
    peer = csgraph.minimum_spanning_tree(sparse.csr_matrix(np.triu(1 - weights, 1)))
    wanted = {frozenset((int(i), int(j))) for i, j in zip(*peer.nonzero(), strict=True)}
    assert edges(chow_liu_tree(x)) == wanted


def test_the_root_is_the_middle_or_what_is_asked_for():
    chain = sampled([-1, 0, 1, 2, 3, 4, 5], 4000, 2)
    assert chow_liu_tree(chain).tolist() == [1, 2, 3, -1, 3, 4, 5]
    assert pc.hidden_chow_liu_tree(chain).heights[0] == 4
    assert chow_liu_tree(chain, root=0).tolist() == [-1, 0, 1, 2, 3, 4, 5]
    assert pc.hidden_chow_liu_tree(chain, root=0).heights[0] == 7


def test_constant_columns_hang_from_the_others_in_turn():
    x = sampled([-1, 0, 1], 500, 2)
    x = np.concatenate([x, np.full((500, 5), 2)], axis=1)
    parents = chow_liu_tree(x)
    assert parents[3:].tolist() == [0, 1, 2, 0, 1]
    nothing = chow_liu_tree(np.zeros((5, 4)))
    assert sorted(nothing.tolist()) == [-1, 0, 0, 0]


def test_one_variable():
    graph = pc.hidden_chow_liu_tree(np.arange(4)[:, None])
    assert graph.scopes == ((0,), (0,))
    assert graph.partitions == (pc.Partition(0, (1,)),)


def test_a_deep_tree_is_folded_in_steps():
    chain = sampled([-1, *range(59)], 2000, 2)
    folded = fold(pc.hidden_chow_liu_tree(chain))
    assert len(folded.levels) < 10


X = np.arange(12.0).reshape(4, 3)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((X[:1],), {}, "x must hold at least two examples, got 1"),
        ((X[0],), {}, r"x must have shape \[N, V\] or \[N, V, 1\], got \(3,\)"),
        ((X[..., None].repeat(3, 2),), {}, r"x must have shape .*got \(4, 3, 3\)"),
        ((X[:, :0],), {}, r"x must have shape .*got \(4, 0\)"),
        ((X.astype(str),), {}, "x must be an array of real numbers, got"),
        ((X + 1j,), {}, "x must be an array of real numbers, got complex128"),
        (
            (np.where(X == 4, np.nan, X),),
            {},
            "x must be finite .*got nan in row 1 of col",
        ),
        (
            (np.where(X == 4, np.inf, X),),
            {},
            "x must be finite .*got inf in row 1 of col",
        ),
        ((X, X > 2), {"num_bins": 1}, "num_bins must be at least 2, got 1"),
        ((X,), {"num_bins": 257}, "num_bins must be at most 256, got 257"),
        ((X,), {"pseudocount": -1}, "pseudocount must be at least 0, got -1.0"),
        ((X,), {"root": 3}, r"root must be .* a variable 0..2, got 3"),
        ((X,), {"root": "left"}, "root must be a whole number, got 'left'"),
        (
            (X, X),
            {},
            r"observed must be bool of shape \[N, V\] = \(4, 3\), got float64",
        ),
        ((X, X[0] > 2), {}, r"observed must be bool of shape \[N, V\] .*\(3,\)"),
    ],
)
def test_what_is_refused(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        pc.hidden_chow_liu_tree(*arguments, **options)


def test_data_of_any_type():
    x = sampled([-1, 0, 1, 0], 50, 2)
    wanted = pc.hidden_chow_liu_tree(x)
    for kind in (bool, np.uint8, np.float16, jax.numpy.bfloat16):
        assert pc.hidden_chow_liu_tree(x.astype(kind)) == wanted
    assert pc.hidden_chow_liu_tree(jax.numpy.asarray(x)) == wanted
