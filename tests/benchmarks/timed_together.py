"""Latencies of schemes that several runs of one model found, timed together once more: those of a search are noisy."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np

from objectives.evaluation.evaluator import Evaluator
from objectives.scores import Failure
from search_spaces.allocation import Allocation
from search_spaces.durable import write_durably
from tuner.prepare.evaluators import evaluator_settings
from tuner.results.loaded import LoadedRun
from tuner.results.retime import Round, rounds_of
from tuner.search.front import hypervolume_history
from tuner.search.records import TrialRecord
from tuner.study.inputs import read_inputs
from tuner.study.run_folder import read_json
from tuner.terminal.progress import bar


def ratios_of(runs: list[LoadedRun], path: Path) -> dict[str, float]:
    """Times all complete schemes of the runs in rounds; ``{allocation digest: median ratio}``, kept in `path`."""
    if not path.exists():
        schemes = {each.allocation.digest: each.allocation for run in runs for each in run.records if each.scores}
        first = runs[0]
        settings = evaluator_settings(read_inputs(first.config), first.run, bar)
        assert settings.timing is not None
        settings = replace(settings, timing=replace(settings.timing, attempts=1))
        with Evaluator(settings) as evaluator:

            def time(allocation: Allocation) -> Round | None:
                timed = evaluator.time(allocation)
                if isinstance(timed, Failure):
                    sys.exit(f"{timed.kind}: {timed.message}")
                return Round(timed.ratio, timed.ratio_low, timed.ratio_high, timed.noisy)

            found = rounds_of(list(schemes.values()), time, lambda rounds: rounds.keys(), bar)
        kept = {digest: median(one.ratio for one in rounds) for digest, rounds in found.items()}
        write_durably(path, json.dumps(kept))
    return read_json(path, dict[str, float])


def timed_curve(run: LoadedRun, first: LoadedRun, ratios: dict[str, float]) -> np.ndarray:
    """Hypervolume after each complete trial by the repeated timings, shape ``(trials,)``."""
    reference = first.reference
    assert reference is not None and reference.latency is not None
    whole = reference.latency_ms

    def timed(record: TrialRecord) -> TrialRecord:
        if record.scores is None or whole is None:
            return record
        scores = replace(record.scores, latency_ms=whole * ratios[record.allocation.digest])
        return replace(record, scores=scores)

    records = [timed(record) for record in run.records]
    return np.array(hypervolume_history(records, first.config.objective_set, reference))
