"""Values of the study file that name an entry of a registry."""

from __future__ import annotations

from typing import Any

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

from search_spaces.registry import Registry


def name_in(registry: Registry[Any]) -> AfterValidator:
    """Returns a validator of names, for ``Annotated[str, ...]``; nothing is loaded.

    Its error is pydantic's own of a `Literal`, so that a name from a table and one from a fixed list read alike.
    """

    def check(name: str) -> str:
        known = registry.names()
        if name not in known:
            listed = [repr(other) for other in known]
            expected = " or ".join(filter(None, (", ".join(listed[:-1]), listed[-1])))
            raise PydanticCustomError("literal_error", "Input should be {expected}", {"expected": expected})
        return name

    return AfterValidator(check)
