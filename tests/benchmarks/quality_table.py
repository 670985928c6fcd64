"""The tables of `search_quality`: mean and spread by family, and the mean rank over all."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import rankdata


def tables(rows: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: every sampler by family and prior, the mean over families by prior, ranks over all.

    Args:
        rows: Of `search_quality.search`.
    """
    budgets = sorted({budget for row in rows for budget in row["shares"]}, key=int)
    samplers = list(dict.fromkeys(row["sampler"] for row in rows))
    shares: dict[tuple[str, str], dict[str, list[list[float]]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if len(row["shares"]) == len(budgets):
            shares[row["family"], row["prior"]][row["sampler"]].append([row["shares"][b] for b in budgets])
    lines = ["| family | prior | sampler | " + " | ".join(budgets) + " |", "| --- " * (3 + len(budgets)) + "|"]
    priors: dict[str, dict[str, list[list[float]]]] = defaultdict(lambda: defaultdict(list))
    ranks: dict[str, list[float]] = defaultdict(list)
    for (family, prior), by_sampler in sorted(shares.items()):
        for name, found in by_sampler.items():
            mean, spread = np.mean(found, axis=0), np.std(found, axis=0)
            priors[prior][name].append(mean.tolist())
            cells = [f"{m:.3f} ± {s:.3f}" for m, s in zip(mean, spread, strict=True)]
            lines.append(f"| {family} | {prior} | {name} | " + " | ".join(cells) + " |")
        if set(by_sampler) == set(samplers):
            for column in range(len(budgets)):
                order = rankdata([-np.mean(by_sampler[name], axis=0)[column] for name in samplers])
                for name, rank in zip(samplers, order, strict=True):
                    ranks[name].append(float(rank))
    for prior, found_by in priors.items():
        for name, means in found_by.items():
            cells = [f"{value:.3f}" for value in np.mean(means, axis=0)]
            lines.append(f"| all | {prior} | {name} | " + " | ".join(cells) + " |")
    lines += ["", "| sampler | mean rank |", "| --- | --- |"]
    lines += [f"| {name} | {np.mean(ranks[name]):.2f} |" for name in samplers if ranks[name]]
    return "\n".join(lines)
