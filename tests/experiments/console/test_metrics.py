"""Metrics over seeds, as JSON has them and as people see them."""

import json
import math
from pathlib import Path
import re

import numpy as np
import pytest

from experiments.console.metrics import (
    as_number,
    each_seed,
    finite_or_text,
    names_of,
    over_seeds,
)
from experiments.console.summary import summary, table


def test_means_and_deviations_over_seeds():
    assert over_seeds({"m": np.array([2.0])}) == {"m": 2.0}
    three = over_seeds({"m": np.array([1.0, 2.0, 6.0])})
    assert three["m"] == 3.0
    assert three["m_std"] == pytest.approx(7**0.5)
    assert three["m_seeds"] == [1.0, 2.0, 6.0]
    assert names_of(three) == ["m"]
    assert each_seed(three, "m") == [1.0, 2.0, 6.0]


def test_infinities_survive_json():
    values = np.array([math.inf, -math.inf, math.nan])
    with np.errstate(invalid="ignore"):
        text = json.dumps(finite_or_text(over_seeds({"m": values})), allow_nan=False)
    np.testing.assert_array_equal(each_seed(json.loads(text), "m"), values)


@pytest.mark.parametrize(
    ("metrics", "each"),
    [
        ({"m": 1}, [1.0]),
        ({"m": 1.5, "m_seeds": [1, "x"]}, [1.5]),  # not all of them are numbers
        ({"m": None}, None),
        ({"n": 1.0}, None),
        ([1.0], None),
    ],
)
def test_the_mean_stands_for_seeds_that_are_not_written(metrics, each):
    assert each_seed(metrics, "m") == each


@pytest.mark.parametrize("value", [True, None, [], {}, "1", 10**400])
def test_what_is_no_number(value):
    assert as_number(value) is None


def test_the_summary_is_one_screen():
    metrics = over_seeds({"m": np.array([1.0, 2.0, 6.0])})
    result = {
        "program": "ll",
        "dataset": "digits",
        "step": 9,
        "seeds": [0, 1, 2],
        "steps_per_second": None,
        "device": "1 x cpu",
        "metrics": metrics,
    }
    text = summary(result, Path("out/x"))
    assert "ll on digits: 9 steps, 3 seeds" in text
    assert re.search(r"m +3  \+- 2\.6458", text)
    assert "m_seeds" not in text
    assert len(text.splitlines()) < 24


def test_a_table_has_a_cell_for_every_metric():
    lines = table({"a": {"x": 1.0, "x_std": 0.5}, "b": {"y": "nan"}}).splitlines()
    assert [line.split() for line in lines] == [
        ["a", "b"],
        ["x", "1", "+-", "0.5"],
        ["y", "nan"],
    ]
