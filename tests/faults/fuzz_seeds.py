"""The corpus that the fuzzer starts from: small sound files of every kind, all made by code."""

from __future__ import annotations

import json
import os
import shutil
import struct
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import onnx
import yaml

# The root before tests/: the folder tests/tuner must never be taken for the package.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from audited import prepare
from tiny_detectors import NAMES, build_detector, write_calibration, write_dataset

from objectives.torch_models.packages import SAFE_SETTINGS
from tuner.launch import launch, resume
from tuner.study.study_file import read_study

#: What of a run folder the fuzzer copies: all but the large pages and pictures, which are written and never read.
_WRITTEN_ONLY = ("report.html", "artifacts", "schemes", "workers", "workers.log", "*.csv", "*.md")


def write_seeds(folder: Path, *, full: bool = True) -> None:
    """Writes the corpus.

    Args:
        folder: Where to; must not exist.
        full: Whether to make a real run too, and a checkpoint, which needs the `torch` extra.
    """
    data = folder / "data"
    model = build_detector(data / "m.onnx")
    write_dataset(data, model, 4)
    write_calibration(data, 2)
    shutil.rmtree(data / "label_cache")
    _write_models(folder / "onnx")
    _write_yolo(data)
    _write_pictures(folder / "pictures")
    _write_studies(data)
    resume(prepare(folder / "replay", "replayed", 1, 0.0, None), trials=24)
    _strip(folder / "replay" / "run")
    if full:
        _write_real_run(data, folder / "real")
        _write_checkpoint(folder / "pt" / "tiny.pt")


def _write_models(folder: Path) -> None:
    for layout in ("scores", "raw", "end_to_end"):
        build_detector(folder / f"{layout}.onnx", layout)
    build_detector(folder / "dynamic.onnx", "scores", dynamic_batch=True, names=False)
    model = onnx.load(folder / "scores.onnx")
    onnx.save(model, folder / "external.onnx", save_as_external_data=True, location="weights.bin", size_threshold=64)


def _write_yolo(data: Path) -> None:
    """Label text files and a data yaml beside the COCO set."""
    labels = json.loads((data / "labels.json").read_text())
    sizes = {image["id"]: image for image in labels["images"]}
    lines: dict[str, list[str]] = {}
    for entry in labels["annotations"]:
        image = sizes[entry["image_id"]]
        x, y, w, h = entry["bbox"]
        shares = [(x + w / 2) / image["width"], (y + h / 2) / image["height"], w / image["width"], h / image["height"]]
        words = [str(entry["category_id"] - 10), *(f"{min(1.0, max(0.0, share)):.5f}" for share in shares)]
        lines.setdefault(Path(image["file_name"]).stem, []).append(" ".join(words))
    (data / "labels").mkdir()
    for stem, rows in lines.items():
        (data / "labels" / f"{stem}.txt").write_text("\n".join(rows) + "\n")
    (data / "data.yaml").write_text(yaml.safe_dump({"path": ".", "val": "images", "names": list(NAMES[:3])}))


def _write_pictures(folder: Path) -> None:
    folder.mkdir()
    image = np.random.default_rng(0).integers(0, 255, (40, 56, 3)).astype(np.uint8)
    for suffix in ("png", "jpg", "bmp", "webp", "tiff"):
        cv2.imwrite(str(folder / f"plain.{suffix}"), image)
    cv2.imwrite(str(folder / "progressive.jpg"), image, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])
    cv2.imwrite(str(folder / "deep.png"), image.astype(np.uint16) * 257)
    cv2.imwrite(str(folder / "deep.tiff"), image.astype(np.uint16) * 257)
    cv2.imwrite(str(folder / "float.tiff"), image.astype(np.float32) / 255)
    cv2.imwrite(str(folder / "grey.png"), image[:, :, 0])
    cv2.imwrite(str(folder / "alpha.png"), np.dstack([image, image[:, :, :1]]))
    jpeg = (folder / "plain.jpg").read_bytes()
    for turn in range(2, 9):
        (folder / f"turned{turn}.jpg").write_bytes(turned(jpeg, turn))
    (folder / "cmyk.tiff").write_bytes(_cmyk_tiff(8, 6))
    cv2.imwrite(str(folder / "large.png"), np.zeros((10_000, 10_000), np.uint8))
    (folder / "bomb.png").write_bytes(grey_png(30_000, 30_000))
    (folder / "empty.png").write_bytes(b"")


