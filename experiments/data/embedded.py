"""Images that come with a package that is installed anyway."""

import numpy as np

from experiments.data.dataset import Dataset
from experiments.data.files import source


def digits() -> Dataset:
    """1797 images of 8x8 pixels with 17 gray levels, shipped inside scikit-learn.

    Of every ten images of a digit, in the order of the file, the ninth is for
    validation and the tenth for the test, so that each part has the same mixture of
    digits and of writers (who follow each other in the file): 1444 / 177 / 176 images.

    References:
        Alpaydin and Kaynak, "Optical Recognition of Handwritten Digits", UCI, 1998.
    """
    from sklearn.datasets import load_digits  # here: only this data set needs sklearn

    values, labels = load_digits(return_X_y=True)
    images = values.astype(np.uint8).reshape(-1, 64, 1)
    labels = labels.astype(np.int32)
    ranks = np.stack([np.cumsum(labels == digit) - 1 for digit in range(10)])
    position = ranks[labels, np.arange(len(labels))] % 10
    train, valid, test = position < 8, position == 8, position == 9
    return Dataset(
        name="digits",
        train=images[train],
        valid=images[valid],
        test=images[test],
        height=8,
        width=8,
        num_values=17,
        train_labels=labels[train],
        valid_labels=labels[valid],
        test_labels=labels[test],
        source=source(
            "embedded",
            "of every ten images of a digit the ninth is for validation, the tenth for "
            "the test",
            None,
            [],
        ),
    )
