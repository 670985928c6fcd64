"""DeepStream: the configuration says what the model was measured with, and the parser reads the same boxes."""

from __future__ import annotations

import configparser
import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
from scene_detectors import SIDE, scene_detector, scenes
from shipments import shipment_of
from tiny_detectors import NAMES, build_detector

from objectives.runners.onnxruntime_runner import OnnxRuntimeRunner
from objectives.tasks.detection.data.letterbox import letterbox
from objectives.tasks.detection.data.preprocessing import Fit, Preprocessing
from objectives.tasks.detection.heads.layout import PlainHead
from objectives.tasks.detection.thresholds import Thresholds
from search_spaces.errors import InputError
from tuner.results.targets.deepstream import DeepStream, normalisation
from tuner.results.targets.nvinfer_parser import FUNCTION, SOURCE

HERE = Path(__file__).parent
#: Of the manual's tables for the groups of these names, those that a detector may have.
DOCUMENTED = {
    "property": set(
        [
            "num-detected-classes",
            "net-scale-factor",
            "model-file",
            "proto-file",
            "int8-calib-file",
            "batch-size",
            "model-engine-file",
            "onnx-file",
            "labelfile-path",
            "mean-file",
            "gie-unique-id",
            "operate-on-gie-id",
            "operate-on-class-ids",
            "interval",
            "parse-bbox-func-name",
            "custom-lib-path",
            "offsets",
            "model-color-format",
            "network-mode",
            "gpu-id",
            "output-blob-names",
            "infer-dims",
            "process-mode",
            "network-type",
            "cluster-mode",
            "maintain-aspect-ratio",
            "symmetric-padding",
            "scaling-filter",
            "scaling-compute-hw",
            "output-tensor-meta",
            "workspace-size",
            "engine-create-func-name",
        ]
    ),
    "class-attrs-all": set(
        ["threshold", "pre-cluster-threshold", "post-cluster-threshold", "nms-iou-threshold", "topk", "eps"]
    ),
}
#: A program around the parser: reads one output, writes what it found.
MAIN = """
#include <cstdio>
#include <cstdlib>
#include "%s"
int main(int count, char** words) {
  const unsigned rows = atoi(words[2]), columns = atoi(words[3]), side = atoi(words[4]), classes = atoi(words[5]);
  std::vector<float> data(rows * columns);
  FILE* file = fopen(words[6], "rb");
  if (fread(data.data(), 4, data.size(), file) != data.size()) return 2;
  NvDsInferLayerInfo layer{};
  layer.dataType = FLOAT, layer.layerName = words[1], layer.buffer = data.data();
  layer.inferDims.numDims = 2, layer.inferDims.d[0] = rows, layer.inferDims.d[1] = columns;
  NvDsInferParseDetectionParams params;
  params.numClassesConfigured = classes, params.perClassPreclusterThreshold.assign(classes, atof(words[7]));
  std::vector<NvDsInferParseObjectInfo> found;
  if (!%s({layer}, {side, side, 3}, params, found)) return 3;
  for (auto const& each : found)
    printf("%%.9g %%.9g %%.9g %%.9g %%.9g %%u\\n", each.left, each.top, each.left + each.width,
           each.top + each.height, each.detectionConfidence, each.classId);
}
"""


def _config(files: dict[str, bytes]) -> configparser.ConfigParser:
    found = configparser.ConfigParser()
    found.read_string(files["config_infer_primary.txt"].decode())
    return found


def test_the_configuration_holds_documented_keys_and_the_heads_values(tmp_path: Path) -> None:
    shipment = shipment_of(tmp_path, build_detector(tmp_path / "m.onnx", "scores"), "tensorrt")
    laid = DeepStream().lay_out(shipment)
    found = _config(dict(laid.files))
    assert set(found.sections()) == set(DOCUMENTED)
    assert [key for group in found.sections() for key in found[group] if key not in DOCUMENTED[group]] == []
    keys = found["property"]
    assert keys["num-detected-classes"] == "3" and laid.files["labels.txt"].decode().split() == list(NAMES[:3])
    assert (keys["network-mode"], keys["model-color-format"], keys["cluster-mode"]) == ("1", "0", "2")
    assert (keys["maintain-aspect-ratio"], keys["symmetric-padding"], keys["infer-dims"]) == ("1", "1", "3;64;64")
    assert keys["onnx-file"] in laid.files and keys["parse-bbox-func-name"].encode() in laid.files[SOURCE]
    assert any("trtexec" in note for note in laid.notes) and any("libnvdsinfer" in note for note in laid.notes)
    unquantized = shipment_of(tmp_path, tmp_path / "m.onnx", "tensorrt", "fp16")
    assert _config(dict(DeepStream().lay_out(unquantized).files))["property"]["network-mode"] == "2"


