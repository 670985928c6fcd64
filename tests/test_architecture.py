"""What the floor plan promises: who may know whose name, how many files lie flat, how long they are."""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest
from architecture import ROOMS, ROOT, decisions, modules, opened_files

from objectives.runtimes.registry import RUNTIMES
from objectives.tasks.detection.heads.registry import HEADS
from search_spaces.formats import FORMATS, UNQUANTIZED

#: What may decide by the names of a kind.
OWNERS = {
    "runtime": ("objectives/runtimes/",),
    "head": ("objectives/tasks/detection/heads/",),
    "format": ("search_spaces/formats.py",),
}
NAMES = {
    "runtime": RUNTIMES.names(),
    "head": HEADS.names(),
    "format": tuple(name for name in FORMATS if name != UNQUANTIZED),
}


#: Other things that happen to be called as one of the kind is.
NAMESAKES = {
    "format": {
        "objectives/devices/cpu.py": "a field of a run's identity: the processor's int8 instructions",
        "objectives/runtimes/tensorrt/build.py": "TensorRT's builder flags",
        "objectives/runtimes/tensorrt/engine_report.py": "data types as TensorRT's inspector calls them",
        "objectives/torch_models/onnx_ptq.py": "ModelOpt's `quantize_mode`",
    },
    "runtime": {
        "tuner/results/targets/registry.py": "a target that is called as a runtime is",
        "tuner/results/targets/triton.py": "Triton's names of its backends",
    },
    "head": {
        "tuner/compare/sensitivity_methods.py": "`sensitivity.scores`, a key of the study file",
        "tuner/search/trials.py": "an attribute of Optuna's trials",
    },
}


@pytest.mark.parametrize("kind", OWNERS)
def test_only_its_own_room_decides_by_a_name(kind: str) -> None:
    """Heads are called by plain words, which are keys of data as well: there keys do not count."""
    free = (*OWNERS[kind], *NAMESAKES.get(kind, {}))
    outside = [path for path in modules() if not path.as_posix().startswith(free)]
    assert [place for path in outside for place in decisions(path, NAMES[kind], keys=kind != "head")] == []


@pytest.mark.parametrize(
    ("line", "decides"),
    [
        ("x = y == 'int8'", True),
        ("x = y in ('fp8', 'int8')", True),
        ("x = {'int8': 1}", True),
        ("x = names['int8']", True),
        ("match x:\n    case 'int8': pass", True),
        ("x = y.startswith('int8')", True),
        ("x: Literal['int8']", True),
        ("x = say('int8')", False),
        ("x = 'the format int8'", False),
    ],
)
def test_the_reader_of_decisions_sees_them(tmp_path: Path, line: str, decides: bool) -> None:
    (tmp_path / "m.py").write_text(line)
    assert bool(decisions(tmp_path / "m.py", ["int8"])) is decides


#: Modules of tuner/ that open files by their names: none of these lies in a run folder that somebody gave us.
NAMED_BY_THE_USER = {
    "tuner/cli/": "what the command line names, and what doctor asks the system",
    "tuner/compare/rivals/": "files of another tool, in a folder made for it a moment before",
    "tuner/results/build.py": "a model that the command line names, and engines of the user's cache",
    "tuner/terminal/": "the null device, where a stream is closed",
    "tuner/study/artifacts.py": "the draft of a durable file",
}


def test_files_of_a_run_are_opened_in_one_place() -> None:
    """A link or a FIFO that somebody planted is refused there, whatever file of a run it stands for."""
    inside = [path for path in modules() if path.parts[0] == "tuner"]
    outside = [path for path in inside if not path.as_posix().startswith(tuple(NAMED_BY_THE_USER))]
    assert [place for path in outside for place in opened_files(path)] == []
    for owner in NAMED_BY_THE_USER:
        assert any(opened_files(path) for path in inside if path.as_posix().startswith(owner)), owner


@pytest.mark.parametrize(
    ("line", "opens"),
    [
        ("open(x)", True),
        ("os.open(x, 0)", True),
        ("x.open()", True),
        ("Path.open(x)", True),
        ("(a / b).read_bytes()", True),
        ("shutil.copy(a, b)", True),
        ("RunFolder.open(x)", False),
        ("options.copy()", False),
    ],
)
def test_the_reader_of_opened_files_sees_them(tmp_path: Path, line: str, opens: bool) -> None:
    (tmp_path / "m.py").write_text(line)
    assert bool(opened_files(tmp_path / "m.py")) is opens


def test_few_files_lie_flat() -> None:
    for room in ("tuner", "objectives"):
        flat = [path for path in modules() if path.parent == Path(room)]
        assert len(flat) <= 6, flat


def test_files_are_short() -> None:
    lines = {path: len((ROOT / path).read_text(encoding="utf-8").splitlines()) for path in modules()}
    counts = sorted(count for path, count in lines.items() if path.name != "__init__.py")
    assert max(counts) <= 400, max(lines, key=lines.__getitem__)
    assert statistics.median(counts) <= 130
    assert counts[int(0.9 * len(counts))] <= 250


def test_every_folder_is_a_package_with_a_word_on_itself() -> None:
    folders = {path.parent for path in modules()}
    for folder in folders:
        first = (ROOT / folder / "__init__.py").read_text(encoding="utf-8")
        assert first.startswith('"""'), folder
    assert {folder.parts[0] for folder in folders} == set(ROOMS)
