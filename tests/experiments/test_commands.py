"""All programs by one name: the list, each program, and what the code is."""

import importlib
import re
import sys
import tomllib

import pytest

from experiments import commands
from experiments.console.errors import UserError
from experiments.engine import code_version
from tests.experiments import runs

ALL = pytest.mark.parametrize("name", commands.PROGRAMS)


def shown(
    name: str, word: str, capsys: pytest.CaptureFixture[str]
) -> tuple[str, list[str]]:
    """What a program answers, and its lines."""
    parse = importlib.import_module(f"experiments.{name}").parse
    with pytest.raises(SystemExit) as stopped:
        parse([name, word])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    return text, text.splitlines()


def test_the_list_has_every_program_a_line_each(capsys: pytest.CaptureFixture[str]):
    modules = [
        *(runs.ROOT / "experiments").glob("*.py"),
        *(runs.ROOT / "experiments").glob("*/*.py"),
    ]
    have = {
        path.parent.name if path.stem == "__init__" else path.stem
        for path in modules
        if re.search(r"^parse(, main, run)? = (PROGRAM|app\.)", path.read_text(), re.M)
    }
    assert have == {name.split(".")[-1] for name in commands.PROGRAMS}
    for words in ([], ["--help"]):
        assert commands.main(words, "dspc") == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[0] == "Usage: dspc PROGRAM [flags]"
        for name, text in commands.PROGRAMS.items():
            assert [name, text] in [line.split(maxsplit=1) for line in lines]


@ALL
def test_help_begins_as_the_list_and_its_example_works(
    name: str, capsys: pytest.CaptureFixture[str]
):
    text, lines = shown(name, "--help", capsys)
    assert lines[0] == commands.PROGRAMS[name]
    (example,) = (line for line in lines if line.startswith("Example: "))
    start = f"Example: python -m experiments.{name} "
    assert example.startswith(start)
    words = example.removeprefix(start).replace("'", "").split()
    assert words
    importlib.import_module(f"experiments.{name}").parse([name, *words])
    brief, _ = shown(name, "--helpshort", capsys)
    entries = re.findall(r"^  --", brief, re.M)
    assert 2 <= len(entries) <= 15
    all_entries = re.findall(r"^  --", text, re.M)
    assert len(entries) <= len(all_entries)
    more = re.search(r"--help shows the other flags, (\d+) in all", brief)
    assert more
    assert len(all_entries) == len(entries) + int(more[1])


@ALL
def test_every_program_says_its_version(name: str, capsys: pytest.CaptureFixture[str]):
    text, _ = shown(name, "--version", capsys)
    assert text == code_version.version_line() + "\n"


def test_groups_come_in_order(capsys: pytest.CaptureFixture[str]):
    _, lines = shown("mmd", "--help", capsys)
    titles = [line for line in lines if line.endswith(":") and line[0] != " "]
    assert titles[:3] == ["The run:", "Data:", "The circuit:"]
    assert titles[-2].startswith("The flags of the learned kernels")
    assert titles[-1] == "The process:"
    assert len(titles) == len(set(titles))


def test_a_program_is_run_by_its_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    ran = []
    monkeypatch.setattr(
        commands.runpy, "run_module", lambda *how, **_: ran.append((how, sys.argv))
    )
    monkeypatch.setattr(sys, "argv", ["dspc"])
    assert commands.main(["mmd-gan", "--seed=3"]) == 0
    name = "experiments.mmd_gan"
    assert ran == [((name,), [name, "--seed=3"])]
    with pytest.raises(UserError, match="must be one of ll, .*, got 'mdm'. Did you me"):
        commands.main(["mdm"])
    monkeypatch.setattr(sys, "argv", ["dspc", "--version"])
    with pytest.raises(SystemExit) as stopped:
        commands.run()
    assert stopped.value.code == 0
    assert capsys.readouterr().out == code_version.version_line() + "\n"


def test_the_only_script_is_dspc():
    project = tomllib.loads((runs.ROOT / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"dspc": "experiments.commands:run"}
    assert project["version"] == code_version.version()


def test_the_list_in_a_process_of_its_own():
    code, out, err = runs.run(program="experiments")
    assert (code, out, err) == (0, commands.overview("python -m experiments"), "")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["report", "ll"])
def test_a_program_in_a_process_of_its_own(name: str):
    code, out, err = runs.run(name, "--helpshort", program="experiments")
    assert (code, err) == (0, "")
    assert f"python -m experiments.{name}" in out


def test_the_commit_is_that_of_this_checkout_only(monkeypatch: pytest.MonkeyPatch):
    commit = code_version.commit_of_code()
    if (runs.ROOT / ".git").exists():
        assert commit is not None
        assert re.fullmatch(r"[0-9a-f]{7,}\+?", commit)
    # A package installed below another project's checkout is not of its commit.
    monkeypatch.setattr(code_version, "__file__", str(runs.ROOT / ".git" / "x.py"))
    assert code_version.commit_of_code() is None
