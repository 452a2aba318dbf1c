"""Conditions that only the system knows end in one line."""

import errno
import os
from pathlib import Path
import subprocess
import sys

import pytest

from experiments.console.errors import exit_code
from experiments.engine.files import write_atomically

FULL = Path("/dev/full")


@pytest.mark.skipif(not FULL.exists(), reason="no device that is always full")
def test_a_full_disk_is_one_line(capsys: pytest.CaptureFixture[str]):
    def main() -> int:
        with FULL.open("w") as file:
            file.write("content")
        return 0

    assert exit_code(main) == 1
    assert capsys.readouterr().err == "error: No space left on device\n"


@pytest.mark.parametrize(
    ("number", "text"),
    [(errno.EACCES, "Permission denied"), (errno.ENOSPC, "No space left on device")],
)
def test_a_file_that_cannot_be_written_is_named(
    capsys: pytest.CaptureFixture[str], number: int, text: str
):
    def main() -> int:
        raise OSError(number, text, "config.json")

    assert exit_code(main) == 1
    assert capsys.readouterr().err == f"error: {text}: config.json\n"


def test_other_errors_of_files_are_bugs():
    def main() -> int:
        raise FileNotFoundError(2, "No such file", "metrics.jsonl")

    with pytest.raises(FileNotFoundError):
        exit_code(main)


def test_files_do_not_depend_on_the_locale(tmp_path: Path):
    path = tmp_path / "text"
    code = (
        "import pathlib; from experiments.engine.files import write_atomically as w; "
        f"w(pathlib.Path({str(path)!r}), chr(0x17f))"
    )
    plain = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    subprocess.run([sys.executable, "-c", code], env=os.environ | plain, check=True)
    assert path.read_bytes() == chr(0x17F).encode()
    write_atomically(path, "a")
    assert path.read_text("utf-8") == "a"
