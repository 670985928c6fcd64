"""NVIDIA DeepStream: a configuration of its nvinfer element, and the source of the parser that reads the boxes.

Keys are those of the DeepStream SDK's manual, "Gst-nvinfer", file configuration specifications.
"""

from __future__ import annotations

from typing import ClassVar

from objectives.runtimes.loader import Loader
from objectives.tasks.detection.data.preprocessing import Fit, Preprocessing
from objectives.tasks.detection.heads.layout import PlainHead
from objectives.tasks.detection.thresholds import Thresholds
from search_spaces.errors import InputError
from tuner.results.targets.nvinfer_parser import COMPILE, FUNCTION, LIBRARY, SOURCE, parser_source
from tuner.results.targets.target import Laid, Shipment

CONFIG, LABELS, ENGINE = "config_infer_primary.txt", "labels.txt", "model.engine"
_INT8, _FP16 = 1, 2  # network-mode
_NMS, _NO_CLUSTERING = 2, 4  # cluster-mode
_SHOWN = 0.25  # score from which boxes are shown, as Ultralytics has it
_BLACK = 0  # level of what nvinfer puts beside an image


class DeepStream:
    """A folder for the ``config-file-path`` of an nvinfer element."""

    title: ClassVar[str] = "DeepStream"

    def lay_out(self, shipment: Shipment) -> Laid:
        """As `Target` says."""
        loader = shipment.loaded_by("deepstream", Loader.TENSORRT)
        head, how = shipment.detector.head, shipment.detector.preprocessing
        layout = head.layout if isinstance(head, PlainHead) else None
        if layout is None:
            raise InputError(
                f"--for deepstream: boxes of the head {shipment.detector.name!r} are not in one output that a parser "
                "can read as it is; export the model with decoded boxes"
            )
        names = shipment.classes
        if not names:
            raise InputError("--for deepstream: needs the number of classes; name them by model.classes in the study")
        files = {
            CONFIG: _config(shipment, how, len(names), layout.suppressed).encode(),
            LABELS: "".join(f"{' '.join(name.split())}\n" for name in names).encode(),
            SOURCE: parser_source(layout, len(names)).encode(),
        }
        files |= {name: data for name, data in shipment.files.items() if name.endswith(".onnx")}
        plan, build = shipment.files.get(loader.value), shipment.build_command.replace(loader.value, ENGINE)
        notes = [f"{LIBRARY} is not here: compile it where DeepStream is installed: {COMPILE}"]
        steps = [COMPILE]
        if plan is not None:
            files[ENGINE] = plan
        else:
            notes.append(f"{ENGINE} is not here: build it on the GPU that runs it: {build}")
            steps.append(build)
        differs = []
        if how.fit is not Fit.STRETCHED and how.padding != _BLACK:
            differs.append(
                f"nvinfer fills up with black, the figures were measured with grey ({how.padding}): accuracy may "
                "differ a little for images of another shape than the input"
            )
        usage = [
            f"`{CONFIG}` is the `config-file-path` of an `nvinfer` element. What DeepStream or the GPU is needed for",
            "is made on that machine, in this folder:",
            "",
            "```sh",
            *steps,
            "```",
            "",
            f"`{SOURCE}` reads the output `{layout.output}` as it is; {LIBRARY} is not part of the export. The",
            "engine is built by `trtexec`: nvinfer's own builder does not have all of its flags, and would build",
            "another engine than was measured. An engine runs on its own kind of GPU and with its own version of",
            "TensorRT only.",
            "",
            *(f"- {note}" for note in differs),
            f"- Boxes are shown from a score of {_SHOWN} on (`pre-cluster-threshold`); mAP is measured with "
            f"{Thresholds().confidence}.",
        ]
        return Laid(files, "\n".join(usage) + "\n", "model.onnx", (*notes, *differs))


def _config(shipment: Shipment, how: Preprocessing, classes: int, suppressed: bool) -> str:
    scale, offsets = normalisation(how)
    letterbox, (height, width) = how.fit is not Fit.STRETCHED, how.size
    keys = {
        "gpu-id": 0,
        "gie-unique-id": 1,
        "process-mode": 1,  # whole frames
        "network-type": 0,  # a detector
        "onnx-file": "build.onnx" if "build.onnx" in shipment.files else "model.onnx",
        "model-engine-file": ENGINE,
        "batch-size": shipment.batch,
        "network-mode": _INT8 if shipment.int8 else _FP16,
        "infer-dims": f"3;{height};{width}",
        "net-scale-factor": repr(scale),
        **({"offsets": ";".join(repr(value) for value in offsets)} if any(offsets) else {}),
        "model-color-format": ("rgb", "bgr").index(how.channels),
        "maintain-aspect-ratio": int(letterbox),
        "symmetric-padding": int(how.fit is Fit.CENTRED),
        "scaling-filter": 1,  # bilinear
        "num-detected-classes": classes,
        "labelfile-path": LABELS,
        "cluster-mode": _NO_CLUSTERING if suppressed else _NMS,
        "parse-bbox-func-name": FUNCTION,
        "custom-lib-path": LIBRARY,
    }
    thresholds = Thresholds()
    attributes = {"pre-cluster-threshold": _SHOWN, "topk": thresholds.max_detections}
    attributes |= {} if suppressed else {"nms-iou-threshold": thresholds.iou}
    lines = ["[property]", *(f"{key}={value}" for key, value in keys.items())]
    lines += ["", "[class-attrs-all]", *(f"{key}={value}" for key, value in attributes.items())]
    return "\n".join(lines) + "\n"


def normalisation(how: Preprocessing) -> tuple[float, tuple[float, ...]]:
    """``net-scale-factor`` and ``offsets`` of nvinfer: it computes ``factor * (level - offset)``, one factor for all.

    Raises:
        InputError: The model's planes are scaled each by its own factor.
    """
    if len(set(how.std)) > 1:
        raise InputError(
            f"--for deepstream: nvinfer scales all colours alike, this model divides them by {list(how.std)}; "
            "fold that into the model's first layer and export it again"
        )
    return 1 / (how.divisor * how.std[0]), tuple(how.divisor * mean for mean in how.mean)
