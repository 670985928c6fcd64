"""Where hostile input enters: one function per kind makes a case, a mutated file and the command that reads it."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from fuzz_files import checkpoint_changed, database_changed
from fuzz_mutations import Draw, bytes_changed, json_changed, lines_changed, yaml_changed
from fuzz_onnx import escaping, external_changed, model_changed

from objectives.runtimes.replay.evaluator import ReplaySettings
from objectives.tasks.detection.data.calibration_set import load_calibration
from objectives.tasks.detection.data.dataset import load_dataset
from objectives.tasks.detection.data.preprocessed import PreprocessedImages
from objectives.tasks.detection.data.preprocessing import Preprocessing
from objectives.tasks.detection.metrics.scoring import score
from objectives.tasks.detection.predictions import Predictions
from search_spaces.sensitivity import SensitivityTable
from tuner.cli.app import app
from tuner.prepare.prepared import prepare_study
from tuner.results.finalize import finish
from tuner.results.loaded import load_run
from tuner.study.inputs import read_inputs
from tuner.study.run_folder import read_text
from tuner.study.study_file import read_study
from tuner.terminal.console import guarded


@dataclass(frozen=True)
class Case:
    """One mutated input and what reads it.

    Attributes:
        note: Which file, which command.
        work: Reads it; returns the exit code.
        refuse: Whether it must be refused.
        arguments: Of the command line, where a command reads it.
        own_process: Whether that runs in a process of its own, which the harness must let it start.
        elsewhere: Whether it may read files outside the given folder, as a data yaml may name them.
    """

    note: str
    work: Callable[[], int]
    refuse: bool = False
    arguments: tuple[str, ...] = ()
    own_process: bool = False
    elsewhere: bool = False


Maker = Callable[[Draw, Path, Path], Case]


def command(note: str, *arguments: str, refuse: bool = False) -> Case:
    """A case of the command line, in this process, where the audit hook tells what it did; nothing watches over it."""

    def work() -> int:
        sys.argv = ["tuner", *arguments]
        try:
            return guarded(app)
        except SystemExit as end:
            return int(end.code or 0)

    return Case(f"{note}: {' '.join(arguments)}", work, refuse, arguments)


def function(note: str, work: Callable[[], object], *, refuse: bool = False, elsewhere: bool = False) -> Case:
    """A case of one reader, within the command line's own guard."""

    def whole() -> None:
        work()

    return Case(note, lambda: guarded(whole), refuse, elsewhere=elsewhere)


def onnx_case(draw: Draw, seeds: Path, given: Path) -> Case:
    """A changed model: listed, scored, or quantized."""
    models = [seeds / "onnx" / f"{name}.onnx" for name in ("scores", "raw", "end_to_end", "dynamic")]
    seed = draw.choice(models)
    (given / "m.onnx").write_bytes(model_changed(draw, seed.read_bytes(), draw.choice(models).read_bytes()))
    if draw.random() < 0.6:
        return command(seed.name, "layers", "m.onnx", "--json")
    copy(seeds / "data", given, "images", "labels.json", "calibration", "calibration.txt")
    if draw.random() < 0.6:
        return command(
            seed.name, "eval", "m.onnx", "--images", "images", "--annotations", "labels.json", "--limit", "2"
        )
    options = ("--calibration", "calibration.txt", "--calibration-images", "1", "--weights", "rtn")
    return command(seed.name, "materialize", "m.onnx", "--uniform", "int8", *options, "--out", "out.onnx")


def external_case(draw: Draw, seeds: Path, given: Path) -> Case:
    """External data: outside its folder, of odd offsets, damaged."""
    kind = draw.randrange(3)
    if kind == 0:
        data = escaping(draw, (seeds / "onnx" / "scores.onnx").read_bytes(), given, given.parent / "outside")
        (given / "m.onnx").write_bytes(data)
        if draw.random() < 0.8:
            return command("escaping", "layers", "m.onnx", refuse=True)
        copy(seeds / "data", given, "images", "labels.json")
        arguments = ("eval", "m.onnx", "--images", "images", "--annotations", "labels.json")
        return command("escaping", *arguments, refuse=True)
    copy(seeds / "onnx", given, "external.onnx", "weights.bin")
    model, weights = given / "external.onnx", given / "weights.bin"
    if kind == 1:
        model.write_bytes(external_changed(draw, model.read_bytes()))
    elif draw.random() < 0.5:
        weights.write_bytes(bytes_changed(draw, weights.read_bytes()))
    else:
        weights.unlink()
        draw.choice((weights.mkdir, lambda: weights.symlink_to("weights.bin"), lambda: None))()
    return command("external", "layers", "external.onnx", "--json")


