"""The reference page and the schema say what the models say, of every key."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from tuner.study.config import StudyConfig
from tuner.study.reference import PAGE, SCHEMA, page
from tuner.study.schema import keys, meaning, runtime_keys, study_schema

ROOT = Path(__file__).resolve().parents[3]
DOCS = ROOT / "docs"


def _all_keys() -> dict[str, str]:
    """Every key of a study file, as the models' own dump has it, and its meaning."""
    found = {path: meaning(path, field) for path, field in keys()}
    return found | {path: meaning(path, field) for group in runtime_keys().values() for path, field in group}


def test_the_files_are_those_that_the_command_writes() -> None:
    remedy = "run python -m tuner.study.reference docs"
    assert (DOCS / PAGE).read_text(encoding="utf-8") == page(), remedy
    assert json.loads((DOCS / SCHEMA).read_text(encoding="utf-8")) == study_schema(), remedy


def test_no_key_is_without_a_meaning() -> None:
    assert [path for path, text in _all_keys().items() if not text] == []


def test_the_page_lists_every_key_of_a_dumped_study() -> None:
    study = {"name": "x", "model": {"path": "m.onnx"}, "data": {"images": "i", "annotations": "a", "calibration": "c"}}
    dumped = StudyConfig.model_validate(study).model_dump()
    paths = [path for section, value in dumped.items() for path in ([section] if not isinstance(value, dict) else
             [f"{section}.{key}" for key in value])]  # fmt: skip
    shown = set(re.findall(r"^\| `([\w.]+)` \|", page(), re.M))
    assert len(paths) > 45 and [path for path in paths if path not in shown] == []
    assert [path for path, field in keys() if "." in path and path not in shown] == []


def test_defaults_are_those_of_the_models() -> None:
    rows = dict(re.findall(r"^\| `([\w.]+)` \| .*? \| (.*?) \| [^|]*\|$", page(), re.M))
    assert rows["search.trials"] == "`100`" and rows["model.path"] == "required" and rows["search.hours"] == ""
    for path, field in keys():
        if path in rows and isinstance(field.default, (int, str)):
            assert rows[path] == f"`{json.dumps(field.default)}`", path


def _subschema(schema: dict, definitions: dict) -> dict:
    return definitions[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema


@pytest.mark.parametrize("path", sorted((ROOT / "studies").glob("*.yaml")), ids=lambda path: path.name)
def test_the_schema_knows_the_keys_of_the_studies(path: Path) -> None:
    schema = study_schema()
    for section, value in yaml.safe_load(path.read_text()).items():
        entry = _subschema(schema["properties"][section], schema["$defs"])
        if isinstance(value, dict):
            options = entry.get("anyOf", [entry])
            assert any(set(value) <= set(_subschema(option, schema["$defs"])["properties"]) for option in options), (
                section
            )


def test_a_description_beside_a_key_goes_before_the_table() -> None:
    from pydantic import Field

    class Theirs(BaseModel):
        """A section of another package."""

        speed: int = Field(default=1, description="How fast.")

    assert [(path, meaning(path, field)) for path, field in keys(Theirs, "runtime.")] == [
        ("runtime.speed", "How fast.")
    ]
