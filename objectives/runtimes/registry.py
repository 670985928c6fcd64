"""All runtimes by name; other packages add theirs by the entry point group ``tuner.runtimes``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from objectives.runtimes import DEFAULT_RUNTIME
from objectives.runtimes.engine_builder import EngineBuilder
from objectives.runtimes.names import BUILT_IN
from objectives.runtimes.runtime import Runtime
from objectives.runtimes.settings import RuntimeSettings, own_keys
from search_spaces.errors import nearest
from search_spaces.registry import Registry

RUNTIMES: Registry[type[Runtime]] = Registry("runtime", BUILT_IN, "tuner.runtimes")


def open_runtime(settings: RuntimeSettings) -> Runtime:
    """The runtime that settings belong to."""
    return RUNTIMES.get(settings.name)(settings)


def builds_engines(settings: RuntimeSettings) -> bool:
    """Whether the runtime that settings belong to compiles engines."""
    return issubclass(RUNTIMES.get(settings.name), EngineBuilder)


def ahead_of_time_builder() -> str:
    """Name of the runtime whose engines are built for GPUs that this machine need not have."""
    kinds = ((name, RUNTIMES.get(name)) for name in RUNTIMES.names())
    return next(name for name, kind in kinds if issubclass(kind, EngineBuilder) and kind.ahead_of_time)


def default_runtime(batch: int = 1) -> Runtime:
    """The one that is always there, on one thread; schemes are compared on it apart from their own runtime."""
    return open_runtime(parse_settings({"name": DEFAULT_RUNTIME, "batch": batch}))


def parse_settings(data: Mapping[str, Any] | RuntimeSettings) -> RuntimeSettings:
    """Reads a study's runtime section, by the settings of the runtime that it names.

    A key of another runtime may stand there as long as it holds its default: study files of older runs list all keys.

    Raises:
        pydantic.ValidationError: No such runtime, an unknown key, or a wrong value.
    """
    if isinstance(data, RuntimeSettings):
        return data
    given = dict(data)
    name = given.setdefault("name", DEFAULT_RUNTIME)
    if name not in RUNTIMES.names():
        hint = nearest(str(name), RUNTIMES.names())
        text = f"input should be {', '.join(map(repr, RUNTIMES.names()))}{hint}"
        raise _error("name", name, PydanticCustomError("unknown_runtime", "{text}", {"text": text}))
    kind = RUNTIMES.get(name).settings_type
    for key in [key for key in given if key not in kind.model_fields]:
        others = [other for other in RUNTIMES.built_in() if key in own_keys(RUNTIMES.get(other).settings_type)]
        defaults = [own_keys(RUNTIMES.get(other).settings_type)[key] for other in others]
        if others and given[key] not in defaults:
            text = f"{key} is only for {', '.join(others)}; leave it out for {name}"
            raise _error(key, given[key], PydanticCustomError("other_runtime", "{text}", {"text": text}))
        if not others:
            fields = list(kind.model_fields)
            text = f"unknown key{nearest(str(key), fields)} (known: {', '.join(fields)})"
            raise _error(str(key), given[key], PydanticCustomError("unknown_key", "{text}", {"text": text}))
        del given[key]
    return kind.model_validate(given)


def _error(key: str, value: Any, kind: PydanticCustomError) -> ValidationError:
    return ValidationError.from_exception_data("runtime", [InitErrorDetails(type=kind, loc=(key,), input=value)])
