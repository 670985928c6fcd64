"""Makes the exports that `coverage.py` scores: every family, untrained, at two export settings.

    python tests/benchmarks/coverage_exports.py FOLDER [--only TEXT]

Runs in an environment of its own that has torch, torchvision, ultralytics and transformers; nothing of tuner is
imported. One ``NAME.onnx`` a row; where the exporter fails, ``NAME.txt`` says why. What is there is not made again.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

os.environ["YOLO_OFFLINE"] = os.environ["HF_HUB_OFFLINE"] = "true"

SIZE = 320
FAMILIES = (
    "yolov3-tiny", "yolov5n", "yolov6n", "yolov8n", "yolov9t", "yolov10n", "yolo11n", "yolo12n", "yolo26n",
    "yolov8s-worldv2", "yoloe-11s", "rtdetr-l",
    *(f"{family}{task}" for family in ("yolov8n", "yolo11n", "yolo26n") for task in ("-seg", "-pose", "-obb")),
)  # fmt: skip
#: The first setting is that of most users; the second is one of these in turn.
PLAIN = {"opset": 17, "simplify": True}
OTHERS = {
    "dynamic13": {"opset": 13, "simplify": False, "dynamic": True},
    "half": {"opset": 17, "half": True},
    "nms": {"opset": 17, "nms": True},
}
#: Those that show suppression inside the graph, which one builder refuses whatever is around it.
NMS_INSIDE = ("yolov6n", "rtdetr-l", "yolo26n-obb")
Maker = Callable[[Path], None]


def ultralytics_rows() -> Iterator[tuple[str, Maker]]:
    """Every family and task, twice."""
    for number, name in enumerate(FAMILIES):
        other = list(OTHERS)[number % len(OTHERS)]
        other = "half" if other == "nms" and name not in NMS_INSIDE else other
        yield f"{name}.plain", partial(_ultralytics, name, PLAIN)
        yield f"{name}.{other}", partial(_ultralytics, name, OTHERS[other])


def _ultralytics(name: str, options: dict[str, Any], path: Path) -> None:
    import torch
    from ultralytics import RTDETR, YOLO, YOLOE, YOLOWorld

    torch.manual_seed(0)
    kinds = {"rtdetr": RTDETR, "world": YOLOWorld, "yoloe": YOLOE}
    kind = next((found for word, found in kinds.items() if word in name), YOLO)
    model = kind(f"{name}.yaml")
    _liven(model.model)
    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder) / "checkpoint.pt"  # by its own name it would look for trained weights
        model.save(saved)
        model = kind(saved)
        made = model.export(format="onnx", imgsz=SIZE, device="cpu", verbose=False, **options)
        path.write_bytes(Path(made).read_bytes())


def _liven(module: Any) -> None:
    """Makes scores of an untrained model vary: its biases say that nothing is anywhere."""
    import torch

    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, torch.nn.BatchNorm2d):
                part.running_mean.copy_(0.1 * torch.randn(part.running_mean.shape, generator=draw))
                part.running_var.copy_(0.5 + torch.rand(part.running_var.shape, generator=draw))
            elif isinstance(part, (torch.nn.Conv2d, torch.nn.Linear)) and part.bias is not None:
                part.bias.clamp_(min=-3.0)


def torchvision_rows() -> Iterator[tuple[str, Maker]]:
    """SSD, RetinaNet, Faster R-CNN."""
    for name in ("ssdlite320_mobilenet_v3_large", "retinanet_resnet50_fpn", "fasterrcnn_mobilenet_v3_large_320_fpn"):
        yield f"torchvision-{name.partition('_')[0]}", partial(_torchvision, name)


def _torchvision(name: str, path: Path) -> None:
    import torch

    detection = import_module("torchvision.models.detection")
    torch.manual_seed(0)
    options: dict[str, Any] = {} if name.startswith("ssd") else {"min_size": SIZE, "max_size": SIZE}
    if name.startswith("fasterrcnn"):
        options |= {"rpn_pre_nms_top_n_test": 60, "rpn_post_nms_top_n_test": 30}
    model = getattr(detection, name)(weights=None, weights_backbone=None, **options)
    _liven(model)
    order = ["boxes", "labels", "scores"] if name.startswith("fasterrcnn") else ["boxes", "scores", "labels"]
    _export(model, path, order)


def transformers_rows() -> Iterator[tuple[str, Maker]]:
    """The two-output family."""
    for name in ("Detr", "RTDetrV2", "DFine", "Yolos", "RfDetr"):
        yield f"transformers-{name.lower()}", partial(_transformers, name)


def _options(name: str) -> dict[str, Any]:
    """Of a small model of the family; what is not named is its default."""
    transformers = import_module("transformers")
    small = {"embedding_size": 32, "hidden_sizes": [32, 64, 128, 256], "depths": [1, 1, 1, 1], "layer_type": "basic"}
    none = {"use_timm_backbone": False, "use_pretrained_backbone": False, "backbone": None}
    levels = ["stage2", "stage3", "stage4"]
    if name == "Detr":
        backbone = transformers.ResNetConfig(**small, out_features=["stage4"])
        return {"backbone_config": backbone, **none, "encoder_layers": 2, "decoder_layers": 2, "d_model": 64}
    if name == "RTDetrV2":
        backbone = transformers.RTDetrResNetConfig(**small, out_features=levels)
        few = {"encoder_in_channels": [64, 128, 256], "decoder_layers": 2, "num_queries": 100}
        return {"backbone_config": backbone, **none, **few}
    if name == "DFine":
        return {"decoder_layers": 2, "num_queries": 100}
    if name == "Yolos":
        few = {"hidden_size": 96, "num_hidden_layers": 3, "num_attention_heads": 3, "intermediate_size": 192}
        return {**few, "image_size": [SIZE, SIZE]}
    return {"num_queries": 100}


def _transformers(name: str, path: Path) -> None:
    import torch

    transformers = import_module("transformers")
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(num_labels=12, **_options(name))
    model = getattr(transformers, f"{name}ForObjectDetection")(config)
    _liven(model)

    class Outputs(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, pixel_values: Any) -> Any:
            found = self.model(pixel_values=pixel_values)
            return found.logits, found.pred_boxes

    size = 336 if name == "RfDetr" else SIZE  # whole windows of whole patches
    _export(Outputs(), path, ["logits", "pred_boxes"], "pixel_values", size)


def yolox_rows() -> Iterator[tuple[str, Maker]]:
    """Grid outputs, and decoded ones."""
    from coverage_yolox import yolox

    for decode, form in ((False, "grid"), (True, "decoded")):
        yield f"yolox-nano.{form}", partial(_export, yolox(decode), outputs=["output"])


def _export(model: Any, path: Path, outputs: list[str], name: str = "images", size: int = SIZE) -> None:
    import torch

    model = copy.deepcopy(model).eval()
    image = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        torch.onnx.export(
            model, (image,), str(path), opset_version=17, input_names=[name], output_names=outputs, dynamo=False
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    from coverage_ops import ensure_operators

    ensure_operators()
    rows = [*yolox_rows(), *torchvision_rows(), *transformers_rows(), *ultralytics_rows()]
    for name, make in rows:
        path, note = options.folder / f"{name}.onnx", options.folder / f"{name}.txt"
        if options.only not in name or path.exists() or note.exists():
            continue
        draft = options.folder / f".{name}.onnx"
        try:
            with contextlib.redirect_stdout(sys.stderr):
                make(draft)
            draft.rename(path)
        except Exception as error:  # an export that its own tool cannot make is a row of the table too
            first = (str(error).strip().splitlines() or [""])[0]
            note.write_text(f"{type(error).__name__}: {first[:200]}\n", encoding="utf-8")
        print(name, "exported" if path.exists() else note.read_text(encoding="utf-8").strip(), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