def study_case(draw: Draw, seeds: Path, given: Path) -> Case:
    """A changed study file: all that is read before a study starts."""
    if draw.random() < 0.1:
        copy(seeds / "replay", given, "model.onnx", "replay.json")
        (given / "study.yaml").write_bytes(yaml_changed(draw, (seeds / "replay" / "study.yaml").read_bytes()))
        return command("study.yaml", "run", "study.yaml", "--run", "out", "--trials", "2")
    copy(seeds / "data", given)
    text = (given / "study.yaml").read_bytes()
    if draw.random() < 0.1:  # by --set
        value = yaml_changed(draw, b"{trials: 3}").decode(errors="replace").replace("\0", "")[:20_000]
        key = draw.choice(("search", "search.trials", "space", "model.image_size", "name", "", "a.b.c.d", "runtime"))
        return function("--set", lambda: read_inputs(read_study(given / "study.yaml", [f"{key}={value}"])))
    (given / "study.yaml").write_bytes(yaml_changed(draw, text))
    return function("study.yaml", lambda: read_inputs(read_study(given / "study.yaml")))


def yolo_case(draw: Draw, seeds: Path, given: Path) -> Case:
    """A changed data yaml or label file of Ultralytics'; it may name any file, and must not show what that holds."""
    copy(seeds / "data", given, "images", "labels", "data.yaml")
    if draw.random() < 0.15:
        outside = draw.choice((Path("../outside"), given.parent / "outside"))
        named = (
            outside,
            outside / "canary.txt",
            outside / "secret.bin",
            "/etc/passwd",
            "/proc/self/environ",
            "/dev/zero",
        )
        listed = draw.choice(named)
        if draw.random() < 0.5:
            (given / "list.txt").write_text(f"images/x.png\n{listed}\n{listed}/x.jpg\n")
            listed = "list.txt"
        data = yaml.safe_load((given / "data.yaml").read_text()) | {"val": str(listed)}
        (given / "data.yaml").write_text(yaml.safe_dump(data))
    elif draw.random() < 0.1:  # a label file that is a link out of the set
        file = draw.choice(sorted((given / "labels").iterdir()))
        file.unlink()
        file.symlink_to(given.parent / "outside" / "canary.txt")
    elif draw.random() < 0.6:
        (given / "data.yaml").write_bytes(yaml_changed(draw, (given / "data.yaml").read_bytes()))
    else:
        file = draw.choice(sorted((given / "labels").iterdir()))
        file.write_bytes(lines_changed(draw, file.read_bytes()))
    return function("data.yaml", lambda: _scored(given, None), elsewhere=True)


def annotations_case(draw: Draw, seeds: Path, given: Path) -> Case:
    """A changed COCO file: read, its images opened, scored against detections."""
    copy(seeds / "data", given, "images", "labels.json")
    (given / "labels.json").write_bytes(json_changed(draw, (given / "labels.json").read_bytes()))
    return function("labels.json", lambda: _scored(given, given / "labels.json"))


def _scored(given: Path, annotations: Path | None) -> None:
    dataset = load_dataset(given / "images" if annotations else given / "data.yaml", annotations)
    dataset.category_of_class(("apple", "boat", "cat"), 3)
    images = PreprocessedImages.build(dataset.images, Preprocessing((64, 64)), given / "cache")
    rows = np.array([[1, 2, 30, 40, 0.9, 0], [5, 5, 20, 20, 0.5, 1]], np.float32)
    found = Predictions(images.ids, (rows,) * len(images), ("apple", "boat", "cat"), 3)
    score(dataset, found)
    assert dataset.digest


def text_case(draw: Draw, seeds: Path, given: Path) -> Case:
    """Other files that a user names: a scheme, a sensitivity table, recorded scores, an image list."""
    kind = draw.randrange(4)
    if kind == 0:
        copy(seeds / "data", given, "m.onnx", "calibration", "calibration.txt")
        scheme = (seeds / "replay" / "run" / "front.json").read_bytes()
        (given / "scheme.json").write_bytes(
            json_changed(draw, b'{"allocation": {"/model/0/conv/Conv": "int8"}}', scheme)
        )
        options = ("--calibration", "calibration.txt", "--calibration-images", "1", "--weights", "rtn")
        return command("scheme", "materialize", "m.onnx", "--scheme", "scheme.json", *options, "--out", "o.onnx")
    if kind == 1:
        table = (seeds / "replay" / "run" / "sensitivity.json").read_bytes()
        (given / "s.json").write_bytes(json_changed(draw, table))
        return function(
            "sensitivity",
            lambda: SensitivityTable.from_json(read_text(given / "s.json")).to_markdown(),
        )
    if kind == 2:
        text = b'{"delay": 0.0, "failures": {"*": "crash"}, "scores": {"a": {"accuracy": {}}}, "seed": 1}'
        (given / "replay.json").write_bytes(json_changed(draw, text))
        return function("replay", lambda: ReplaySettings.read(given / "replay.json"))
    copy(seeds / "data", given, "calibration", "calibration.txt")
    (given / "calibration.txt").write_bytes(lines_changed(draw, (given / "calibration.txt").read_bytes()))
    return function("list", lambda: load_calibration(given / "calibration.txt", draw.choice((None, 1, 2))))


