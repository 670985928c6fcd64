"""How a run that was searched by agreement ranks its schemes, against mAP by labels that it never saw.

    python tests/benchmarks/agreement_rank.py RUN --images FOLDER --annotations COCO.json

Scores the detections that the run keeps, so nothing is inferred again; its images are found in the labels by file name.
Prints Spearman's and Kendall's rank correlation of agreement and mAP50-95 over all complete trials, and over the front.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from scipy.stats import kendalltau, spearmanr

from objectives.tasks.detection.data.dataset import CocoDataset, load_dataset
from objectives.tasks.detection.metrics.scoring import score
from objectives.tasks.detection.prediction_file import load_predictions
from tuner.results.loaded import LoadedRun, load_run
from tuner.search.records import TrialRecord
from tuner.study.inputs import read_inputs


def labelled(loaded: LoadedRun, images: Path, annotations: Path) -> CocoDataset:
    """The labels of the run's search images, under the run's image ids."""
    data = read_inputs(loaded.config).data
    assert data is not None
    ids = {image.path.name: image.id for image in data.search.images}
    dataset = load_dataset(images, annotations)
    kept = {image.id: ids[image.path.name] for image in dataset.images if image.path.name in ids}
    if len(kept) != len(ids):
        sys.exit(f"{len(ids) - len(kept)} of the run's {len(ids)} images have no labels")
    dataset = dataset.only(set(kept))
    return replace(
        dataset,
        images=tuple(replace(image, id=kept[image.id]) for image in dataset.images),
        annotations=tuple(replace(box, image_id=kept[box.image_id]) for box in dataset.annotations),
    )


def mean_precision(loaded: LoadedRun, record: TrialRecord, dataset: CocoDataset) -> float:
    """MAP50-95 of a trial's detections."""
    found = load_predictions(loaded.run.predictions / f"{record.allocation.digest}.npz")
    if found is None:
        sys.exit(f"trial {record.number}: its detections are not kept, or damaged")
    return score(dataset, found).map_50_95


def told(name: str, pairs: Sequence[tuple[float, float]]) -> str:
    """One line."""
    first, second = zip(*pairs, strict=True)
    spearman, kendall = spearmanr(first, second).statistic, kendalltau(first, second).statistic
    return f"{name}: Spearman {spearman:.3f}, Kendall {kendall:.3f} (n = {len(pairs)})"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--annotations", type=Path, required=True)
    options = parser.parse_args()
    loaded = load_run(options.run)
    dataset = labelled(loaded, options.images, options.annotations)
    front = {member.record.number for member in loaded.front}
    pairs: dict[int, tuple[float, float]] = {}
    print("| trial | origin | agreement | mAP50-95 | front |\n| ---: | --- | ---: | ---: | --- |")
    for record in loaded.records:
        if record.scores is not None:
            pairs[record.number] = record.scores.agreement, mean_precision(loaded, record, dataset)
            cells = [str(record.number), record.origin, *(f"{value:.4f}" for value in pairs[record.number])]
            print(f"| {' | '.join(cells)} | {'*' if record.number in front else ''} |", flush=True)
    print(f"\n{len(dataset)} images")
    print(told("all trials", list(pairs.values())))
    print(told("front", [pair for number, pair in pairs.items() if number in front]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
