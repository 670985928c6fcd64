"""What a runtime can do with a number format."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class SupportKind(Enum):
    """How far a runtime goes with a format."""

    COMPUTES = "computes"  # in kernels of that format: faster
    STORES = "stores"  # weights are unpacked before they are used: smaller, no faster
    IMPOSSIBLE = "impossible"


@dataclass(frozen=True)
class Support:
    """What a runtime does with a format, and why no more.

    Attributes:
        kind: How far it goes.
        text: Why it goes no further; empty where it computes.
    """

    kind: SupportKind
    text: str = ""


COMPUTES = Support(SupportKind.COMPUTES)
