"""The report: from folders that are whole, damaged or foreign, twice the same."""

import html.parser
from pathlib import Path
import re

from PIL import Image
import pytest

from experiments import report
from experiments.console.errors import UserError
from experiments.measuring.collection import Collected, collect, defaults_of
from experiments.measuring.programs import PROGRAMS
from experiments.report import markdown, page
from experiments.report.document import Document, Gallery, Table
from tests.experiments.fabricated import EVIL, make


@pytest.fixture(scope="module")
def document(collected: Collected) -> Document:
    return Document("Title", "and more", report.make_sections(collected))


class Reader(html.parser.HTMLParser):
    """Cells, attributes and tags of a page."""

    def __init__(self, text: str):
        super().__init__()
        self.cells: list[list[str]] = []
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self._inside = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        names = ("src", "href", "xlink:href", "srcset", "action", "data")
        self.addresses += [v or "" for k, v in attrs if k in names]
        assert not any(k.startswith("on") for k, _ in attrs)
        if tag == "tr":
            self.cells.append([])
        if tag in ("td", "th"):
            self._inside = True
            self.cells[-1].append("")

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self._inside = False

    def handle_data(self, data):
        if self._inside:
            self.cells[-1][-1] += data


def unescape(text: str) -> str:
    """The text that Markdown shows."""
    return html.unescape(re.sub(r"\\(.)", r"\1", text).replace("**", ""))


def test_both_renderings_have_the_same_cells(document: Document):
    reader = Reader(page.render(document))
    text, _ = markdown.render(document, "files")
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    markdown_rows = [re.split(r"(?<!\\) \| ", line[2:-2]) for line in lines]
    expected = [
        [c.text + (f" ({c.note})" if c.note else "") for c in row]
        for section in document.sections
        for block in section.blocks
        if isinstance(block, Table)
        for row in block.rows
    ]
    assert len(expected) > 50
    expected_rows = [[" ".join(c.split()) for c in row] for row in expected]
    page_rows = [[" ".join(c.split()) for c in row] for row in reader.cells]
    text_rows = [[unescape(c) for c in row] for row in markdown_rows]
    for row in expected_rows:
        assert row in page_rows
        # The evil name has stars, which bold text has too.
        assert [c.replace("**", "") for c in row] in text_rows
    captions = [
        figure.caption
        for section in document.sections
        for block in section.blocks
        if isinstance(block, Gallery)
        for figure in block.figures
    ]
    assert captions
    for caption in captions:
        assert f"<figcaption>{page._text(caption)}</figcaption>" in page.render(
            document
        )
        assert markdown.escape(caption) in text


def test_the_page_needs_nothing_else_and_runs_nothing(document: Document):
    text = page.render(document)
    reader = Reader(text)
    assert not {"script", "link", "iframe", "object", "embed"} & set(reader.tags)
    assert all(a.startswith(("data:image/png;base64,", "#")) for a in reader.addresses)
    assert "@import" not in text
    assert all(u.startswith("#") for u in re.findall(r"url\(([^)]*)", text))
    assert {"img", "svg"} <= set(reader.tags)
    ids = re.findall(r'\bid="([^"]*)"', text)
    assert len(ids) == len(set(ids))


def test_foreign_text_stays_text(document: Document):
    assert EVIL in str(document)
    for text in (page.render(document), markdown.render(document, "files")[0]):
        assert "<script" not in text
        assert "alert" in text
    assert markdown.escape("a_b _c_ x|y\n# 1. `z`") == r"a_b \_c\_ x\|y # 1. \`z\`"
    assert markdown.escape("# x") == r"\# x"


def test_names_are_as_short_as_they_can_be(tmp_path: Path):
    folders = [make(tmp_path / n) for n in ("a/x", "b/x", "b/y")]
    names = [run.name for run in collect(folders).runs]
    assert names == ["a/x", "b/x", "y"]


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_defaults_of_a_program_are_known(program):
    defaults = defaults_of(program)
    assert defaults is not None
    assert defaults["dataset"] == "digits"
    assert defaults_of("os") is None


def test_the_program(root: Path, tmp_path: Path, capsys):
    out = tmp_path / "report"
    groups = report.parse(["report", f"--runs={root}/*", f"--out={out}"])
    for _ in range(2):  # the second replaces the first
        assert report.main(groups) == 0
    assert "other folders" in capsys.readouterr().out
    text = (out / "report.md").read_text()
    files = {path.name for path in (out / "report_files").iterdir()}
    assert set(re.findall(r"\(report_files/([^)]*)\)", text)) == files
    for path in (out / "report_files").glob("*.png"):
        with Image.open(path) as picture:
            picture.verify()
    assert "<h1>Report of runs</h1>" in (out / "report.html").read_text()
    with pytest.raises(UserError, match=r"--runs must name folders, got .*none"):
        report.main(report.parse(["report", f"--runs={tmp_path}/nothing/*"]))
    with pytest.raises(UserError, match="--runs must be given"):
        report.main(report.parse(["report"]))
    (tmp_path / "file").write_text("")
    arguments = ["report", f"--runs={root}/*", f"--out={tmp_path}/file"]
    with pytest.raises(UserError, match="--out must be a folder that can be written"):
        report.main(report.parse(arguments))


def test_help_names_the_flags(capsys):
    with pytest.raises(SystemExit) as end:
        report.parse(["report", "--help"])
    assert end.value.code == 0
    assert "--runs" in capsys.readouterr().out