@pytest.mark.parametrize(
    "how",
    [
        Preprocessing((64, 64)),
        Preprocessing((64, 64), Fit.TOP_LEFT, channels="bgr", divisor=1.0),
        Preprocessing((64, 64), divisor=255.0, mean=(0.4, 0.5, 0.6), std=(0.25, 0.25, 0.25)),
    ],
)
def test_its_arithmetic_is_the_heads(how: Preprocessing) -> None:
    scale, offsets = normalisation(how)
    levels = np.random.default_rng(0).integers(0, 256, (1, 3, 64, 64)).astype(np.uint8)
    theirs = scale * (levels - np.array(offsets).reshape(3, 1, 1))
    np.testing.assert_allclose(theirs, how.feed(levels), atol=1e-5)


def test_colours_that_are_scaled_apart_are_refused() -> None:
    with pytest.raises(InputError, match="nvinfer scales all colours alike"):
        normalisation(Preprocessing((64, 64), std=(0.229, 0.224, 0.225)))


@pytest.mark.parametrize("layout", ["raw", "segment"])
def test_heads_that_no_parser_reads_are_refused(tmp_path: Path, layout: str) -> None:
    shipment = shipment_of(tmp_path, build_detector(tmp_path / "m.onnx", layout), "tensorrt")
    with pytest.raises(InputError, match="--for deepstream: boxes of the head"):
        DeepStream().lay_out(shipment)


def test_schemes_of_other_runtimes_are_refused(tmp_path: Path) -> None:
    shipment = shipment_of(tmp_path, build_detector(tmp_path / "m.onnx", "scores"))
    with pytest.raises(InputError, match=r"made for ONNX Runtime.*runtime\.name=tensorrt"):
        DeepStream().lay_out(shipment)


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
@pytest.mark.parametrize(
    "layout", ["end_to_end", "scores", "yolov5", "yolox_decoded", "scores_normalised", "transposed"]
)
def test_the_parser_reads_what_the_head_reads(tmp_path: Path, layout: str) -> None:
    model = tmp_path / "m.onnx"
    if layout in ("end_to_end", "scores"):
        build_detector(model, layout)
    else:
        scene_detector(model, layout.replace("transposed", "scores_normalised"), transposed=layout == "transposed")
    shipment = shipment_of(tmp_path, model, "tensorrt")
    head = shipment.detector.head
    assert isinstance(head, PlainHead) and head.layout is not None
    files = DeepStream().lay_out(shipment).files
    (tmp_path / SOURCE).write_bytes(files[SOURCE])
    (tmp_path / "main.cpp").write_text(MAIN % (SOURCE, FUNCTION))
    program = tmp_path / "parse"
    command = ["g++", "-std=c++17", "-Wall", "-Werror", f"-I{HERE}", str(tmp_path / "main.cpp"), "-o", str(program)]
    subprocess.run(command, check=True)

    tiny = layout in ("end_to_end", "scores")
    fit = "top_left" if head.preprocessing.fit is Fit.TOP_LEFT else "centred"
    image = next(iter(sorted((tmp_path / "calibration" if tiny else scenes(tmp_path, fit)[0]).glob("*.png"))))
    pixels, _ = letterbox(cv2.imread(str(image)), head.preprocessing)
    with OnnxRuntimeRunner(model) as runner:
        outputs = shipment.detector.read(runner.infer(head.preprocessing.feed(pixels[None])))
    values, side = outputs[0][0].astype(np.float32), head.preprocessing.size[0]
    assert side in (64, SIDE)
    floor = 0.05
    (tmp_path / "values").write_bytes(values.tobytes())
    sizes = [*values.shape, side, len(shipment.classes)]
    words = [str(program), head.layout.output, *map(str, sizes), str(tmp_path / "values"), str(floor)]
    said = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    theirs = np.array([line.split() for line in said.splitlines()], np.float32).reshape(-1, 6)
    # With an IoU of 1 nothing is suppressed here: that nvinfer does itself, behind the parser.
    ours = head.decode(outputs, Thresholds(confidence=floor, iou=1.0, max_detections=10_000))[0]
    ours[:, :4] = ours[:, :4].clip(0, side)
    ours = ours[(ours[:, 2] > ours[:, 0]) & (ours[:, 3] > ours[:, 1])]
    assert len(ours) > 0
    order = [np.lexsort(rows.T.round(3)) for rows in (theirs, ours)]
    np.testing.assert_allclose(theirs[order[0]], ours[order[1]], atol=2e-3)
