"""The one table of units: how every quantity is written for people, whoever shows it.

| quantity | unit | written |
| --- | --- | --- |
| accuracy (mAP, agreement) | points: hundredths | ``43.2`` |
| its change against the unquantized model | points, with a sign | ``−0.4`` |
| latency of one batch | ms | ``3.79`` |
| speed-up over the unquantized model | x | ``1.84x`` |
| size of weights or engine | MiB | ``3.28`` |
| bits of a weight, on average | bits | ``8.1`` |

JSON, CSV and Python keep accuracies and drops as shares in [0, 1], and sizes of weights in bytes.
"""

from __future__ import annotations

MIB = float(2**20)
#: Where there is no figure.
NONE = "–"


def accuracy(value: float) -> str:
    """An accuracy in points; a dash where COCO has none (-1)."""
    return f"{100 * value:.1f}" if value >= 0 else NONE


def budget(value: float) -> str:
    """What of an accuracy may be lost, in points, to the digit that was asked for: ``0.25`` for 0.0025."""
    return str(round(100 * value, 6))


def lost(value: float) -> str:
    """The same as the change that it allows, e.g. ``−0.25``."""
    return f"{'−' if value else '±'}{budget(value)}"


def change(value: float) -> str:
    """A change of accuracy in points with its sign, e.g. ``−0.4`` for -0.004."""
    rounded = round(100 * value, 1)
    return f"{'−' if rounded < 0 else '+' if rounded > 0 else '±'}{abs(rounded):.1f}"


def interval(low: float, high: float) -> str:
    """An interval of changes, in points."""
    return f"{change(low)} to {change(high)}"


def speedup(value: float) -> str:
    """How many times as fast."""
    return f"{value:.2f}x"


def mib(size: float) -> str:
    """Bytes in MiB."""
    return f"{size / MIB:.2f}"


def bits(value: float) -> str:
    """Average bits of a weight."""
    return f"{value:.1f}"
