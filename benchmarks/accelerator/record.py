"""Results on the disk: JSON lines, and the same as Markdown, after each of them."""

from collections.abc import Iterator, Sequence
import json
import pathlib
from typing import Any

from benchmarks import markdown

LINES, REPORT = "results.jsonl", "results.md"


class Record:
    """Results of a run, in files that are whole after every line.

    Attributes:
        results: all of them, each with ``stage`` and ``name``.
    """

    def __init__(self, folder: pathlib.Path):
        """Continues the results of ``folder``, which it makes where it is missing."""
        folder.mkdir(parents=True, exist_ok=True)
        self._lines, self._report = folder / LINES, folder / REPORT
        self.results: list[dict[str, Any]] = []
        if self._lines.exists():
            texts = self._lines.read_text().splitlines()
            self.results = [result for text in texts for result in _parsed(text)]

    def add(self, stage: str, **fields: Any) -> None:
        """Writes a result."""
        result = {"stage": stage, **fields}
        self.results.append(result)
        with self._lines.open("a") as file:
            file.write(json.dumps(result) + "\n")
        new = self._report.with_suffix(".new")
        new.write_text(report(self.results) + "\n")
        new.replace(self._report)


def _parsed(text: str) -> Iterator[dict[str, Any]]:
    """The result of a line; none if a kill cut it."""
    try:
        yield json.loads(text)
    except json.JSONDecodeError:
        return


def report(results: Sequence[dict[str, Any]]) -> str:
    """A table for every stage, and what failed or was skipped below it."""
    paragraphs = []
    for stage in dict.fromkeys(r["stage"] for r in results):
        own = [r for r in results if r["stage"] == stage]
        paragraphs.append(f"## {stage}")
        good = [r for r in own if not {"error", "skipped"} & set(r)]
        # Texts and long lists of numbers of one result are no columns of the others.
        if good:
            columns = [
                name
                for name in dict.fromkeys(name for r in good for name in r)
                if name not in ("stage", "name")
            ]
            shared = [c for c in columns if sum(c in r for r in good) > 1]
            rows = [["", *shared]]
            rows += [[r["name"], *(_shown(r.get(c)) for c in shared)] for r in good]
            paragraphs.append(markdown.table(rows))
            for result in good:
                rest = [c for c in columns if c in result and c not in shared]
                if rest:
                    values = ", ".join(f"{c} {_shown(result[c])}" for c in rest)
                    paragraphs.append(f"{result['name']}: {values}")
        for word in ("error", "skipped"):
            paragraphs += [f"{word}: {r['name']}: {r[word]}" for r in own if word in r]
    return "\n\n".join(paragraphs)


def _shown(value: Any) -> str:
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return "" if value is None else str(value)
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        small = value and abs(value) < 0.1
        return f"{value:.2g}" if small or value < 0 else markdown.number(value)
    return json.dumps(value)
