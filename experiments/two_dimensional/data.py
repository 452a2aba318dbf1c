"""The six two-dimensional sets of Lang et al. (2022), with scikit-learn's generators.

The constants are those of the published code: deviations, centres and the number of
mixture components K (50 for the circles; the paper's text says 30).
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from sklearn import cluster, datasets

_GRID = tuple((x, y) for x in (0.0, 0.5, 1.0) for y in (0.0, 0.5, 1.0))
_SHEAR = np.array([[0.5, -0.2], [-0.2, 0.4]])
_NUM_CELLS = 16  # of a set without clusters


class Recipe(NamedTuple):
    """How a set is drawn.

    Attributes:
        draw: ``num -> (points [num, 2], labels [num])``, shuffled, from a fixed seed.
        num_components: K of the model.
        clustered: whether the labels are the modes; else cells stand in for them.
    """

    draw: Callable[[int], tuple[np.ndarray, np.ndarray]]
    num_components: int
    clustered: bool


def _blobs(centers, std, **how):
    def draw(num: int) -> tuple[np.ndarray, np.ndarray]:
        blobs = datasets.make_blobs(
            num, 2, centers=centers, cluster_std=std, random_state=0, **how
        )
        return np.asarray(blobs[0]), np.asarray(blobs[1])

    return draw


def _moons(num):
    points, labels = datasets.make_moons(num, noise=0.1, random_state=0)
    return np.asarray(points), np.asarray(labels)


def _circles(num):
    points, labels = datasets.make_circles(num, factor=0.5, noise=0.05, random_state=0)
    return np.asarray(points), np.asarray(labels)


def _anisotropic(num):
    points, labels = _blobs([(-1, -1), (-1, 0.5), (0.5, 0.5)], 0.2)(num)
    return points @ _SHEAR, labels


RECIPES = {
    "moons": Recipe(_moons, 50, False),
    "circles": Recipe(_circles, 50, False),
    "two_clusters": Recipe(_blobs([(0, 0), (0.5, 0.5)], 0.1), 2, True),
    "varied": Recipe(_blobs(3, [0.5, 0.1, 0.3], center_box=(-2, 2)), 3, True),
    "anisotropic": Recipe(_anisotropic, 30, True),
    "nine_clusters": Recipe(_blobs(_GRID, 0.1), 9, True),
}


class PointSet(NamedTuple):
    """One set.

    Attributes:
        name: a key of `RECIPES`.
        train: ``[n, 2, 1]`` float32.
        test: ``[m, 2, 1]``, other points of the same distribution.
        num_components: K of the model.
        centers: ``[M, 2]`` of the modes: clusters, or cells where there are none.
    """

    name: str
    train: np.ndarray
    test: np.ndarray
    num_components: int
    centers: np.ndarray


def load(name: str, num_train: int = 20_000, num_test: int = 10_000) -> PointSet:
    """Draws a set; the same points each time.

    Args:
        name: a key of `RECIPES`.
        num_train: training points.
        num_test: held-out points.

    Returns:
        The set.
    """
    recipe = RECIPES[name]
    points, labels = recipe.draw(num_train + num_test)
    points = points.astype(np.float32)
    train, test = points[:num_train], points[num_train:]
    if recipe.clustered:
        centers = [points[labels == c].mean(0) for c in np.unique(labels)]
    else:
        cells = cluster.KMeans(_NUM_CELLS, random_state=0).fit(train[:5000])
        centers = cells.cluster_centers_
    return PointSet(
        name,
        train[..., None],
        test[..., None],
        recipe.num_components,
        np.asarray(centers, np.float32),
    )
