"""What no mutation of bytes makes: links and odd files at any depth, sparse files, storage URLs, native crashes."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import onnx
import yaml
from fuzz_mutations import Draw
from fuzz_targets import Case, Maker, command, copy, of_run
from onnx import TensorProto, helper

#: In every URL of a storage: a message that holds it is a finding.
SECRET = "s3cret"
_NEW = (
    "workers/worker-0.log",
    "workers/turn.lock",
    "schemes/999",
    "artifacts/5b8a7c1e-0000-4000-8000-000000000000",
    "artifacts/previews/previews.json",
    "cache/rescores/0.json",
    "cache/engines/deep/er/x.json",
    "notes/of/mine",
)
_FOLDERS = ("schemes", "workers", "cache", "cache/evaluations", "cache/predictions", "artifacts")
_SPARSE = 5 << 30
SECONDS = 28.0  # of a command that reads a model which native code cannot take; more on a busy machine


def planted_case(draw: Draw, seeds: Path, given: Path) -> Case:
    """A run folder with a link, a FIFO, a socket, or a file and a folder exchanged, at any depth."""
    real = draw.random() < 0.3 and (seeds / "real").is_dir()
    copy(seeds / ("real" if real else "replay"), given)
    run = given / "run"
    there = [str(path.relative_to(run)) for path in sorted(run.rglob("*"))]
    name = draw.choice(draw.choice((there, _NEW)))
    kind = draw.choice(("link", "link", "FIFO", "socket", "exchanged", "hard link"))
    if kind == "exchanged":
        files = [each for each in there if (run / each).is_file() and "." in Path(each).name[1:]]
        name = draw.choice(draw.choice((files, _FOLDERS)))
    if kind == "hard link":  # of what is sound: it must be read
        name = draw.choice([each for each in there if (run / each).is_file()])
    path = run / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        shutil.rmtree(path)
    kept = path.read_bytes() if path.is_file() else b""
    path.unlink(missing_ok=True)
    if kind == "link":
        up = Path(*[".."] * (len(path.relative_to(given).parts)))
        path.symlink_to(draw.choice((up / "outside" / "canary.txt", up / "outside", "/dev/zero", path.name, "/etc")))
    elif kind == "FIFO":
        os.mkfifo(path)
    elif kind == "socket":
        _bind(path)
    elif kind == "exchanged":
        path.touch() if name in _FOLDERS else path.mkdir()
    else:
        (given / "twin").write_bytes(kept)
        os.link(given / "twin", path)
    return of_run(draw, f"{kind}: {name}", given, real=real, refuse=kind != "hard link")


def _bind(path: Path) -> None:
    before = Path.cwd()
    os.chdir(path.parent)  # a socket's path has 108 characters at most
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
    finally:
        os.chdir(before)


def sparse_case(draw: Draw, seeds: Path, given: Path) -> Case:
    """A file of 5 GiB that takes no room on the disk, in place of any file that a command reads."""
    copy(seeds / "data", given)
    images = sorted((given / "images").iterdir())
    cases = (
        (given / "m.onnx", ("layers", "m.onnx")),
        (given / "labels.json", ("eval", "m.onnx", "--images", "images", "--annotations", "labels.json")),
        (images[0], ("eval", "m.onnx", "--images", "images", "--annotations", "labels.json")),
        (images[0], ("detect", "m.onnx", str(images[0].relative_to(given)), "--out", "drawn")),
        (given / "study.yaml", ("run", "study.yaml")),
    )
    if draw.random() < 0.5:
        shutil.rmtree(given)
        given.mkdir()
        os.chdir(given)
        copy(seeds / "replay", given)
        names = ("manifest.json", "reference.json", "cache/seeds.json", "study.yaml", "learned.json")
        file = given / "run" / draw.choice(names)
        _grow(file)
        return of_run(draw, f"sparse: {file.name}", given)
    file, arguments = draw.choice(cases)
    _grow(file)
    return command(f"sparse: {file.name}", *arguments, refuse=True)


def _grow(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.truncate(_SPARSE)


def url_case(draw: Draw, seeds: Path, given: Path) -> Case:
    """A run whose study file names a storage of its writer's choice."""
    copy(seeds / "replay", given)
    name = draw.choice((f"{given}/run/study.db", "run/study.db", f"{given.parent}/outside/canary.txt", "x.db", ""))
    sqlite = draw.choice(
        ("sqlite:///{}", "sqlite+pysqlite:///{}", "sqlite:///{}?timeout=5", "sqlite:///file:{}?uri=true", "SQLITE:///{}",
         "sqlite:////{}", "sqlite://{}", "sqlite+aiosqlite:///{}", "sqlite:///{}%00", "sqlite:///{}?mode=memory")
    ).format(name)  # fmt: skip
    server = draw.choice(
        ("postgresql+psycopg://u:{}@127.0.0.1:1/d", "postgresql+psycopg://127.0.0.1:1/d?user=u&password={}",
         "postgresql+psycopg://u:{}@127.0.0.1:port/d", "mysql://u:{}@h/d", "nosuch+driver://u:{}@h", "://u:{}@h",
         "postgresql+psycopg://u:a@{}@127.0.0.1:1/d", "u:{}@h/d")
    ).format(SECRET)  # fmt: skip
    path = given / "run" / "study.yaml"
    study = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**study, "storage": sqlite if draw.random() < 0.5 else server}))
    return of_run(draw, f"storage: {name}", given)


