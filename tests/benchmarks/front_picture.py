"""The picture of a run for README and docs: loss against speed-up, as SVG.

    python tests/benchmarks/front_picture.py runs/demo docs/front.svg

Grey points are trials as the search measured them; blue ones are the front, scored on all images and timed again, with
the 95 % interval of the loss and the spread of the timing's rounds; the green one is recommended.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from html import escape
from pathlib import Path

from tuner.results.loaded import LoadedRun, load_run

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 760, 400, 64, 20, 56, 52
INK, FAINT, TRIAL, FRONT, BEST = "#475569", "#cbd5e1", "#94a3b8", "#2563eb", "#15803d"


@dataclass(frozen=True)
class Point:
    """One scheme: speed-up and loss in points, with the bounds of both where they are known."""

    speed: float
    loss: float
    speeds: tuple[float, float] | None = None
    losses: tuple[float, float] | None = None
    label: str = ""
    recommended: bool = False


def points(loaded: LoadedRun) -> tuple[list[Point], list[Point]]:
    """Trials as the search measured them, and the front as it was measured again."""
    reference, accuracy = loaded.reference, loaded.config.objective_set.maximised
    assert reference is not None
    whole = accuracy.value(reference)
    trials = [
        Point(1 / record.scores.latency.ratio, 100 * (whole - accuracy.value(record.scores)))
        for record in loaded.records
        if record.scores is not None and record.scores.latency is not None
    ]
    front = []
    for member in loaded.front:
        again, origin = member.rescore, member.record.origin
        if again is None or again.latency_ratio is None:
            continue
        losses = (-100 * again.interval[1], -100 * again.interval[0])
        speeds = (1 / max(again.ratios), 1 / min(again.ratios))
        label = origin.replace("uniform:", "uniform ") if origin.startswith("uniform") else ""
        label = "recommended" if member.recommended else label
        point = Point(1 / again.latency_ratio, -100 * again.difference, speeds, losses, label, member.recommended)
        front.append(point)
    return trials, front


def ticks(low: float, high: float) -> list[float]:
    """Round values between two bounds, about six."""
    step = next(s for s in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100) if (high - low) / s <= 7)
    return [step * i for i in range(round(low / step), round(high / step) + 1) if low <= step * i <= high]


def picture(loaded: LoadedRun) -> str:
    """Returns the SVG."""
    trials, front = points(loaded)
    spread = [value for p in front for value in (p.losses or ())]
    high = 1.15 * max([*(p.loss for p in front), *spread, 1.0])
    low = min([*(p.loss for p in front), *spread, 0.0]) - 0.1
    fast = 1.06 * max(p.speed for p in [*trials, *front])
    slow = 0.95 * min(1.0, *(p.speed for p in front))

    def x(speed: float) -> float:
        return round(LEFT + (speed - slow) / (fast - slow) * (WIDTH - LEFT - RIGHT), 1)

    def y(loss: float) -> float:
        return round(TOP + (loss - low) / (high - low) * (HEIGHT - TOP - BOTTOM), 1)

    def text(left: float, top: float, words: str, style: str = "") -> str:
        return f'<text x="{left}" y="{top}" {style}>{escape(words)}</text>'

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="system-ui,sans-serif" '
        f'font-size="13" fill="{INK}" role="img">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        text(LEFT, 24, f"{loaded.config.name}: what a scheme loses against how much faster it is", 'font-size="15"'),
        text(LEFT, 42, "up and to the right is better; bars are 95 % intervals and the spread of repeated timing"),
    ]
    for value in ticks(low, high):
        out += [f'<path d="M{LEFT} {y(value)}H{WIDTH - RIGHT}" stroke="{FAINT}"/>']
        out += [text(LEFT - 8, y(value) + 4, f"{value:g}", 'text-anchor="end"')]
    for value in ticks(slow, fast):
        out += [text(x(value), HEIGHT - BOTTOM + 20, f"{value:g}", 'text-anchor="middle"')]
    out += [
        text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 10, "times as fast as the unquantized model", 'text-anchor="middle"'),
        text(0, 0, "mAP50-95 lost, points", f'transform="translate(18 {HEIGHT / 2}) rotate(-90)" text-anchor="middle"'),
    ]
    inside = [p for p in trials if low <= p.loss <= high]
    out += [f'<circle cx="{x(p.speed)}" cy="{y(p.loss)}" r="3.5" fill="{TRIAL}" opacity=".55"/>' for p in inside]
    for p in front:
        assert p.speeds is not None and p.losses is not None
        colour = BEST if p.recommended else FRONT
        bars = f"M{x(p.speeds[0])} {y(p.loss)}H{x(p.speeds[1])}M{x(p.speed)} {y(p.losses[0])}V{y(p.losses[1])}"
        out += [f'<path d="{bars}" stroke="{colour}" opacity=".45"/>']
        out += [f'<circle cx="{x(p.speed)}" cy="{y(p.loss)}" r="{6 if p.recommended else 4.5}" fill="{colour}"/>']
        if p.label:
            out += [text(x(p.speed) + 9, y(p.loss) - 8, p.label, f'fill="{colour}" font-weight="600"')]
    left_out = len(trials) - len(inside)
    note = f"grey: {len(trials)} trials" + (f" ({left_out} lose more)" if left_out else "") + "; blue: the front"
    out += [text(WIDTH - RIGHT, 24, note, 'text-anchor="end" font-size="12"'), "</svg>"]
    return "\n".join(out) + "\n"


def main() -> None:
    """Writes the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("out", type=Path)
    asked = parser.parse_args()
    asked.out.write_text(picture(load_run(asked.run)), encoding="utf-8")


if __name__ == "__main__":
    main()
