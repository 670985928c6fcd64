"""README and docs: their commands parse, their studies are valid, their Python runs, their links lead somewhere."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
import yaml

from tuner.cli.app import app
from tuner.study.config import StudyConfig

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
#: Pages whose Python is run by tests of their own, which bring what it needs.
OWN_TESTS = {"extending.md", "python.md"}
#: What a page may leave out of a study that it shows a part of.
BASE = {
    "name": "x",
    "model": {"path": "m.onnx"},
    "data": {"images": "i", "annotations": "a.json", "calibration": "c.txt"},
}


def blocks(page: Path, *languages: str) -> Iterator[str]:
    """Fenced blocks of one page, in some languages; those inside lists too, without their indentation."""
    pattern = r"^( *)```(\w+)[^\n]*\n(.*?)^\1```$"
    for indent, language, body in re.findall(pattern, page.read_text(encoding="utf-8"), re.M | re.S):
        if language in languages:
            yield re.sub(rf"^{indent}", "", body, flags=re.M)


def commands(text: str) -> Iterator[list[str]]:
    """The calls of `tuner` in shell lines: behind `&&` too, without comments and what is behind a pipe."""
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="&|;<>")
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, "&&"]:
            if set(word) <= set("&|;<>"):
                if words[:1] == ["tuner"]:
                    yield words[1:]
                words = []
            else:
                words.append(word)


def refusal(words: list[str]) -> str:
    """Parses a command line as the program does, and runs nothing; why it is refused, empty where it is not."""
    known = typer.main.get_command(app).commands
    if words[:1] and words[0].startswith("-"):
        words = ["status", "runs/demo"]  # an option of the program itself
    if not words or words[0] not in known:
        return f"no command: {words[:1]}"
    try:
        with known[words[0]].make_context(words[0], words[1:]):
            return ""
    except Exception as error:  # of whichever click typer brings
        if type(error).__name__ == "Exit":
            return ""  # --help
        return str(error.format_message() if hasattr(error, "format_message") else error)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_parse(page: Path) -> None:
    shown = [words for block in blocks(page, "sh", "bash") for words in commands(block)]
    assert {f"tuner {' '.join(words)}": why for words in shown if (why := refusal(words))} == {}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_options_that_the_text_names_exist(page: Path) -> None:
    known = typer.main.get_command(app).commands
    spans = re.findall(r"(?<!`)`(tuner [^`]+)`(?!`)", page.read_text(encoding="utf-8"))
    for words in (words for span in spans for words in commands(span.replace("\n", " ").replace("...", ""))):
        if words and not words[0].startswith("-"):
            assert words[0] in known, words
            options = {option for parameter in known[words[0]].params for option in parameter.opts} | {"--help"}
            assert [word for word in words if word.startswith("--") and word not in options] == [], words


def test_the_parser_of_commands_refuses_what_is_wrong() -> None:
    assert list(commands("cd x && tuner run a.yaml --trials 3 # go\nls | grep tuner")) == [
        ["run", "a.yaml", "--trials", "3"]
    ]
    assert refusal(["front", "runs/demo", "--max-drop", "1.0"]) == ""
    assert all(
        map(refusal, (["rum", "a"], ["run", "a", "--trails", "3"], ["front"], ["front", "a", "--max-drop", "x"]))
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_studies_are_valid(page: Path) -> None:
    for block in blocks(page, "yaml"):
        given = yaml.safe_load(block)
        study = StudyConfig.model_validate({**BASE, **given})
        assert given.keys() <= type(study).model_fields.keys()


@pytest.mark.parametrize("page", [page for page in PAGES if page.name not in OWN_TESTS], ids=lambda page: page.name)
def test_python_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found: dict[str, object] = {}
    wanted = list(blocks(page, "python"))
    assert len(wanted) == len(re.findall(r"^ *```python", page.read_text(encoding="utf-8"), re.M))
    for block in wanted:
        exec(compile(block, str(page), "exec"), found)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    targets = re.findall(r"\]\((?!https?:|mailto:|#)([^)#\s]+)", text)
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_every_page_is_in_the_sites_menu() -> None:
    def listed(entry: object) -> Iterator[str]:
        if isinstance(entry, str):
            yield entry
        for inner in entry.values() if isinstance(entry, dict) else entry if isinstance(entry, list) else ():
            yield from listed(inner)

    menu = list(listed(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]))
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in PAGES[1:]}
    assert set(menu) == pages and len(menu) == len(set(menu))
