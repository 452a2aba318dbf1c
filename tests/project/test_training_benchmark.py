"""The benchmark of training steps: its cells, its arithmetic, its mistakes."""

import pytest

from benchmarks import training


def test_cells_are_all_combinations():
    words = ["--units=4,8", "--batches=2", "--tasks=em,train", "--shapes=1x4x4"]
    cells = training.cells_of(training.parse([*words, "--leaves=categorical,logistic"]))
    assert len(cells) == 3 * 2 * (2 + 1)  # no EM of logistic leaves
    assert {cell.num_units for cell in cells} == {4, 8}
    assert {cell.shape for cell in cells} == {"1x4x4"}
    assert {cell.sum_layer for cell in cells} == {"cp"}


def test_the_share_is_that_of_the_products():
    result = {"task": "em", "structure": "quad_tree", "leaf": "categorical"}
    result |= {"shape": "1x28x28", "num_units": 64, "batch": 500, "median_ms": 1000.0}
    # 3 products of 2 * 10^7 * 500 operations at 100 GFLOP/s take 0.3 s.
    result |= {"weights": 10**7, "batched_gflops": 100.0}
    result |= {"run_rss_mib": 900.0, "first_call_s": 5.0}
    assert training.share_of_limit(result) == pytest.approx(0.3)
    assert training.images_per_second(result) == 500
    failed = {**result, "error": "out of memory"}
    text = training.report([result, failed])
    assert (
        "| quad_tree | categorical | 1x28x28 | 64 | 500 | EM | 500 | 1,000 | 0.30 |"
        in text
    )
    assert "out of memory" in text


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("--structures=tree", "--structures must be among .*, got 'tree'"),
        ("--units=0", "--units must be positive numbers, got '0'"),
        ("--shapes=28x28", "--shapes must be like 3x32x32"),
        ("--report=nowhere.jsonl", "nowhere.jsonl"),
    ],
)
def test_a_wrong_option_is_a_one_line_error(word, message):
    with pytest.raises(SystemExit, match=message):
        training.main([word])


@pytest.mark.slow
def test_every_structure_is_measured(tmp_path):
    words = ["--units=2", "--batches=3", "--shapes=1x4x4", "--seconds=0"]
    words += ["--tasks=em,train", f"--output={tmp_path / 'lines.jsonl'}"]
    assert training.main(words) == 0
    assert len((tmp_path / "lines.jsonl").read_text().splitlines()) == 6
