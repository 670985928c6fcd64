"""Refined numbers of one scheme: what replaces the weights and ranges that all schemes of a study share."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from objectives.quantization.qdq import QuantParams
from objectives.quantization.recovery import Recovered, load_recovered, save_recovered
from search_spaces.durable import write_durably
from search_spaces.errors import InputError
from search_spaces.reading import parse_json, record_of
from search_spaces.regular import read_regular

_REMEDY = "refine the scheme again"


@dataclass(frozen=True)
class Refined:
    """Better numbers for the very same codes' grids, pairs and graph.

    Attributes:
        weights: ``{weight_key: weight}`` of the quantized layers.
        pairs: ``{(tensor, number format): parameters}`` of the Q/DQ pairs of activations.
        dialect: Name of the dialect whose pairs they are.
    """

    weights: Mapping[str, Recovered]
    pairs: Mapping[tuple[str, str], QuantParams]
    dialect: str


@dataclass(frozen=True)
class _Pair:
    tensor: str
    number: str
    params: QuantParams


@dataclass(frozen=True)
class _Pairs:
    dialect: str
    pairs: tuple[_Pair, ...]


def save_refined(folder: Path, refined: Refined) -> str:
    """Writes ``weights.npz`` and ``ranges.json`` into a folder that exists; returns the key of these very numbers."""
    weights = save_recovered(folder / "weights.npz", refined.weights)
    pairs = tuple(_Pair(*key, params) for key, params in refined.pairs.items())
    ranges = json.dumps(asdict(_Pairs(refined.dialect, pairs)))
    write_durably(folder / "ranges.json", ranges)
    return hashlib.sha256(weights + ranges.encode()).hexdigest()[:16]


def load_refined(folder: Path) -> Refined:
    """Reads what `save_refined` wrote.

    Raises:
        InputError: A file is missing or damaged.
    """
    path = folder / "ranges.json"
    try:
        data = read_regular(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); {_REMEDY}") from None
    held = record_of(_Pairs, parse_json(data, str(path), _REMEDY), str(path), _REMEDY)
    pairs = {(pair.tensor, pair.number): pair.params for pair in held.pairs}
    return Refined(load_recovered(folder / "weights.npz"), pairs, held.dialect)
