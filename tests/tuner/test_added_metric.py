"""A metric of another package: one file and one entry point, from the command line to the scores of every trial."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from added_package import install, tuner
from tiny_detectors import build_detector, write_calibration, write_dataset

from tuner.study.run_folder import RunFolder

MODULE = """
class Count:
    needs = frozenset({"boxes"})
    yields = ("detections_per_image",)

    def __init__(self):
        self.reset()

    def reset(self):
        self.images = self.boxes = 0

    def update(self, predictions, targets):
        self.images += len(targets.dataset.images)
        self.boxes += sum(len(rows) for rows in predictions.detections)

    def compute(self):
        return {"detections_per_image": self.boxes / self.images}
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A folder with an installed package that adds ``count``."""
    return install(tmp_path / "site", MODULE, "[tuner.metrics]\ncount = added:Count\n")


def test_eval_takes_it(package: Path, tmp_path: Path) -> None:
    model = build_detector(tmp_path / "m.onnx")
    images, labels = write_dataset(tmp_path, model, 3)
    given = ("eval", model, "--images", images, "--annotations", labels, "--json")
    plain = json.loads(tuner(package, *given).stdout)
    both = json.loads(tuner(package, *given, "--metric", "coco_box", "--metric", "count").stdout)
    assert both.pop("detections_per_image") > 1 and both == plain
    alone = json.loads(tuner(package, *given, "--metric", "count").stdout)
    assert set(alone) == {"model", "detections_per_image", "images"}
    refused = tuner(package, *given, "--metric", "cont")
    assert refused.returncode == 2 and "did you mean 'count'" in refused.stderr
    refused = tuner(package, *given, "--metric", "agreement")
    assert refused.returncode == 2 and "metric 'agreement': needs reference" in refused.stderr


def test_every_trial_has_it(package: Path, tmp_path: Path) -> None:
    model = build_detector(tmp_path / "m.onnx")
    images, labels = write_dataset(tmp_path, model, 4)
    study = {
        "name": "tiny",
        "model": {"path": "m.onnx"},
        "data": {
            "images": str(images),
            "annotations": str(labels),
            "calibration": str(write_calibration(tmp_path)),
            "metrics": ["coco_box", "count", "agreement"],
        },
        "objectives": ["map_50_95", "weight_mib"],
        "sensitivity": {"images": 1},
        "search": {"trials": 3, "sampler": "nsga2"},
    }
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
    run = tmp_path / "run"
    done = tuner(package, "run", tmp_path / "study.yaml", "--run", run)
    assert done.returncode == 0, done.stderr
    kept = RunFolder(run)
    records = [json.loads(path.read_text()) for path in kept.evaluations.glob("*.json")]
    scores = [json.loads(kept.reference.read_text()), *(record["scores"] for record in records if "scores" in record)]
    assert len(scores) >= 3 and all(each["accuracy"]["detections_per_image"] > 1 for each in scores)
    assert all(each["accuracy"]["agreement"] == each["agreement"] for each in scores)
    rescores = [json.loads(path.read_text()) for path in kept.rescores.glob("*.json")]
    assert rescores and all("detections_per_image" in each["full"] for each in rescores)
    del study["data"]["metrics"][0]
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
    refused = tuner(package, "run", tmp_path / "study.yaml", "--run", tmp_path / "other")
    assert refused.returncode == 2 and "data.metrics: count, agreement yields no map_50_95" in refused.stderr
