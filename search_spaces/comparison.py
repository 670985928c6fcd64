"""Compares rankings of layers: sensitivity methods with each other, and with what one layer really cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import stats

from search_spaces import markdown
from search_spaces.reading import parse_json, record_of

TOP_SHARE = 0.2
_RESAMPLES = 2000


@dataclass(frozen=True)
class Ranking:
    """One method's scores of one format.

    Attributes:
        method: Its name, e.g. ``modelopt-gradient``.
        format: The format that was scored.
        scores: ``{layer: score}``; higher is more sensitive.
        seconds: Wall time of all its measurements.
    """

    method: str
    format: str
    scores: Mapping[str, float]
    seconds: float


@dataclass(frozen=True)
class Agreement:
    """How far two rankings agree, on the layers that both hold.

    Attributes:
        first: Name of one.
        second: Name of the other.
        layers: Number of common layers.
        spearman: Rank correlation, in [-1, 1]; NaN where one is constant.
        kendall: Kendall's tau-b, in [-1, 1].
        overlap: Share of the most sensitive fifth that is common to both, in [0, 1].
    """

    first: str
    second: str
    layers: int
    spearman: float
    kendall: float
    overlap: float


@dataclass(frozen=True)
class MeasuredDrop:
    """What one layer in one format cost, alone.

    Attributes:
        layer: Its name.
        format: The format.
        drop: mAP50-95 of the unquantized model minus that of this one, in [-1, 1].
        disagreement: 1 - agreement of the detections with the unquantized model's, in [0, 1]; far less noisy.
        seconds: Wall time of scoring it.
    """

    layer: str
    format: str
    drop: float
    disagreement: float
    seconds: float


def agree(first: Ranking, second: Ranking) -> Agreement:
    """Compares two rankings.

    Raises:
        ValueError: They have fewer than 3 layers in common.
    """
    common = [layer for layer in first.scores if layer in second.scores]
    if len(common) < 3:
        raise ValueError(f"{first.method} and {second.method} have {len(common)} layers in common, fewer than 3")
    a = [first.scores[layer] for layer in common]
    b = [second.scores[layer] for layer in common]
    count = max(1, round(TOP_SHARE * len(common)))
    tops = [set(sorted(common, key=lambda x, r=r: -r.scores[x])[:count]) for r in (first, second)]  # type: ignore[misc]
    return Agreement(
        first.method,
        second.method,
        len(common),
        float(stats.spearmanr(a, b).statistic),
        float(stats.kendalltau(a, b).statistic),
        len(tops[0] & tops[1]) / count,
    )


def sample_layers(ranking: Ranking, count: int) -> list[str]:
    """Layers spread evenly over a ranking, its two ends among them, so that a sample holds good and bad ones."""
    ordered = sorted(ranking.scores, key=lambda layer: -ranking.scores[layer])
    if count >= len(ordered):
        return ordered
    return [ordered[round(i * (len(ordered) - 1) / max(1, count - 1))] for i in range(count)]


@dataclass(frozen=True)
class Comparison:
    """All that `tuner compare` finds.

    Attributes:
        model: Digest of the model.
        images: Images that the drops were measured on.
        format: Format of the measured drops.
        rankings: Of every method; of `format` where the method scores it, else of what it does score.
        pairs: Among the methods, each pair in a format that both score.
        drops: Measured, one layer at a time.
        against_drop: Each method against the measured drop of mAP.
        against_disagreement: Each method against the measured disagreement.
    """

    model: str
    images: int
    format: str
    rankings: tuple[Ranking, ...]
    pairs: tuple[Agreement, ...]
    drops: tuple[MeasuredDrop, ...]
    against_drop: tuple[Agreement, ...]
    against_disagreement: tuple[Agreement, ...]

    @property
    def best(self) -> str:
        """The method to use as a prior.

        It is the one that ranks the measured disagreement best: mAP drops of single layers are mostly noise.
        """
        return max(self.against_disagreement, key=lambda entry: (entry.spearman, entry.kendall)).first

    @property
    def not_told_apart(self) -> list[str]:
        """Methods that so few layers do not tell from the best.

        Those where the 95 % interval of the difference of the two rank correlations, by a paired bootstrap over the
        measured layers, holds 0.
        """
        best = next(r for r in self.rankings if r.method == self.best)
        return [r.method for r in self.rankings if r is not best and not self._worse(r, best)]

    def _worse(self, ranking: Ranking, best: Ranking) -> bool:
        common = [d for d in self.drops if d.layer in ranking.scores and d.layer in best.scores]
        table = np.array([[d.disagreement, best.scores[d.layer], ranking.scores[d.layer]] for d in common])
        draw = np.random.default_rng(0)
        gaps = []
        for _ in range(_RESAMPLES):
            rows = stats.rankdata(table[draw.integers(0, len(table), len(table))], axis=0)
            if rows.std(0).min() > 0:
                own = np.corrcoef(rows.T)[0]
                gaps.append(own[1] - own[2])
        return bool(gaps) and float(np.percentile(gaps, 2.5)) > 0

    def to_json(self) -> dict[str, Any]:
        """Returns a JSON object."""
        return {
            "model": self.model,
            "images": self.images,
            "format": self.format,
            "methods": [{**vars(r), "scores": dict(r.scores)} for r in self.rankings],
            "pairs": [asdict(entry) for entry in self.pairs],
            "against_drop": [asdict(entry) for entry in self.against_drop],
            "against_disagreement": [asdict(entry) for entry in self.against_disagreement],
            "drops": [asdict(entry) for entry in self.drops],
            "use": self.best,
            "not_told_apart": self.not_told_apart,
        }

    @staticmethod
    def from_json(text: str) -> Comparison:
        """Reads what `to_json` gave.

        Raises:
            InputError: The text is not such a comparison.
        """
        name, remedy = "comparison", "make it again by `tuner compare`"
        data = parse_json(text, name, remedy)
        if isinstance(data, dict) and "methods" in data:
            data = {**data, "rankings": data["methods"]}
        return record_of(Comparison, data, name, remedy)

    def to_markdown(self) -> str:
        """Returns a report: which prior to use, each method against what was measured, the methods among themselves."""
        drops = {entry.first: entry for entry in self.against_drop}
        other = {entry.first: entry for entry in self.against_disagreement}
        same = self.not_told_apart
        lines = [
            "# Sensitivity methods compared",
            "",
            f"Use **{self.best}** as the prior: over {len(self.drops)} layers it ranks the measured damage best."
            + (f" These layers are too few to tell it from {', '.join(same)}." if same else ""),
            "",
            f"Measured: one layer at a time in {self.format} on {self.images} labelled images. mAP drops of single "
            "layers are mostly noise; the disagreement with the unquantized model's detections is not.",
            "",
            markdown.table(
                ["method", "scored", "seconds", "mAP drop: Spearman", "Kendall", "disagreement: Spearman", "Kendall"],
                [
                    [r.method, r.format, f"{r.seconds:.0f}", *_numbers(drops[r.method]), *_numbers(other[r.method])]
                    for r in self.rankings
                ],
            ),
            "## Among the methods",
            "",
            markdown.table(
                ["methods", "layers", "Spearman", "Kendall", "common in the top fifth"],
                [
                    [f"{p.first} / {p.second}", str(p.layers), *_numbers(p), f"{100 * p.overlap:.0f} %"]
                    for p in self.pairs
                ],
            ),
            "## Measured layers",
            "",
            markdown.table(
                ["layer", "mAP drop, points", "disagreement, %", *(r.method for r in self.rankings)],
                [
                    [
                        markdown.code(d.layer),
                        f"{100 * d.drop:+.2f}",
                        f"{100 * d.disagreement:.2f}",
                        *(_rank(r, d.layer) for r in self.rankings),
                    ]
                    for d in sorted(self.drops, key=lambda entry: -entry.disagreement)
                ],
            ),
            "Columns of methods hold a layer's rank, 1 the most sensitive.",
            "",
        ]
        return "\n".join(lines)


def compare(
    model: str, images: int, fmt: str, tables: Sequence[Sequence[Ranking]], drops: Sequence[MeasuredDrop]
) -> Comparison:
    """Compares methods.

    Args:
        model: Digest of the model.
        images: Images of `drops`.
        fmt: Format of `drops`.
        tables: Per method its rankings, one per format that it scores.
        drops: At least 3.
    """
    chosen = tuple(next((r for r in rankings if r.format == fmt), rankings[0]) for rankings in tables)
    pairs = []
    for index, first in enumerate(tables):
        for second in tables[index + 1 :]:
            both = [(a, b) for a in first for b in second if a.format == b.format]
            if both:
                preferred = next((pair for pair in both if pair[0].format == fmt), both[0])
                pairs.append(agree(*preferred))
    observed = Ranking("measured drop", fmt, {d.layer: d.drop for d in drops}, 0.0)
    closer = Ranking("measured disagreement", fmt, {d.layer: d.disagreement for d in drops}, 0.0)
    return Comparison(
        model,
        images,
        fmt,
        chosen,
        tuple(pairs),
        tuple(drops),
        tuple(agree(ranking, observed) for ranking in chosen),
        tuple(agree(ranking, closer) for ranking in chosen),
    )


def _numbers(entry: Agreement) -> list[str]:
    return [f"{entry.spearman:+.2f}", f"{entry.kendall:+.2f}"]


def _rank(ranking: Ranking, layer: str) -> str:
    if layer not in ranking.scores:
        return ""
    return str(1 + sum(score > ranking.scores[layer] for score in ranking.scores.values()))
