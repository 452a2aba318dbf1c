"""The benchmark: it measures every task, and reports failures."""

import json
import time

import jax
import jax.numpy as jnp
import pytest

from benchmarks import cell, circuit, measure, tasks

TINY = {
    "channels": 2,
    "height": 4,
    "width": 4,
    "batch": 3,
    "depth": 2,
    "num_repetitions": 2,
    "num_units": 3,
    "seconds": 0.0,
}


@pytest.fixture(autouse=True)
def small_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    """The product beside which times are put: 1 in 10^4 of its arithmetic."""
    monkeypatch.setattr(measure, "_REFERENCE_SIZE", 96)


# The others are slow: they share the measuring, and their queries have other tests.
QUICK = ("train",)


@pytest.mark.optax
@pytest.mark.parametrize(
    "task",
    [
        pytest.param(task, marks=() if task in QUICK else pytest.mark.slow)
        for task in tasks.TASKS
    ],
)
def test_every_task_is_measured(task):
    result = json.loads(json.dumps(cell.run(tasks.Cell(task, **TINY))))
    assert result["shape"] == "2x4x4"
    assert result["calls"] >= 10
    # Tucker, depth 2: 2 repetitions of 2 regions [3, 9] and 1 root [1, 9]; the mixture
    # of 2 repetitions and of 1 class; 3 Binomials of every value in every repetition.
    assert result["params"] == 2 * (2 * 3 * 9 + 9) + 2 + 1 + 2 * 3 * 4 * 4 * 2


def test_the_quad_tree_is_measured():
    fields = {**TINY, "structure": "quad_tree", "sum_layer": "cp_t"}
    result = cell.run(tasks.Cell("log_prob", **fields))
    # 16 pixels of 2 channels; 14 regions of [3, 3] and the root; 1 class.
    assert result["params"] == 16 * 3 * 2 + 14 * 9 + 3 + 1


def test_a_wrong_result_is_no_measurement():
    finite = jnp.zeros(3)
    with pytest.raises(FloatingPointError, match="sample must be finite"):
        cell._check("sample", finite, jnp.array([0.0, jnp.nan, 1.0]))
    gradient = {"leaves": jnp.ones(2), "sums": jnp.zeros(2)}
    with pytest.raises(ValueError, match=r"must reach params\['sums'\], got zeros"):
        cell._check("differentiable[dense]", finite, (jnp.float32(1.0), gradient))


def test_time_calls_measures_sleep():
    def call():
        time.sleep(0.02)
        return jnp.zeros(())

    times = measure.time_calls(call, seconds=0.0, min_calls=3, warm_up=1)
    assert times["calls"] == 3
    assert times["min_ms"] >= 20


def test_peak_memory_sees_an_array():
    can_reset = measure.reset_peak_rss()
    base = measure.peak_rss_mib()
    jnp.zeros((64, 2**20), jnp.float32).block_until_ready()  # 256 MiB
    growth = measure.peak_rss_mib() - base
    assert growth > 200 if can_reset else growth >= 0


def test_compiled_memory_counts_the_output():
    function = jax.jit(lambda x: jnp.broadcast_to(x, (1024, 256)) + 1.0)
    compiled = function.lower(jnp.float32(0.0)).compile()
    assert measure.compiled_mib(compiled)["xla_output_mib"] == 1.0


def test_compiled_work_counts_a_product():
    square = jax.ShapeDtypeStruct((64, 64), jnp.float32)
    compiled = jax.jit(jnp.matmul).lower(square, square).compile()
    work = measure.compiled_work(compiled)
    assert work["xla_gflop"] == pytest.approx(2 * 64**3 / 1e9, rel=0.05)
    assert work["xla_gb"] == pytest.approx(3 * 4 * 64**2 / 1e9, rel=0.05)


@pytest.mark.parametrize(
    ("arguments", "shapes", "batches", "count"),
    [
        ([], 3, {64, 256}, 5 * len(tasks.TASKS)),
        (["--batches=256"], 2, {256}, 2 * len(tasks.TASKS)),
        (["--shapes=1x8x8", "--tasks=mpe"], 1, {64}, 1),
        (["--shapes=1x8x8,3x4x4", "--batches=1,2", "--tasks=mpe,train"], 2, {1, 2}, 8),
    ],
)
def test_cells_are_selected(arguments, shapes, batches, count):
    cells = circuit.select_cells(circuit.parse(arguments))
    assert len(cells) == count
    assert len({c.shape for c in cells}) == shapes
    assert {c.batch for c in cells} == batches


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tasks=likelihood"], "--tasks must be among .*, got 'likelihood'"),
        (["--shapes=28x28"], "--shapes must be like 3x32x32 .*, got '28x28'"),
        (["--shapes=1x0x28"], "got '1x0x28'"),
        (["--batches=64,-1"], "--batches must be positive numbers, got '64,-1'"),
        (["--report=nowhere.jsonl"], "--report must be a readable file.*nowhere.jsonl"),
    ],
)
def test_a_wrong_flag_is_a_one_line_error(arguments, message):
    with pytest.raises(SystemExit, match=message):
        circuit.main(arguments)


def test_tables_show_results_and_failures():
    success = {"shape": "1x8x8", "batch": 64, "task": "mpe", "median_ms": 1234.5}
    success |= {"first_call_s": 0.5, "peak_rss_mib": 12.34, "reference_gflops": 400.0}
    success |= {"date": "2026-01-01", "device": "cpu", "cpu": "a processor"}
    success |= {"cores": 2, "jax": "0.1", "python": "3.11", "structure": "quad_tree"}
    success |= {"sum_layer": "cp_t"}
    failure = {"shape": "3x8x8", "batch": 64, "task": "mpe", "error": "out of memory"}
    text = circuit.report([success, failure])
    assert "| mpe | 1,234 | - |" in text
    assert "| mpe | 0.50 | - |" in text
    assert "| mpe | 12.3 | - |" in text
    assert "failed: mpe 3x8x8 B=64: out of memory" in text
    assert "accelerator" not in text


def test_a_failing_cell_is_reported_and_fails_the_run(tmp_path, capsys):
    arguments = ["--shapes=1x2x2", "--tasks=mpe", f"--output={tmp_path / 'a.jsonl'}"]
    # Depth 4 needs 16 variables; there are 4.
    assert circuit.main(arguments) == 1
    assert "failed: mpe 1x2x2 B=64: ValueError" in capsys.readouterr().out
    assert "error" in json.loads((tmp_path / "a.jsonl").read_text())
