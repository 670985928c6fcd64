"""The report's first screen: which scheme to ship, why, what else there is, and whether the search was worth it."""

from __future__ import annotations

import html
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from objectives.objective import milliseconds
from objectives.tasks.detection.metrics.comparison import central
from search_spaces import markdown
from tuner.report.tables import export_command
from tuner.report.view import Interval, Run, scored_on, scores_of, uniform_name
from tuner.search.recommendation import Verdict, no_answer
from tuner.search.records import NOISY_MARK, Baseline, FrontMember, scheme_name
from tuner.search.telling_apart import Contender, surely_better
from tuner.terminal import units

_UNIFORM = 4  # uniform schemes in the answer's table


@dataclass(frozen=True)
class Choice:
    """One row of the answer's table, as text.

    Attributes:
        name: E.g. ``trial 12, recommended``.
        change: Of the accuracy.
        latency: Empty where the study times nothing.
        speedup: Likewise.
        size: Of the weights.
        kind: ``best``, ``other``.
    """

    name: str
    change: str
    latency: str
    speedup: str
    size: str
    kind: str = "other"


def headline(run: Run) -> str:
    """The answer in one line, e.g. ``Ship trial 23: 2.94x as fast at −0.4 mAP points``."""
    answer = run.recommendation
    if answer is None:
        if not run.complete:
            return "No scheme is measured yet"
        return "No quantized scheme to ship" if run.members else "No scheme keeps the constraints"
    scores, found = scores_of(answer.member.record), run.standing(answer.member)
    gain = "" if found.speedup is None else f"{units.speedup(found.speedup)} as fast as unquantized"
    share = run.size_share(scores)
    weights = f"{units.mib(scores.size.weight_bytes)} MiB of weights"
    weights += f" ({100 * share:.0f} % of fp32)" if share is not None else ""
    facts = [gain, f"{units.change(found.change)} {run.goal.brief} points", weights]
    text = ", ".join(filter(None, facts))
    if answer.verdict is Verdict.NEAREST:
        budget = f"{units.budget(answer.max_drop)} {run.goal.brief} points"
        return f"No scheme is surely within {budget}. Nearest: trial {answer.member.record.name}, {text}"
    return f"{'Ship trial' if answer.verdict is Verdict.SURE else 'So far: trial'} {answer.member.record.name}: {text}"


def reasons(run: Run) -> list[str]:
    """Why, in sentences: the rule with the budget, what was measured, the state of the run."""
    answer = run.recommendation
    found = [run.summary.state] if run.summary.state else []
    if answer is None:
        return [*found, no_answer(bool(run.members))]
    found.append(answer.sentence(run.summary.objective_set))
    measured = f"Formats: {answer.member.record.allocation.words()}."
    rescore = answer.member.rescore
    if rescore is not None and rescore.unseen is not None and rescore.unseen_difference is not None:
        bounds = f" ({units.interval(*rescore.unseen_interval)})" if rescore.unseen_interval else ""
        measured += (
            f" Scored on all {rescore.full.images} evaluation images; on the {rescore.unseen.images} of them that the "
            f"search never saw the change is {units.change(rescore.unseen_difference)} points{bounds}."
        )
    elif rescore is not None:
        measured += f" Scored on all {rescore.full.images} evaluation images, which the search saw."
    if not run.timed:
        measured += " Latency was not measured: it is no objective of this study."
    if any(member.noisy for member in run.shown):
        measured += (
            f" Timings marked {NOISY_MARK} were disturbed by other load: the more of it, the fewer schemes differ."
        )
    return [*found, measured]


