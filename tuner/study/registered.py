"""Values of the study file that name an entry of a registry."""

from __future__ import annotations

from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from search_spaces.registry import Registry


class NameIn:
    """Marks a text as a name of a registry, for ``Annotated[str, ...]``; nothing is loaded.

    Its error is pydantic's own of a `Literal`, so that a name from a table and one from a fixed list read alike.
    """

    def __init__(self, registry: Registry[Any]) -> None:
        self._registry = registry

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """The project's own names; an editor takes those of other packages too."""
        return {"anyOf": [{"enum": list(self._registry.built_in())}, {"type": "string"}]}

    def _check(self, name: str) -> str:
        known = self._registry.names()
        if name not in known:
            listed = [repr(other) for other in known]
            expected = " or ".join(filter(None, (", ".join(listed[:-1]), listed[-1])))
            raise PydanticCustomError("literal_error", "Input should be {expected}", {"expected": expected})
        return name


def name_in(registry: Registry[Any]) -> NameIn:
    """Returns the mark of a registry's names."""
    return NameIn(registry)