def native_case(draw: Draw, seeds: Path, given: Path) -> Case:
    """A model that native code dies of, or never ends with: by the real command, in processes of its own."""
    kind = draw.choice(("Conv", "MaxPool", "Loop"))
    onnx.save(_looping() if kind == "Loop" else _undivided(kind), given / "m.onnx")
    copy(seeds / "data", given, "images", "labels.json")
    arguments = draw.choice(
        (("layers", "m.onnx"), ("bench", "m.onnx"), ("bench", "m.onnx", "--json"),
         ("eval", "m.onnx", "--images", "images", "--annotations", "labels.json"),
         ("detect", "m.onnx", "images", "--out", "drawn"))
    )  # fmt: skip
    limits = {"TUNER_STEP_SECONDS": "4"}

    def work() -> int:
        tuner = [sys.executable, "-m", "tuner", *arguments]
        done = subprocess.run(
            tuner, check=False, env={**os.environ, **limits}, timeout=SECONDS, stdin=subprocess.DEVNULL
        )
        return done.returncode

    return Case(f"native {kind}: {' '.join(arguments)}", work, False, arguments, own_process=True)


def _undivided(kind: str) -> onnx.ModelProto:
    """A stride of 0, by which shapes are divided."""
    pixels = helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 64, 64])
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, None)
    shape = {"kernel_shape": [3, 3], "strides": [0, 0]}
    weight = helper.make_tensor("w", TensorProto.FLOAT, [3, 3, 3, 3], [0.1] * 81)
    inputs = ["images", "w"] if kind == "Conv" else ["images"]
    graph = helper.make_graph([helper.make_node(kind, inputs, ["out"], **shape)], "g", [pixels], [out], [weight])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def _looping() -> onnx.ModelProto:
    """A loop of 2^62 turns around a detector's only output."""
    pixels = helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 64, 64])
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, None)
    inner = [helper.make_tensor_value_info(name, kind, []) for name, kind in (("i", 7), ("on", 9))]
    state = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("x", "y")]
    going = helper.make_tensor_value_info("going", TensorProto.BOOL, [])
    nodes = [helper.make_node("Identity", ["on"], ["going"]), helper.make_node("Add", ["x", "x"], ["y"])]
    body = helper.make_graph(nodes, "body", [*inner, state[0]], [going, state[1]])
    turns = helper.make_tensor("turns", TensorProto.INT64, [], [1 << 62])
    begin = helper.make_tensor("begin", TensorProto.BOOL, [], [True])
    loop = helper.make_node("Loop", ["turns", "begin", "images"], ["out"], body=body)
    graph = helper.make_graph([loop], "g", [pixels], [out], [turns, begin])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


#: As those of `fuzz_targets`.
KINDS: dict[str, tuple[Maker, int]] = {
    "planted": (planted_case, 6),
    "sparse": (sparse_case, 2),
    "url": (url_case, 3),
    "native": (native_case, 1),
}
