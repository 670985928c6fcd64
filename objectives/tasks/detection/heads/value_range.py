"""Bounds of values, through the operators that work on each of them by itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf, isnan

Range = tuple[float, float]
ANY: Range = (-inf, inf)
SHARE: Range = (0.0, 1.0)


def _corners(values: Range, others: Sequence[Range], operate: Callable[[float, float], float]) -> Range:
    other = others[0] if others else (-inf, inf)
    found = [operate(a, b) for a in values for b in other]
    return ANY if any(map(isnan, found)) else (min(found), max(found))


def _subtract(values: Range, others: Sequence[Range], position: int) -> Range:
    low, high = _corners(values, others, lambda a, b: a - b)
    return (low, high) if position == 0 else (-high, -low)


def _divide(values: Range, others: Sequence[Range], position: int) -> Range:
    divisor = others[0] if others else ANY
    if position or divisor[0] <= 0 <= divisor[1]:
        return ANY
    return _corners(values, others, lambda a, b: a / b)


def _power(values: Range, others: Sequence[Range], position: int) -> Range:
    if position or others != [(2.0, 2.0)]:
        return ANY
    return _corners(values, [values], lambda a, b: a * b) if values[0] >= 0 else (0.0, max(x * x for x in values))


def _clip(values: Range, others: Sequence[Range], position: int) -> Range:
    return (max(values[0], others[0][0]), min(values[1], others[1][1])) if len(others) == 2 else values


#: Per operator what becomes of a range, given those of its constants and the place of the data among its inputs.
CHANGES: dict[str, Callable[[Range, Sequence[Range], int], Range]] = {
    "Sigmoid": lambda values, others, position: SHARE,
    "HardSigmoid": lambda values, others, position: SHARE,
    "Exp": lambda values, others, position: (0.0, inf),
    "Relu": lambda values, others, position: (max(values[0], 0.0), max(values[1], 0.0)),
    "Mul": lambda values, others, position: _corners(values, others, lambda a, b: a * b),
    "Add": lambda values, others, position: _corners(values, others, lambda a, b: a + b),
    "Sub": _subtract,
    "Div": _divide,
    "Pow": _power,
    "Clip": _clip,
}
