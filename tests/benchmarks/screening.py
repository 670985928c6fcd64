"""Replays a finished run as if it had screened: what a first look would have saved, and whom it would have wronged.

    python tests/benchmarks/screening.py RUN --images 16 32 --confidence 0.95 0.99 --draws 3 --all

Trial after trial, in their order, the detections that the run kept are put before the rule that a study with
`search.screening` follows; a screened scheme dominates no later one. `--all` looks at the seeds too, which a study
scores in full. Prints a Markdown row per setting, summed over draws of the images of the first look: schemes compared,
those of them that are as accurate as their leader on all images (innocent), all screened, the innocent ones among them
(wronged; their share of the innocent is what `confidence` bounds), those of the run's measured front, the share of the
images that was saved, the hypervolume that was kept, and the seconds of one comparison. Nothing is run again.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, replace
from pathlib import Path

from objectives.evaluation.screening import Screener
from objectives.tasks.detection.data.dataset import CocoDataset
from objectives.tasks.detection.prediction_file import load_predictions
from tuner.prepare.evaluators import screening_settings
from tuner.prepare.images import data_of
from tuner.results.loaded import LoadedRun, load_run
from tuner.search.front import front_of, hypervolume
from tuner.search.records import TrialRecord
from tuner.search.screening import leaders
from tuner.study.config import ScreeningSection, StudyConfig
from tuner.study.inputs import read_inputs


@dataclass
class Tally:
    """Sums over replays."""

    trials: int = 0
    compared: int = 0
    innocent: int = 0
    screened: int = 0
    wronged: int = 0
    lost: int = 0
    saved: float = 0.0
    kept: float = 0.0
    seconds: float = 0.0


def replay(
    loaded: LoadedRun, config: StudyConfig, dataset: CocoDataset, records: list[TrialRecord], tally: Tally
) -> None:
    """Puts every trial before the rule.

    Args:
        loaded: The run.
        config: Its study, with screening.
        dataset: Its search images.
        records: Its trials; those of the sampler are looked at.
        tally: Is added to.
    """
    settings, reference = screening_settings(config), loaded.reference
    assert settings is not None and reference is not None
    screener = Screener(settings, dataset, loaded.run.predictions)
    front = {m.record.number for m in front_of(records, config.objective_set, reference)}
    ids = {dataset.images[row].id for row in screener.rows}
    so_far = [replace(record, scores=None) for record in records]
    for record in records:
        if record.scores is None:
            continue
        tally.trials += 1
        rivals = leaders(config, so_far, reference, record.number)
        leader = screener.leader(rivals, record.scores.latency, record.scores.size)
        found = load_predictions(loaded.run.predictions / f"{record.allocation.digest}.npz")
        if leader is not None and found is not None:
            start = time.perf_counter()
            look = screener.look(found.only(ids), leader, rivals[leader].accuracy.map_50_95)
            tally.seconds += time.perf_counter() - start
            innocent = record.scores.accuracy.map_50_95 >= rivals[leader].accuracy.map_50_95
            tally.compared += look is not None
            tally.innocent += look is not None and innocent
            if look is not None and look.dominated:
                tally.screened += 1
                tally.wronged += innocent
                tally.lost += record.number in front
                tally.saved += 1 - look.images / look.total
                continue
        so_far[record.number] = record
    tally.kept += hypervolume(so_far, config.objective_set, reference) / hypervolume(
        records, config.objective_set, reference
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--images", type=int, nargs="+", default=[16, 32])
    parser.add_argument("--confidence", type=float, nargs="+", default=[0.95, 0.99])
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--all", action="store_true")
    options = parser.parse_args()
    loaded = load_run(options.run)
    dataset = data_of(read_inputs(loaded.config)).search
    records = [
        replace(r, origin="sampler") if options.all and not r.allocation.unquantized else r for r in loaded.records
    ]
    print(f"{loaded.config.name}: {len([r for r in records if r.scores])} trials of {len(dataset)} images")
    names = ["images", "confidence", "compared", "innocent", "screened", "wronged", "of the front"]
    names += ["images saved", "volume kept", "s"]
    print(f"| {' | '.join(names)} |\n|{' ---: |' * len(names)}")
    for images in options.images:
        for confidence in options.confidence:
            tally = Tally()
            for seed in range(options.draws):
                screening = ScreeningSection(images=images, confidence=confidence)
                search = loaded.config.search.model_copy(update={"screening": screening, "seed": seed})
                config = loaded.config.model_copy(update={"search": search})
                replay(loaded, config, dataset, records, tally)
            counts = [tally.compared, tally.innocent, tally.screened, tally.wronged, tally.lost]
            saved, kept = tally.saved / tally.trials, tally.kept / options.draws
            cells = [str(images), f"{confidence:g}", *map(str, counts), f"{100 * saved:.1f} %", f"{100 * kept:.2f} %"]
            print(f"| {' | '.join(cells)} | {tally.seconds / max(1, tally.compared):.2f} |", flush=True)


if __name__ == "__main__":
    main()
