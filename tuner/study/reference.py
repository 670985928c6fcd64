"""Writes the reference of the study file: ``python -m tuner.study.reference docs``."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import PydanticUndefined

from search_spaces.durable import write_durably
from search_spaces.markdown import code, table
from tuner.study.schema import Key, keys, meaning, runtime_keys, study_schema

PAGE, SCHEMA = "study.md", "study.schema.json"
_HEAD = ["key", "value", "default", "meaning"]
_BEGIN = """\
# The study file

<!-- Written by `python -m tuner.study.reference docs`; change tuner/study/meanings.py or the models instead. -->

A study file is YAML. Two keys have no default: `name` and `model.path`; what is evaluated on, `data.images`, is needed
by all runtimes that run models. Unknown keys and wrong types are errors that name the key. Paths are relative to the
file.
`tuner run STUDY.yaml --set KEY=VALUE` overrides a key, e.g. `--set search.trials=20`.

An editor with a YAML language server completes and checks keys by [study.schema.json](study.schema.json):

```yaml
# yaml-language-server: $schema=study.schema.json
name: mine
model: {path: best.onnx}
data: {images: data.yaml, calibration: calib.txt}
```

"""
_TYPES = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false"}
_BOUNDS = {"exclusiveMinimum": ">", "minimum": ">=", "exclusiveMaximum": "<", "maximum": "<="}


def page() -> str:
    """Returns the reference page, Markdown: every key with its type, default and meaning."""
    schema, parts = study_schema(), [_BEGIN]
    found = list(keys())
    top = [key for key in found if "." not in key[0]]
    plain = [key for key in top if not any(path.startswith(f"{key[0]}.") for path, _ in found) and key[0] != "runtime"]
    parts += ["## Top level\n\n", table(_HEAD, [_row(key, schema) for key in plain]), "\n"]
    for name, field in (key for key in top if key not in plain):
        parts += [f"## {name}\n\n{meaning(name, field)}\n\n"]
        if name == "runtime":
            parts += [_runtimes(schema)]
        else:
            inside = [key for key in found if key[0].startswith(f"{name}.")]
            parts += [table(_HEAD, [_row(key, schema) for key in inside]), "\n"]
    return "".join(parts).rstrip("\n") + "\n"


def _runtimes(schema: Mapping[str, Any]) -> str:
    parts = []
    for name, found in runtime_keys().items():
        if not found:
            continue
        title = f"Keys of `{name}` alone:" if name else "Keys of every runtime:"
        kinds = [kind["properties"] for kind in schema["properties"]["runtime"]["anyOf"]]
        own = {key: value for kind in kinds for key, value in kind.items()}
        rows = [_row(key, schema, own) for key in found]
        parts.append(f"{title}\n\n{table(_HEAD, rows)}\n")
    return "".join(parts)


def _row(key: Key, schema: Mapping[str, Any], own: Mapping[str, Any] | None = None) -> list[str]:
    path, field = key
    name = path.rpartition(".")[2]
    if path == "runtime.name":
        kinds = [kind["properties"]["name"]["const"] for kind in schema["properties"]["runtime"]["anyOf"]]
        return [code(path), _one_of(kinds), code(kinds[0]), meaning(path, field)]
    entry = own[name] if own is not None else _entry(schema, path)
    return [code(path), _words(entry, schema), _default(field), meaning(path, field)]


def _entry(schema: Mapping[str, Any], path: str) -> JsonSchemaValue:
    """Where a key stands in the schema."""
    level: Mapping[str, Any] = schema
    for name in path.split("."):
        level = _section(level, schema)["properties"][name]
    return dict(level)


def _section(entry: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """The mapping that an entry is, or a list or a union of."""
    for each in (entry, entry.get("items", {}), *entry.get("anyOf", ())):
        found = schema["$defs"][each["$ref"].rpartition("/")[2]] if "$ref" in each else each
        if "properties" in found:
            return dict(found)
    raise LookupError(f"no section: {entry}")


def _words(entry: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    """A type for people."""
    if "enum" in entry:
        return _one_of(entry["enum"])
    if "$ref" in entry:
        return "section"
    if "anyOf" in entry:
        kinds = [each for each in entry["anyOf"] if each.get("type") != "null"]
        if any("enum" in each for each in kinds):
            kinds = [each for each in kinds if "enum" in each]
        return " or ".join(_words(each, schema) for each in kinds)
    if entry.get("type") == "array":
        return f"list of: {_words(entry['items'], schema)}"
    text = _TYPES[entry["type"]]
    bounds = [f"{sign} {entry[key]:.10g}" for key, sign in _BOUNDS.items() if key in entry]
    return f"{text} {', '.join(bounds)}".strip()


def _one_of(names: list[str]) -> str:
    return ", ".join(code(name) for name in names)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=False)
    if value is None:
        return ""
    if isinstance(value, list):
        return _one_of(value) or "none"
    return "" if value is PydanticUndefined or hasattr(value, "model_dump") else code(json.dumps(value))


def main(folder: Path) -> None:
    """Writes both files."""
    write_durably(folder / PAGE, page())
    write_durably(folder / SCHEMA, json.dumps(study_schema(), indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
