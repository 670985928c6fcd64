"""Scores schemes again: on all evaluation images, and apart on those that the search never saw."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from objectives.runtimes.engine_builder import EngineBuilder
from objectives.tasks.detection.data.dataset import CocoDataset
from objectives.tasks.detection.metrics.comparison import bootstrap_difference, central, resampled_difference
from objectives.tasks.detection.metrics.scoring import score
from objectives.tasks.detection.predictions import Predictions
from search_spaces.allocation import Allocation
from search_spaces.durable import write_durably
from tuner.prepare.images import data_of
from tuner.prepare.prepared import ArtifactParts
from tuner.results.detector import Detector
from tuner.results.retime import Round, read_rounds
from tuner.search.records import Rescore
from tuner.study.config import StudyConfig
from tuner.study.inputs import Inputs
from tuner.study.run_folder import RunFolder, read_json
from tuner.terminal.progress import Steps, silent

_SAMPLES = 1000


def rescore(
    inputs: Inputs, run: RunFolder, parts: ArtifactParts, allocations: Sequence[Allocation], steps: Steps = silent
) -> None:
    """Re-scores the schemes that are not yet.

    Args:
        inputs: The study.
        run: Where the scores are kept.
        parts: Of the artifacts.
        allocations: The schemes.
        steps: Shows progress.
    """
    known = read_rescores(run)
    missing = [allocation for allocation in allocations if allocation.digest not in known]
    if not missing:
        return
    data = data_of(inputs)
    detector = Detector(inputs, run, parts, data.full.images, steps)
    unseen = data.full.without(data.search)
    reference = detector.predict(None)
    for count, allocation in enumerate(missing, 1):
        candidate = detector.predict(allocation, f"re-scoring {count}/{len(missing)}")
        found = _compare(data.full, unseen, candidate, reference, inputs.config)
        if isinstance(inputs.runtime, EngineBuilder) and not inputs.runtime.emulated:
            twin = detector.predict_in_onnxruntime(allocation, f"in ONNX Runtime {count}/{len(missing)}")
            found = replace(found, onnxruntime=score(data.full, twin, inputs.config.data.metrics, reference))
        write_durably(run.rescores / f"{allocation.digest}.json", json.dumps(found.to_json()))


def read_rescores(run: RunFolder) -> dict[str, Rescore]:
    """Returns ``{allocation digest: rescore}`` of what was re-scored so far."""
    found, rounds = {}, read_rounds(run)
    for path in sorted(run.rescores.glob("*.json")):
        found[path.stem] = with_rounds(read_json(path, Rescore), rounds.get(path.stem, ()))
    return found


def with_rounds(rescore: Rescore, rounds: Sequence[Round]) -> Rescore:
    """A scheme that was scored again, with the rounds in which it was timed again."""
    return replace(
        rescore,
        ratios=tuple(one.ratio for one in rounds),
        ratio_intervals=tuple((one.low, one.high) for one in rounds if one.low is not None and one.high is not None),
        noisy_rounds=sum(one.noisy for one in rounds),
    )


def _compare(
    full: CocoDataset,
    unseen: CocoDataset | None,
    candidate: Predictions,
    reference: Predictions,
    config: StudyConfig,
) -> Rescore:
    metrics, own_metric = config.data.metrics, config.objective_set.maximised.metric
    everywhere = score(full, candidate, metrics, reference)
    differences = resampled_difference(full, candidate, reference, _SAMPLES, metric=own_metric)
    resampled = tuple(np.round(differences[1:], 6).tolist())
    found = Rescore(everywhere, None, float(differences[0]), central(differences[1:]), resampled=resampled)
    if unseen is None:
        return found
    ids = {image.id for image in unseen.images}
    own, base = candidate.only(ids), reference.only(ids)
    unseen_difference, unseen_interval = bootstrap_difference(unseen, own, base, _SAMPLES, metric=own_metric)
    return replace(
        found,
        unseen=score(unseen, own, metrics, base),
        unseen_difference=unseen_difference,
        unseen_interval=unseen_interval,
    )
