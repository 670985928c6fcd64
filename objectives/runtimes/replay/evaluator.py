"""Replayed scores: an evaluator without hardware, for tests, demonstrations and sampler benchmarks."""

from __future__ import annotations

import hashlib
import math
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any

from objectives.scores import Accuracy, Failure, Latency, Scores, Size
from search_spaces.allocation import Allocation
from search_spaces.costs import CostTable
from search_spaces.errors import InputError
from search_spaces.formats import FORMATS, UNQUANTIZED, Format, get_format
from search_spaces.layers import Layer
from search_spaces.reading import read_json, record_of
from search_spaces.sensitivity import SensitivityEntry, SensitivityTable


@dataclass(frozen=True)
class ReplaySettings:
    """What is replayed.

    Attributes:
        seed: Of the synthetic model; equal seeds give equal scores.
        delay: Seconds that an evaluation takes.
        reference_map: mAP50-95 of the unquantized model.
        reference_ms: Its latency, milliseconds.
        noise: Standard deviation of the mAP of a scheme, in mAP; fixed by the scheme.
        jitter: Half the width of the latency ratio's interval, as a share; above 0 every latency is a noisy one.
        failures: ``{allocation digest or "*": failure kind}``.
        scores: ``{allocation digest: recorded scores}``; these win over the synthetic model.
    """

    seed: int = 0
    delay: float = 0.0
    reference_map: float = 0.45
    reference_ms: float = 100.0
    noise: float = 0.001
    jitter: float = 0.0
    failures: Mapping[str, str] = field(default_factory=dict)
    scores: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @staticmethod
    def read(path: Path | None) -> ReplaySettings:
        """Reads the settings from a JSON file; without one, all are defaults.

        Raises:
            InputError: The file is not such an object.
        """
        if path is None:
            return ReplaySettings()
        remedy = "see objectives/runtimes/replay/evaluator.py"
        settings = record_of(ReplaySettings, read_json(path, remedy), str(path), remedy)
        numbers = (settings.delay, settings.reference_map, settings.reference_ms, settings.noise, settings.jitter)
        if not all(math.isfinite(number) and number >= 0 for number in numbers):
            raise InputError(f"{path}: holds a number that is negative or not finite; {remedy}")
        return settings


class ReplayEvaluator:
    """Scores allocations by a seeded additive model, with the interface of the real evaluator.

    Every (layer, format) has a harm that adds up to the loss of mAP, and a share of the latency; neighbouring
    layers in different formats cost a reformat.
    """

    def __init__(self, layers: Sequence[Layer], settings: ReplaySettings) -> None:
        self._layers = tuple(layers)
        self._settings = settings
        draw = random.Random(settings.seed)
        self._harm = {layer.name: 0.002 * math.exp(draw.gauss(0.0, 1.2)) for layer in self._layers}
        macs = sum(layer.macs for layer in self._layers) or 1
        self._share = {layer.name: max(layer.macs, 1) / macs for layer in self._layers}

    def __enter__(self) -> ReplayEvaluator:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def reference(self) -> Scores:
        """Scores of the unquantized model."""
        return self._scores(Allocation.uniform([layer.name for layer in self._layers], UNQUANTIZED))

    def evaluate(
        self, allocation: Allocation, reference: Scores, front: Mapping[str, Scores] | None = None
    ) -> Scores | Failure:
        """Scores of one allocation, after the configured delay; `front` changes nothing, for there are no images."""
        time.sleep(self._settings.delay)
        kind = self._settings.failures.get(allocation.digest, self._settings.failures.get("*"))
        if kind is not None and not allocation.unquantized:
            return Failure(kind, f"replayed {kind}")
        return self._scores(allocation)

    def sensitivity(self, formats: Sequence[str], model: str) -> SensitivityTable:
        """A prior that ranks the layers almost as they are: harm times a seeded error."""
        draw = random.Random(self._settings.seed + 1)
        entries = tuple(
            SensitivityEntry(layer.name, fmt, self._loss(layer.name, fmt) * math.exp(draw.gauss(0.0, 0.5)))
            for layer in self._layers
            for fmt in formats
            if fmt != UNQUANTIZED
        )
        return SensitivityTable("replay", "synthetic", model, 0, entries, {"seed": str(self._settings.seed)})

    def costs(self) -> CostTable:
        """The latency of each choice as this evaluator adds it up, reformats aside."""
        unit = self._settings.reference_ms
        shares = {
            (name, fmt): unit * share * _speed(FORMATS[fmt]) for name, share in self._share.items() for fmt in FORMATS
        }
        return CostTable("ms", shares, "replay")

    def _loss(self, layer: str, fmt: str) -> float:
        bits = get_format(fmt).weight.bits
        activations = 1.5 if get_format(fmt).quantizes_activation else 1.0
        return 0.0 if fmt == UNQUANTIZED else self._harm[layer] * 8.0 ** (2 - bits / 4) * activations

    def _scores(self, allocation: Allocation) -> Scores:
        if allocation.digest in self._settings.scores:
            return Scores.from_json(self._settings.scores[allocation.digest])
        formats = allocation.formats
        loss = sum(self._loss(layer, fmt) for layer, fmt in formats.items())
        draw = random.Random(f"{self._settings.seed}:{allocation.digest}")
        noise = 0.0 if allocation.unquantized else draw.gauss(0.0, self._settings.noise)
        best = self._settings.reference_map
        score = min(1.0, max(0.0, best * math.exp(-loss / best) + noise))
        ratio = sum(share * _speed(get_format(formats.get(name, UNQUANTIZED))) for name, share in self._share.items())
        names = [formats.get(layer.name, UNQUANTIZED) for layer in self._layers]
        ratio += 0.02 * sum(a != b for a, b in pairwise(names)) / max(1, len(names))
        elements = sum(layer.parameters for layer in self._layers)
        bits = sum(get_format(formats.get(x.name, UNQUANTIZED)).weight.bits * x.parameters for x in self._layers)
        reference, jitter = self._settings.reference_ms, self._settings.jitter
        p50 = reference * ratio
        return Scores(
            accuracy=Accuracy(metrics={**_figures(score), "agreement": math.exp(-loss)}, images=0),
            latency=Latency(
                *(p50, 1.01 * p50, 1.02 * p50, p50, 0.01, 100, ratio, reference),
                noisy=jitter > 0,
                ratio_low=ratio * (1 - jitter),
                ratio_high=ratio * (1 + jitter),
            ),
            size=Size(bits // 8, bits / max(1, elements), elements),
            latency_ms=p50,
            agreement=math.exp(-loss),
            artifact=hashlib.sha256(allocation.text.encode()).hexdigest(),
            broken=score < 0.1 * best,
            seconds={"evaluate": self._settings.delay},
        )


def _figures(score: float) -> dict[str, float]:
    """COCO's figures of a model whose mAP50-95 is `score`."""
    alike = dict.fromkeys(("map_75", "map_small", "map_medium", "map_large"), score)
    return {"map_50_95": score, "map_50": min(1.0, 1.35 * score), **alike}


def _speed(fmt: Format) -> float:
    """Time of a layer, in times of the unquantized one: only activations that are quantized too make it faster."""
    if not fmt.quantizes_activation:
        return 1.0
    if fmt.weight != fmt.activation:
        return 0.55
    return 0.45 if fmt.activation.is_integer else 0.5
