"""Reads the source as trees: what a module compares, lists or matches."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("search_spaces", "objectives", "tuner")


def modules() -> Iterator[Path]:
    """All source files of the project, relative to its root."""
    for room in ROOMS:
        yield from sorted(path.relative_to(ROOT) for path in (ROOT / room).rglob("*.py"))


def decisions(path: Path, names: Collection[str], *, keys: bool = True) -> list[str]:
    """Places where a module decides by one of the names.

    A name decides where it is compared, matched, listed (in a tuple, list or set, or as a key of a mapping), or stands
    in a `Literal`. One that is only passed on or shown does not.

    Args:
        path: The module, relative to the root or absolute.
        names: Of one kind of thing.
        keys: Whether keys of mappings count; not where a name is a plain word that names a field of data as well.
    """
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    found: dict[int, str] = {}
    for node in ast.walk(tree):
        for constant in _deciding(node, keys):
            if constant.value in names:
                found[constant.lineno] = f"{path}:{constant.lineno}: {constant.value!r}"
    return [found[line] for line in sorted(found)]


def _deciding(node: ast.AST, keys: bool) -> Iterator[ast.Constant]:
    """Constants by which a node decides."""
    parts: list[ast.expr | None] = []
    if isinstance(node, ast.Compare):
        parts = [node.left, *node.comparators]
    elif isinstance(node, (ast.Tuple, ast.List, ast.Set)):
        parts = list(node.elts)
    elif isinstance(node, ast.Dict):
        parts = list(node.keys) if keys else []
    elif isinstance(node, ast.MatchValue):
        parts = [node.value]
    elif (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in ("startswith", "endswith")
    ):
        parts = list(node.args)
    elif isinstance(node, ast.Subscript):
        literal = isinstance(node.value, ast.Name) and node.value.id == "Literal"
        parts = [node.slice] if keys or literal else []
    for part in parts:
        if isinstance(part, ast.Constant) and isinstance(part.value, str):
            yield part


#: Calls that open, make or copy a file by its name.
_OPENS = {"open", "read_text", "read_bytes", "write_text", "write_bytes", "touch", "copyfile", "copy", "copy2"}


def opened_files(path: Path) -> list[str]:
    """Places where a module opens a file by other ways than `search_spaces.durable` and `search_spaces.regular`."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    lines = {call.lineno for call in calls if _opens(call.func)}
    return [f"{path}:{line}" for line in sorted(lines)]


def _opens(function: ast.expr) -> bool:
    if isinstance(function, ast.Name):
        return function.id == "open"
    if not isinstance(function, ast.Attribute) or function.attr not in _OPENS:
        return False
    owner = function.value
    # `RunFolder.open(...)` and the like open a thing of ours; `copy.copy` and `dict.copy` copy no file.
    ours = isinstance(owner, ast.Name) and owner.id[:1].isupper() and owner.id != "Path"
    return not ours and (function.attr != "copy" or (isinstance(owner, ast.Name) and owner.id == "shutil"))
