"""A run on a new device that is linked to one elsewhere: what of that run holds here, and what is made anew.

Ranges, recovered weights, sensitivity and preprocessed images do not depend on the device, and accuracy belongs to an
artifact. Latency, costs, probe and seeds belong to the device.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from objectives.evaluation.bench import REFERENCE
from objectives.runtimes import DEFAULT_RUNTIME
from objectives.runtimes.registry import RUNTIMES
from objectives.scores import Scores, checked
from search_spaces.durable import write_durably
from search_spaces.errors import InputError
from search_spaces.regular import read_regular
from tuner.prepare.calibration import read_calibration
from tuner.study.identity import read_manifest, short
from tuner.study.run_folder import RunFolder, read_json

_SAME = ("digest.", "weights.", "calibration.", "data.", "model.")  # prefixes of the identity, with the runtime's name
# What decides how an artifact computes. An engine's arithmetic is its builder's choice, made for one GPU.
_ARITHMETIC = ("runtime.batch",)


@dataclass(frozen=True)
class Link:
    """A run whose device-independent parts another one takes over.

    Attributes:
        source: Its folder.
        id: Of its manifest.
        differing: What makes its accuracy another one here, field by field; empty where it holds.
    """

    source: RunFolder
    id: str
    differing: tuple[str, ...]

    def to_json(self) -> dict[str, str]:
        """As the manifest records it."""
        return {"run": self.id, "path": str(self.source.path.resolve())}

    def take(self, run: RunFolder) -> None:
        """Copies what holds into a run that has no manifest yet; may be repeated.

        The copies make the run whole by itself: the source may grow, move or vanish.

        Raises:
            InputError: The source is damaged.
        """
        source = self.source
        ranges = read_calibration(source)
        tables = [*source.path.glob("sensitivity.*"), *source.path.glob("layer-sensitivity-report.*")]
        for path in (source.calibration, source.recovered, *tables):
            if path.is_file():
                write_durably(run.path / path.relative_to(source.path), read_regular(path, None))
        run.image_cache.mkdir(parents=True, exist_ok=True)
        for path in sorted(source.image_cache.glob("[!.]*.*")):
            _link(path, run.image_cache / path.name)
        count = 0 if self.differing else self._take_scores(run)
        run.log("linked", **self.to_json(), ranges=ranges.method, accuracies=count, scored_again=list(self.differing))

    def _take_scores(self, run: RunFolder) -> int:
        """Copies scores and detections; returns how many. Without the reference's none holds."""
        source, count = self.source, 0
        if not source.reference.is_file() or not (source.predictions / f"{REFERENCE}.npz").is_file():
            return 0
        for path in (source.reference, *sorted(source.evaluations.glob("*.json"))):
            detections = source.predictions / path.with_suffix(".npz").name
            record = read_json(path, dict[str, Any])
            data = record if path == source.reference else record.get("scores")
            if data is None or not detections.is_file():
                continue  # it failed, which another device may not
            try:
                scores = checked(Scores.from_json(data))
            except (KeyError, TypeError, AttributeError):
                raise InputError(f"{path}: not scores of ours; restore or delete it") from None
            if isinstance(scores, Scores):
                write_durably(run.known / detections.name, read_regular(detections))
                write_durably(run.known / path.name, json.dumps(replace(scores, reused=self.id).to_json()))
                count += 1
        return count


def open_link(path: Path, now: Mapping[str, Any]) -> Link:
    """Opens the run that a new one is linked to; reads only.

    Args:
        path: Its folder.
        now: The identity of the new run.

    Raises:
        InputError: It is no run, is not calibrated yet, replays its scores, or measures something else than the device:
            the message names every differing field.
    """
    source = RunFolder.open(path)
    manifest = read_manifest(source)
    recorded = manifest["identity"]
    if not isinstance(manifest.get("id"), str):
        raise InputError(f"--new-device {str(path)!r}: its manifest has no id; name a folder that `tuner run` made")
    runtime = RUNTIMES.get(now["runtime.name"])
    if not runtime.artifacts:
        name = now["runtime.name"]
        raise InputError(f"--new-device: runtime.name is {name!r}, which measures no device; choose {DEFAULT_RUNTIME}")
    same = [key for key in {**recorded, **now} if key == "runtime.name" or key.startswith(_SAME)]
    if fields := _differing(same, recorded, now):
        advice = "restore what differs, or leave --new-device out"
        raise InputError(f"--new-device {str(path)!r}: more than the device differs: {'; '.join(fields)}; {advice}")
    read_calibration(source)
    keys = _ARITHMETIC + runtime.accuracy_keys
    return Link(source, manifest["id"], tuple(_differing(keys, recorded, now)))


def recorded_link(run: RunFolder, now: Mapping[str, Any]) -> Link | None:
    """The link that a run was started with; raises as `open_link` does."""
    return open_link(Path(read_json(run.linked, dict[str, Any])["path"]), now) if run.linked.is_file() else None


def _differing(keys: Sequence[str], recorded: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    different = [key for key in keys if recorded.get(key) != now.get(key)]
    return [f"{key} is {short(now.get(key))}, there {short(recorded.get(key))}" for key in different]


def _link(source: Path, target: Path) -> None:
    """A second name of a file that is never written again, or a copy where the file systems differ."""
    if target.exists():
        return
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        write_durably(target, read_regular(source, None))
