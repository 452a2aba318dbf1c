"""Paths as users type them."""

import os
from pathlib import Path

import pytest

from experiments import ll, report
from experiments.console.errors import UserError
from experiments.console.paths import local_path
from experiments.measuring.collection import folders
from experiments.study import table


def test_the_home_folder_is_expanded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    assert local_path("~/run") == "/home/somebody/run"
    assert local_path("runs/~a") == "runs/~a"
    (settings, *_) = ll.parse(
        ["ll", "--workdir=~/run", "--dataset=folder", "--data_dir=~"]
    )
    assert settings.workdir == "/home/somebody/run"
    assert settings.data_dir == "/home/somebody"


@pytest.mark.parametrize(
    "path", ["gs://bucket/run", "s3://b", "~nobody-of-this-name/x"]
)
@pytest.mark.parametrize("flag", ["workdir", "data_dir", "cache_dir", "start_from"])
def test_what_is_not_here_is_refused(flag: str, path: str):
    with pytest.raises(UserError) as caught:
        ll.parse(["ll", f"--{flag}={path}"])
    assert str(caught.value) == (
        f"--{flag} must be a path of this machine, got {path!r}"
    )


@pytest.mark.parametrize(
    "seed", ["--seed=4294967296", "--seed=4294967295 --num_seeds=2"]
)
def test_a_seed_beyond_32_bits_is_refused(seed: str):
    with pytest.raises(UserError, match=r"--seed must be less than 2\*\*32"):
        ll.parse(["ll", *seed.split()])
    assert ll.parse(["ll", f"--seed={2**32 - 1}"])[0].seed == 2**32 - 1
    assert os.path.isabs(local_path("~"))


def test_patterns_of_runs_are_paths_of_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("a", "b", "report"):
        (tmp_path / name).mkdir()
    result = folders("~/a, ~/[br]*", tmp_path / "report")
    assert result == [tmp_path / "a", tmp_path / "b"]
    for pattern in ("gs://bucket/*", "~nobody-of-this-name/*"):
        for program in (report, table):
            words = ["x", f"--runs=~/a,{pattern}", f"--out={tmp_path / 'out'}"]
            with pytest.raises(UserError) as caught:
                program.main(program.parse(words))
            assert str(caught.value) == (
                f"--runs must be patterns of paths of this machine, got {pattern!r}"
            )