def image_case(draw: Draw, seeds: Path, given: Path) -> Case:
    """Changed pictures: as a calibration list, or drawn upon."""
    pictures = sorted((seeds / "pictures").iterdir())
    seed = draw.choice([p for p in pictures if p.stem not in ("large", "bomb")] if draw.random() < 0.97 else pictures)
    data = seed.read_bytes()
    changed = draw.random() < 0.9
    target = given / draw.choice((seed.name, seed.name, f"x{draw.choice(pictures).suffix}"))
    target.write_bytes(bytes_changed(draw, data, draw.choice(pictures).read_bytes()) if changed else data)
    refuse = not changed and seed.stem in ("bomb", "empty")
    if draw.random() < 0.2:
        copy(seeds / "data", given, "m.onnx")
        return command(seed.name, "detect", "m.onnx", target.name, "--out", "drawn", refuse=refuse)
    (given / "list.txt").write_text(target.name)
    records = lambda: load_calibration(given / "list.txt").images  # noqa: E731 - read within the guard
    return function(
        seed.name, lambda: PreprocessedImages.build(records(), Preprocessing((64, 64)), given / "cache"), refuse=refuse
    )


def checkpoint_case(draw: Draw, seeds: Path, given: Path) -> Case:
    """A changed checkpoint, matched with a model."""
    copy(seeds / "data", given, "m.onnx")
    data, refuse = checkpoint_changed(draw, (seeds / "pt" / "tiny.pt").read_bytes(), given.parent / "outside" / "owned")
    (given / "m.pt").write_bytes(data)
    return command("checkpoint", "match", "m.pt", "m.onnx", "--json", refuse=refuse)


def database_case(draw: Draw, seeds: Path, given: Path) -> Case:
    """A damaged study.db in a run folder."""
    copy(seeds / "replay", given)
    database_changed(draw, given / "run" / "study.db")
    return of_run(draw, "study.db", given)


def run_case(draw: Draw, seeds: Path, given: Path) -> Case:
    """A run folder with one file damaged, replaced by a folder or by a link that leads outside."""
    real = draw.random() < 0.4 and (seeds / "real").is_dir()
    copy(seeds / ("real" if real else "replay"), given)
    files = [path for path in sorted((given / "run").rglob("*")) if path.is_file() and path.name != "study.db"]
    top = [path for path in files if "cache" not in path.parts]
    file = draw.choice(draw.choice((top, files)))
    if draw.random() < 0.12:
        _replaced(draw, file if draw.random() < 0.5 else given / "run" / draw.choice(("schemes", "artifacts", ".lock")))
    else:
        change = {".json": json_changed, ".yaml": yaml_changed, ".jsonl": lines_changed}.get(file.suffix, bytes_changed)
        file.write_bytes(change(draw, file.read_bytes(), draw.choice(files).read_bytes()))
    return of_run(draw, str(file.relative_to(given)), given, real=real)


def _replaced(draw: Draw, path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    outside = Path("../outside" if path.parent.name == "given" else "../../outside")
    links = (outside / "canary.txt", outside, Path("/dev/zero"), Path(path.name))
    if draw.random() < 0.3:
        path.mkdir()
    else:
        path.symlink_to(draw.choice(links))


def of_run(draw: Draw, note: str, given: Path, *, real: bool = False, refuse: bool = False) -> Case:
    """A command that opens a run folder."""
    kind = draw.random()
    if real and kind < 0.3:
        return function(f"{note}: finish", lambda: _finished(given / "run"), refuse=refuse)
    if not real and kind < 0.2:
        return command(note, "resume", "run", "--trials", "26", refuse=refuse)
    if kind < 0.4:
        return command(note, "report", "run", refuse=refuse)
    if kind < 0.6:
        return command(note, "export", "run", "--trial", "1", "--out", "out", refuse=refuse)
    shown = (("status", "run", "--json"), ("front", "run", "--json"), ("front", "run"))
    return command(note, *draw.choice(shown), refuse=refuse)


def _finished(run: Path) -> None:
    loaded = load_run(run)
    assert loaded.reference is not None or not loaded.run.reference.exists()
    if loaded.reference is not None:
        finish(prepare_study(read_inputs(read_study(loaded.run.study_file)), loaded.run), loaded.reference)


def copy(source: Path, target: Path, *names: str) -> None:
    """Copies what a folder holds, or some of it."""
    for entry in [source / name for name in names] if names else source.iterdir():
        if entry.is_dir():
            shutil.copytree(entry, target / entry.name)
        else:
            shutil.copyfile(entry, target / entry.name)


#: Each kind with its share of the inputs.
KINDS: dict[str, tuple[Maker, int]] = {
    "onnx": (onnx_case, 28),
    "external": (external_case, 7),
    "study": (study_case, 11),
    "yolo": (yolo_case, 8),
    "annotations": (annotations_case, 16),
    "text": (text_case, 6),
    "image": (image_case, 11),
    "checkpoint": (checkpoint_case, 7),
    "database": (database_case, 3),
    "run": (run_case, 3),
}
