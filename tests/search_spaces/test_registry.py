"""Registries: lazy, extended by entry points, strict about names."""

import subprocess
import sys
from pathlib import Path

import pytest

from search_spaces.errors import InputError
from search_spaces.registry import Registry

THINGS: Registry[object] = Registry("thing", {"path": "pathlib:Path", "gone": "no_such_module:X"}, "tuner.none")


def test_it_loads_what_it_names_and_nothing_before() -> None:
    assert THINGS.names() == ("path", "gone")
    assert THINGS.get("path") is Path
    assert THINGS.check("gone") == "gone"


def test_an_unknown_name_is_one_line_with_the_nearest() -> None:
    for ask in (THINGS.get, THINGS.check):
        with pytest.raises(InputError, match="thing 'paht' is not one of path, gone; did you mean 'path'"):
            ask("paht")


@pytest.mark.parametrize(("value", "said"), [("mine:THING", "42"), ("absent:THING", "reinstall its package")])
def test_other_packages_add_theirs_by_entry_point(tmp_path: Path, value: str, said: str) -> None:
    (tmp_path / "mine.py").write_text("THING = 42\n")
    info = tmp_path / "mine-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[tuner.things]\nmine = {value}\n")
    code = (
        "from search_spaces.errors import InputError\n"
        "from search_spaces.registry import Registry\n"
        "things = Registry('thing', {}, 'tuner.things')\n"
        "assert things.names() == ('mine',)\n"
        "try: print(things.get('mine'))\n"
        "except InputError as error: print(error)\n"
    )
    path = f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(Path(__file__).parents[2])!r}]\n"
    done = subprocess.run([sys.executable, "-c", path + code], capture_output=True, text=True, check=True)
    assert said in done.stdout