def worth(run: Run) -> str:
    """Whether the search was worth it: the answer beside the best uniform scheme; empty where there is none."""
    answer, base = run.recommendation, run.best_uniform
    if answer is None or run.unquantized is None:
        return ""
    if base is None:
        return (
            "No uniform scheme is measured to compare with."
            if not run.uniform
            else (
                "Was the search worth it? Yes: no uniform scheme works at all, each is broken or breaks a constraint."
            )
        )
    name = f"{uniform_name(base.member.record)} (trial {base.member.record.name})"
    if base.trial == answer.trial:
        return f"Was the search worth it? Not for this budget: nothing is better than {name}, which needs no search."
    if answer.kept and not base.kept:
        return f"Was the search worth it? Yes: no uniform scheme is surely within the budget; {name} comes nearest."
    pair = [Contender(each, run.scores(each)) for each in (answer.member, base.member)]
    objectives = run.objectives.objectives
    better = [o.brief for o in objectives if surely_better(pair[0], pair[1], o)]
    worse = [o.brief for o in objectives if surely_better(pair[1], pair[0], o)]
    facts = _against(run, answer.member, base.member)
    if better:
        verdict = f"{'A trade' if worse else 'Yes'}: surely better than {name} in {' and '.join(better)}"
        verdict += f", surely worse in {' and '.join(worse)}" if worse else ""
    elif worse:
        verdict = f"No: surely worse than {name} in {' and '.join(worse)}, and surely better in nothing"
    else:
        verdict = f"Not that noise could tell: nothing is surely better than {name}"
    return f"Was the search worth it? {verdict} ({facts})."


def _against(run: Run, one: FrontMember, other: FrontMember) -> str:
    """Differences of two schemes, each with its interval where that is known."""
    first, second = run.standing(one), run.standing(other)
    text = f"{units.change(first.change - second.change)} {run.goal.brief} points"
    if (bounds := _paired(one, other)) is not None:
        text += f", 95 % interval {units.interval(*bounds)}"
    if first.latency_ms and second.latency_ms:
        text += f"; {units.speedup(second.latency_ms / first.latency_ms)} as fast"
        if first.latency_interval and second.latency_interval:
            low = second.latency_interval[0] / first.latency_interval[1]
            high = second.latency_interval[1] / first.latency_interval[0]
            text += f", {units.speedup(low)} to {units.speedup(high)}"
    sizes = [scores_of(each.record).size.weight_bytes for each in (one, other)]
    return f"{text}; {units.mib(sizes[0])} against {units.mib(sizes[1])} MiB of weights"


def _paired(one: FrontMember, other: FrontMember) -> Interval | None:
    mine, theirs = one.rescore, other.rescore
    if mine is None or theirs is None or not mine.resampled or len(mine.resampled) != len(theirs.resampled):
        return None
    return central(np.subtract(mine.resampled, theirs.resampled))


def choices(run: Run) -> list[Choice]:
    """The answer and what would be taken in its place."""
    rows = []
    answer, base = run.recommendation, run.best_uniform
    if answer is not None:
        mark = "recommended" if answer.kept else "nearest"
        rows.append(_scheme(run, answer.member, f"trial {answer.member.record.name}, {mark}", "best"))
    others = [base.member] if base is not None else []
    others += [each for each in run.uniform if each not in others and not scores_of(each.record).broken]
    for each in others[:_UNIFORM]:
        if answer is None or each.record.number != answer.trial:
            rows.append(_scheme(run, each, f"{uniform_name(each.record)} (trial {each.record.name})"))
    if (rival := _best_baseline(run)) is not None:
        rows.append(_baseline(run, rival))
    if run.unquantized is not None:
        latency = milliseconds(run.unquantized.latency_ms) if run.timed and run.unquantized.latency_ms else ""
        size = units.mib(run.unquantized.size.weight_bytes)
        rows.append(Choice("unquantized", units.change(0.0), latency, units.speedup(1.0) if latency else "", size))
    return rows


def _scheme(run: Run, member: FrontMember, name: str, kind: str = "other") -> Choice:
    found = run.standing(member)
    return Choice(
        name,
        found.change_text,
        found.latency_text,
        units.speedup(found.speedup) if found.speedup is not None else "",
        units.mib(scores_of(member.record).size.weight_bytes),
        kind,
    )


def _best_baseline(run: Run) -> Baseline | None:
    """Of the other tools' models, by their figures: the cheapest within the budget, else the most accurate."""
    if run.unquantized is None or not run.baselines:
        return None
    budget = run.recommendation.max_drop if run.recommendation is not None else 0.0
    kept = [each for each in run.drawn_baselines if -run.baseline_change(each) <= budget + 1e-9]
    if kept:
        return min(kept, key=run.baseline_cost)
    return max(run.baselines, key=lambda each: each.accuracy)


