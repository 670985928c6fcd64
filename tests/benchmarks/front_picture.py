"""The picture of a run for README and docs: loss against speed-up, as SVG.

    python tests/benchmarks/front_picture.py runs/demo docs/front.svg

Every scheme stands at its latest figures. The front, without what noise cannot tell from another member, and the
uniform schemes have the 95 % interval of their loss and the spread of timing, where they were measured again.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from html import escape
from pathlib import Path

from tuner.report.labels import place
from tuner.report.view import Run
from tuner.results.loaded import load_run
from tuner.results.reporting import read_baselines, run_summary
from tuner.search.records import FrontMember

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 760, 420, 64, 20, 74, 52
INK, FAINT, TRIAL, FRONT, BEST, UNIFORM = "#475569", "#cbd5e1", "#94a3b8", "#2563eb", "#15803d", "#7a4fbf"
PARTS = [n / 12 for n in range(13)]  # of a bar
CHARACTER = 9.5  # mean width of a bold letter of 13 pixels, in a wide face


@dataclass(frozen=True)
class Point:
    """One scheme: how many times as fast it is and the points that it loses, with the bounds of both."""

    speed: float
    loss: float
    speeds: tuple[float, float]
    losses: tuple[float, float]
    colour: str
    label: str = ""

    @staticmethod
    def of(run: Run, member: FrontMember, colour: str, label: str = "") -> Point:
        """The latest figures of a scheme; the bounds are the figures where it was not measured again."""
        found = run.standing(member)
        assert found.speedup is not None and found.latency_ms is not None
        reference = found.speedup * found.latency_ms
        fast, slow = found.latency_interval or (found.latency_ms, found.latency_ms)
        low, high = found.change_interval or (found.change, found.change)
        bounds = (reference / slow, reference / fast), (-100 * high, -100 * low)
        return Point(found.speedup, -100 * found.change, *bounds, colour, label)


def points(run: Run) -> tuple[list[Point], list[Point]]:
    """The trials, and what stands out of them: the recommended scheme, the uniform ones, the rest of the front."""
    chosen: dict[int, Point] = {}
    if run.named is not None:
        chosen[run.named.record.number] = Point.of(run, run.named, BEST, "recommended")
    for member in run.uniform:
        name = member.record.origin.replace(":", " ")
        chosen.setdefault(member.record.number, Point.of(run, member, UNIFORM, name))
    for member in run.shown:
        if member.record is not run.reference:
            chosen.setdefault(member.record.number, Point.of(run, member, FRONT))
    others = [r for r in run.complete if r.number not in chosen and r is not run.reference]
    return [Point.of(run, run.member(record), TRIAL) for record in others], list(chosen.values())


def ticks(low: float, high: float) -> list[float]:
    """Round values between two bounds, about six."""
    step = next(s for s in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100) if (high - low) / s <= 7)
    return [step * i for i in range(round(low / step), round(high / step) + 1) if low <= step * i <= high]


def picture(run: Run) -> str:
    """Returns the SVG."""
    trials, chosen = points(run)
    # The front sets the scale; what loses far more is counted, not drawn.
    spread = [end for p in chosen if p.colour != UNIFORM for end in p.losses]
    low, high = min([*spread, 0.0]) - 0.2, 1.15 * max([*spread, 1.0])
    inside = [p for p in (*trials, *chosen) if low <= p.loss <= high]
    fast = 1.03 * max(end for p in inside for end in p.speeds)
    slow = 0.97 * min([1.0, *(end for p in inside for end in p.speeds)])
    width, height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def x(speed: float) -> float:
        return round(LEFT + (speed - slow) / (fast - slow) * width, 1)

    def y(loss: float) -> float:
        return round(TOP + (min(max(loss, low), high) - low) / (high - low) * height, 1)

    def text(left: float, top: float, words: str, style: str = "") -> str:
        return f'<text x="{left:.1f}" y="{top:.1f}" {style}>{escape(words)}</text>'

    out_of_sight = len(trials) + len(chosen) - len(inside)
    note = f"{len(run.complete)} schemes" + (f", {out_of_sight} lose more" if out_of_sight else "")
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="system-ui,sans-serif" '
        f'font-size="13" fill="{INK}" role="img">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        text(LEFT, 22, f"{run.summary.name}: what a scheme loses against how much faster it is", 'font-size="15"'),
        text(LEFT, 41, "up and to the right is better; bars are 95 % intervals and the spread of repeated timing"),
        text(LEFT, 59, f"{note}; blue: the front, violet: one format everywhere, grey: the others"),
        text(LEFT + width / 2, HEIGHT - 10, "times as fast as the unquantized model", 'text-anchor="middle"'),
        text(0, 0, "mAP50-95 lost, points", f'transform="translate(18 {HEIGHT / 2}) rotate(-90)" text-anchor="middle"'),
    ]
    for value in ticks(low, high):
        out += [f'<path d="M{LEFT} {y(value)}H{WIDTH - RIGHT}" stroke="{FAINT}"/>']
        out += [text(LEFT - 8, y(value) + 4, f"{value:g}", 'text-anchor="end"')]
    for value in ticks(slow, fast):
        out += [text(x(value), HEIGHT - BOTTOM + 20, f"{value:g}", 'text-anchor="middle"')]
    for p in (p for p in inside if p.colour == TRIAL):
        out += [f'<circle cx="{x(p.speed)}" cy="{y(p.loss)}" r="3.5" fill="{TRIAL}" opacity=".55"/>']
    drawn = [p for p in inside if p.colour != TRIAL]
    for p in drawn:
        bars = f"M{x(p.speeds[0])} {y(p.loss)}H{x(p.speeds[1])}M{x(p.speed)} {y(p.losses[0])}V{y(p.losses[1])}"
        out += [f'<path d="{bars}" stroke="{p.colour}" opacity=".45"/>']
        out += [f'<circle cx="{x(p.speed)}" cy="{y(p.loss)}" r="{6 if p.colour == BEST else 4.5}" fill="{p.colour}"/>']
    named = [p for p in drawn if p.label]
    anchors, marks = ([(x(p.speed) - LEFT, y(p.loss) - TOP) for p in some] for some in (named, inside))
    for p in drawn:  # bars, too, are better not covered
        marks += [(x(low + part * (high - low)) - LEFT, y(p.loss) - TOP) for low, high in [p.speeds] for part in PARTS]
        marks += [(x(p.speed) - LEFT, y(low + part * (high - low)) - TOP) for low, high in [p.losses] for part in PARTS]
    offsets = place(anchors, [p.label for p in named], marks, (width, height), character=CHARACTER, line=16)
    for p, (dx, dy) in zip(named, offsets, strict=True):
        to = x(p.speed) + dx, y(p.loss) + dy
        # The line to a label ends at its edge.
        part = max(0.0, 1 - min(CHARACTER * len(p.label) / 2 / max(abs(dx), 0.1), 9 / max(abs(dy), 0.1)))
        line = f"M{x(p.speed)} {y(p.loss)}l{part * dx:.1f} {part * dy:.1f}"
        out += [f'<path d="{line}" stroke="{p.colour}" opacity=".45"/>']
        style = f'fill="{p.colour}" font-weight="600" text-anchor="middle" stroke="#fff" stroke-width="4" '
        out += [text(to[0], to[1] + 4, p.label, style + 'paint-order="stroke"')]
    return "\n".join([*out, "</svg>"]) + "\n"


def main() -> None:
    """Writes the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("out", type=Path)
    asked = parser.parse_args()
    loaded = load_run(asked.run)
    run = Run.of(run_summary(loaded), loaded.records, loaded.front, read_baselines(loaded.run), loaded.rescores)
    asked.out.write_text(picture(run), encoding="utf-8")


if __name__ == "__main__":
    main()