def turned(jpeg: bytes, orientation: int) -> bytes:
    """A JPEG with an EXIF block that holds an orientation alone."""
    entry = struct.pack(">HHIHH", 0x0112, 3, 1, orientation, 0)
    tiff = b"MM\0*" + struct.pack(">IH", 8, 1) + entry + struct.pack(">I", 0)
    block = b"Exif\0\0" + tiff
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + jpeg[2:]


def grey_png(width: int, height: int) -> bytes:
    """A black PNG of one bit per pixel: 30,000 x 30,000 of them take 0.1 megabytes and ask for 2.7 GB."""
    packer = zlib.compressobj(9)
    row = bytes(1 + (width + 7) // 8)
    body = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", body), (b"IEND", b"")]
    packed = (struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def _cmyk_tiff(width: int, height: int) -> bytes:
    """An uncompressed TIFF of four inks per pixel."""
    pixels = bytes(range(256))[: width * height * 4]
    tags = [(256, 3, 1, width), (257, 3, 1, height), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 5), (273, 4, 1, 8)]
    tags += [(277, 3, 1, 4), (278, 3, 1, height), (279, 4, 1, len(pixels))]
    table = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags) + bytes(4)
    return b"II*\0" + struct.pack("<I", 8 + len(pixels)) + pixels + table


def _write_studies(data: Path) -> None:
    study = {
        "name": "real",
        "model": {"path": "m.onnx"},
        "data": {"images": "images", "annotations": "labels.json", "calibration": "calibration.txt"},
        "space": {"rules": [{"layers": "/model/0/*", "formats": ["fp16", "int8"]}]},
        "objectives": ["map_50_95", "latency_ms", "weight_mib"],
        "timing": {"min_seconds": 0.05, "warmup_ms": 5.0, "max_cov": 5.0, "min_iterations": 5},
        "sensitivity": {"images": 1},
        "calibration": {"method": "percentile"},
        "weights": {"method": "rtn"},
        "search": {"trials": 3, "sampler": "nsga2"},
    }
    (data / "study.yaml").write_text(yaml.safe_dump(study))


def _write_real_run(data: Path, folder: Path) -> None:
    launch(read_study(data / "study.yaml"), data / "run")
    _strip(data / "run")
    shutil.copytree(data, folder)
    shutil.rmtree(data / "run")


def _strip(run: Path) -> None:
    for pattern in _WRITTEN_ONLY:
        for entry in run.glob(pattern):
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def _write_checkpoint(path: Path) -> None:
    os.environ.update(SAFE_SETTINGS)
    import torch
    from ultralytics.nn.tasks import DetectionModel

    torch.manual_seed(0)
    layers = [[-1, 1, "Conv", [8, 3, 2]], [-1, 1, "Conv", [8, 3, 2]], [-1, 1, "Conv", [8, 3, 2]]]
    module = DetectionModel({"nc": 3, "backbone": layers, "head": [[[2], 1, "Detect", ["nc"]]]}, verbose=False)
    module.names = {index: NAMES[index] for index in range(3)}
    path.parent.mkdir()
    torch.save({"model": module.half(), "ema": None, "train_args": {"task": "detect", "imgsz": 64}}, path)


if __name__ == "__main__":  # a process of its own: it starts threads and children, and the fuzzer is forked
    write_seeds(Path(sys.argv[1]), full="--full" in sys.argv)
