"""The structure that the flags ask for, on a data set."""

import dspc_jax as pc
from dspc_jax.structure.region_graph import Structure
from experiments.console.errors import UserError
from experiments.data import Dataset
from experiments.engine.flags import Settings

_MOST_ROWS = 20_000  # of images, whose many levels take long to count


def structure_of(settings: Settings, dataset: Dataset) -> Structure:
    """The structure of the flags.

    Args:
        settings: the shared flags.
        dataset: the images; of hidden_chow_liu the training images decide, so that a
            run that is read back has the same.

    Returns:
        The structure.

    Raises:
        UserError: pixels of several channels, where that needs one.
        ValueError: the flags describe none on these images.
    """
    sizes = {"height": dataset.height, "width": dataset.width}
    if settings.channels == "variables":
        sizes["channels"] = dataset.num_channels
    if settings.structure == "quad_tree":
        return pc.QuadTree(**sizes)
    if settings.structure == "quad_graph":
        return pc.QuadGraph(**sizes)
    if settings.structure == "hidden_chow_liu":
        return _hidden_tree(dataset)
    return pc.RandomBinaryTrees(
        num_variables=dataset.train.shape[1],
        depth=settings.depth,
        num_repetitions=settings.num_repetitions,
        seed=settings.structure_seed,
    )


def _hidden_tree(dataset: Dataset) -> pc.RegionGraph:
    if dataset.num_channels > 1:
        raise UserError(
            "--structure must be another than hidden_chow_liu where pixels have "
            f"several channels, got {dataset.num_channels}"
        )
    rows = dataset.train[..., 0]
    if not dataset.is_table:
        rows = rows[:: -(-len(rows) // _MOST_ROWS)]
    return pc.hidden_chow_liu_tree(rows)
