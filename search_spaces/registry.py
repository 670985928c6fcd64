"""Registries: named things that are loaded when they are asked for, and that other packages can add to."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import import_module, metadata
from typing import Any, Generic, TypeVar

from search_spaces.errors import InputError, nearest

T = TypeVar("T")


class Registry(Generic[T]):
    """Things of one kind by name.

    A name is told without importing what it names: the heavy package behind it is loaded by `get` alone.

    Args:
        what: The kind, as messages name it, e.g. ``runtime``.
        built_in: ``{name: "module:attribute"}``.
        group: Entry point group in which other packages declare theirs; a built-in name cannot be taken over.
    """

    def __init__(self, what: str, built_in: Mapping[str, str], group: str) -> None:
        self.what = what
        self.group = group
        self._built_in = dict(built_in)

    def names(self) -> tuple[str, ...]:
        """All names, the built-in ones first, in their order."""
        return tuple(dict.fromkeys([*self._built_in, *(point.name for point in _points(self.group))]))

    def built_in(self) -> tuple[str, ...]:
        """The names that the project itself brings."""
        return tuple(self._built_in)

    def get(self, name: str) -> T:
        """Loads the thing of that name.

        Raises:
            InputError: There is none, or its package cannot be loaded.
        """
        if name in self._built_in:
            module, _, attribute = self._built_in[name].partition(":")
            found: Any = getattr(import_module(module), attribute)
            return found  # type: ignore[no-any-return]
        for point in _points(self.group):
            if point.name == name:
                try:
                    loaded: Any = point.load()
                except (ImportError, AttributeError) as error:
                    raise InputError(
                        f"{self.what} {name!r}: {point.value} cannot be loaded ({error}); reinstall its package"
                    ) from None
                return loaded  # type: ignore[no-any-return]
        raise InputError(f"{self.what} {name!r} is not one of {', '.join(self.names())}{nearest(name, self.names())}")

    def check(self, name: str) -> str:
        """The name, if it is one; nothing is loaded.

        Raises:
            InputError: As `get`.
        """
        if name not in self.names():
            known = ", ".join(self.names())
            raise InputError(f"{self.what} {name!r} is not one of {known}{nearest(name, self.names())}")
        return name


@cache
def _points(group: str) -> tuple[metadata.EntryPoint, ...]:
    return tuple(metadata.entry_points(group=group))