def _baseline(run: Run, rival: Baseline) -> Choice:
    latency = milliseconds(rival.latency_ms) + NOISY_MARK * rival.noisy if run.timed and rival.latency_ms else ""
    speed = run.unquantized.latency_ms / rival.latency_ms if run.unquantized and latency else 0.0
    return Choice(
        rival.name,
        units.change(run.baseline_change(rival)),
        latency,
        units.speedup(speed) if speed else "",
        units.mib(rival.weight_bytes) if rival.weight_bytes else units.NONE,
    )


def choices_head(run: Run) -> list[str]:
    """Titles of the answer's table."""
    timed = ["latency, ms", "speed-up"] if run.timed else []
    return ["", f"{run.goal.brief} change, points (95 %)", *timed, "weights, MiB"]


def choice_cells(run: Run, row: Choice) -> list[str]:
    """Cells of a row, as text."""
    timed = [row.latency or units.NONE, row.speedup or units.NONE] if run.timed else []
    return [row.name, row.change, *timed, row.size]


def answer_html(run: Run, folder: Path, table: str) -> str:
    """The section at the head of the page.

    Args:
        run: The run.
        folder: Its folder, for the command.
        table: `choices` as HTML.
    """
    lines = "".join(f"<p>{html.escape(line)}</p>\n" for line in reasons(run))
    verdict = worth(run)
    lines += f'{table}<p class="worth">{html.escape(verdict)}</p>' if verdict else table
    if run.named is not None:
        lines += f"<pre>{html.escape(export_command(folder, run.named.record.name))}</pre>"
    kind = "" if run.recommendation is not None and run.recommendation.kept else " unsure"
    return f'<section class="call{kind}">\n<h2>{html.escape(headline(run))}</h2>\n{lines}</section>'


def scheme_markdown(run: Run, member: FrontMember, folder: Path) -> str:
    """What one trial is, for the note on its page: recommended or not, its figures, its formats."""
    number, seen = member.record.number, scored_on(member)
    head, row = choices_head(run)[1:], choice_cells(run, _scheme(run, member, ""))[1:]
    facts = [f"{title}: {cell}" for title, cell in zip(head, row, strict=True)]
    facts.append("; ".join(filter(None, (f"scored {seen}" if seen else "", f"proposed by {member.record.origin}"))))
    facts.append(f"formats: {member.record.allocation.words()}")
    lines = [markdown.plain(_place(run, member)), "\n".join(f"- {markdown.plain(fact)}" for fact in facts)]
    if any(each.record.number == number for each in run.members):
        lines.append(markdown.code(export_command(folder, number)))
    return "\n\n".join(lines) + "\n"


def _place(run: Run, member: FrontMember) -> str:
    """Whether a scheme is recommended, and if not, why."""
    if run.recommendation is not None and run.recommendation.trial == member.record.number:
        mark = "Recommended." if run.recommendation.kept else "Not recommended, but nearest to the budget."
        return f"{mark} {run.recommendation.sentence(run.summary.objective_set)}"
    if member.record is run.reference:
        return "The unquantized model: all others are compared with it."
    if member.folded_under is not None:
        over = scheme_name(member.folded_under)
        return f"Not recommended: noise cannot tell it to be better than trial {over} in anything."
    if any(each.record.number == member.record.number for each in run.members):
        return "On the front, not recommended."
    if scores_of(member.record).broken:
        return f"Not recommended: broken, it keeps less than a tenth of the {run.goal.brief}."
    if broken := run.broken_bounds(member.record):
        return f"Not recommended: it breaks {', '.join(broken)}."
    return "Not recommended: another scheme is as good in every objective, and better in one."


def answer_markdown(run: Run) -> str:
    """The same for a note."""
    rows = [[markdown.plain(cell) for cell in choice_cells(run, row)] for row in choices(run)]
    table = markdown.table([markdown.plain(title) for title in choices_head(run)], rows)
    lines = "\n\n".join(markdown.plain(line) for line in [*reasons(run), worth(run)] if line)
    return f"## {markdown.plain(headline(run))}\n\n{lines}\n\n{table}"
