"""Reads a checkpoint's pickle with stand-ins for everything that it names, before anything of it is made.

PyTorch's restricted unpickler asks whether a name is allowed, not what is done with it: it calls an allowed class with
the arguments of the file, so that its constructor acts, or takes all memory. Here the same bytes are run once where
classes and functions are empty, and what they do is compared with what detectors are made of (`known_classes`).
"""

from __future__ import annotations

import _compat_pickle
import io
import math
import pickle
import re
from collections.abc import Mapping
from typing import Any

from objectives.torch_models.known_classes import CALLED, DTYPE, MADE, STORAGES

_REBUILD = "torch._utils._rebuild_tensor_v2"
_DIMENSIONS = 64  # PyTorch takes no more
_VIEWS = 2  # tensors may see each element of a storage so many times, all together


class RefusedError(ValueError):
    """The pickle does what no detector needs; says what."""


def check_pickle(data: bytes, records: Mapping[str, int]) -> None:
    """Checks what a pickle would do.

    Args:
        data: The pickle.
        records: Bytes of each storage of the archive, by its key.

    Raises:
        RefusedError: It asks for a name, a call or a tensor that no detector needs.
        Exception: It is no pickle, whatever the unpickler says then.
    """
    reader = _Reader(data, records)
    reader.load()
    if reader.seen > _VIEWS * sum(reader.stored.values()):
        raise RefusedError("makes its tensors of the same numbers again and again")


class _StandIn(type):
    """The class of what stands for a class or a function; calling it is judged, never done."""

    full: str
    reader: _Reader

    def __call__(cls, *arguments: Any, **keywords: Any) -> Any:
        cls.reader.judge_call(cls.full, arguments)
        return object.__new__(cls)  # type: ignore[arg-type]


class _Nothing(metaclass=_StandIn):
    """Takes whatever a pickle fills in."""

    def __new__(cls, *arguments: Any) -> _Nothing:
        cls.reader.judge_making(cls.full, arguments)
        return object.__new__(cls)

    def __setstate__(self, state: Any) -> None:
        """Forgets it."""

    def __setitem__(self, key: Any, value: Any) -> None:
        """Forgets it."""

    def append(self, value: Any) -> None:
        """Forgets it."""

    def extend(self, values: Any) -> None:
        """Forgets them."""


class _Reader(pickle._Unpickler):
    def __init__(self, data: bytes, records: Mapping[str, int]) -> None:
        super().__init__(io.BytesIO(data))
        self._records = records
        self._known: dict[str, _StandIn] = {}
        self.stored: dict[str, int] = {}  # elements of each storage
        self.seen = 0  # elements of all tensors

    def find_class(self, module_name: str, global_name: str) -> Any:
        """A stand-in, for names that are on the list."""
        module, name = _compat_pickle.NAME_MAPPING.get(
            (module_name, global_name), (_compat_pickle.IMPORT_MAPPING.get(module_name, module_name), global_name)
        )
        full = f"{module}.{name}"
        if full not in self._known:
            if not (full in MADE or full in CALLED or full in STORAGES or full == _REBUILD or DTYPE.fullmatch(full)):
                raise RefusedError(f"asks for {full}")
            self._known[full] = _StandIn("StandIn", (_Nothing,), {"full": full, "reader": self})
        return self._known[full]

    def persistent_load(self, pid: Any) -> Any:
        """The place of a storage, as large as its record."""
        _, kind, key, _, count = pid
        if not isinstance(count, int) or count < 0 or count * STORAGES[kind.full] > self._records.get(key, 0):
            raise RefusedError(f"claims {count!r} numbers for the storage {key!r}, which holds fewer")
        self.stored[key] = count
        return ("storage", count)

    def judge_call(self, name: str, arguments: tuple[Any, ...]) -> None:
        """Refuses a call that no detector needs."""
        if name == _REBUILD:
            self._judge_tensor(*arguments)
        elif name not in CALLED or not _fits(CALLED[name], arguments):
            raise RefusedError(f"calls {name} with arguments of its own")

    def judge_making(self, name: str, arguments: tuple[Any, ...]) -> None:
        """Refuses an instance of what is no part of a detector, or one that is made of something."""
        if name not in MADE or arguments:
            raise RefusedError(f"makes {name}{' of something' if arguments else ''}")

    def _judge_tensor(self, storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> None:
        """Refuses a tensor that is larger than what it is stored in: each copy of it would be."""
        place, held = storage
        count = math.prod(size[:_DIMENSIONS])
        if place != "storage" or offset < 0 or min([*size, *stride], default=0) < 0 or count > held:
            raise RefusedError(f"makes a tensor of {count} numbers from {held}")
        self.seen += count


def _fits(pattern: re.Pattern[str] | None, arguments: tuple[Any, ...]) -> bool:
    if pattern is None:
        return True
    return all(isinstance(each, (str, int)) for each in arguments) and bool(pattern.fullmatch(repr(arguments)))
