"""A run folder that somebody else filled: links and odd files at any depth are refused before anything is opened."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from search_spaces.errors import InputError
from tuner.cli.app import main
from tuner.launch import launch, work
from tuner.results.loaded import load_run
from tuner.study.artifacts import FolderArtifacts
from tuner.study.run_folder import RunFolder
from tuner.study.study_file import read_study

FILES = (
    "study.yaml",
    "reference.json",
    "log.jsonl",
    "workers/worker-0.log",
    "workers/turn.lock",
    ".lock",
    "artifacts/5b8a7c1e-0000-4000-8000-000000000000",
    "artifacts/previews/previews.json",
    "cache/evaluations/0123.json",
    "cache/images/ab.npy",
    "schemes/3/model.onnx",
)
FOLDERS = ("schemes/999", "workers", "cache", "cache/predictions", "artifacts/previews")


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "run", "name: a\n")


def planted(run: RunFolder, name: str) -> Path:
    path = run.path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir() and not path.is_symlink():
        for inner in path.iterdir():
            inner.rmdir()
        path.rmdir()
    path.unlink(missing_ok=True)
    return path


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", [*FILES, *FOLDERS])
def test_links_and_fifos_are_refused_at_any_depth(run: RunFolder, tmp_path: Path, name: str) -> None:
    target = tmp_path / "elsewhere"
    target.mkdir() if name in FOLDERS else target.write_text("mine")
    planted(run, name).symlink_to(target)
    with pytest.raises(InputError, match=r"holds a link|not a run"):
        RunFolder.open(run.path)
    os.mkfifo(planted(run, name))
    with pytest.raises(InputError, match=r"holds a FIFO|not a run"):
        RunFolder.open(run.path)
    assert target.is_dir() or target.read_text() == "mine"


@pytest.mark.parametrize("name", [name for name in FILES if name != "study.yaml"])
def test_a_folder_where_a_file_belongs_is_refused(run: RunFolder, name: str) -> None:
    planted(run, name).mkdir()
    with pytest.raises(InputError, match=f"{name}' is a folder where a file belongs"):
        RunFolder.open(run.path)


@pytest.mark.parametrize("name", FOLDERS)
def test_a_file_where_a_folder_belongs_is_refused(run: RunFolder, name: str) -> None:
    planted(run, name).touch()
    with pytest.raises(InputError, match=f"{name}' is a file where a folder belongs"):
        RunFolder.open(run.path)


def test_hard_links_and_files_of_a_finished_run_are_fine(study_file: Callable[..., Path], tmp_path: Path) -> None:
    run = launch(read_study(study_file(search={"trials": 3})), tmp_path / "run", workers=2)
    os.link(run.reference, tmp_path / "kept.json")
    (run.path / "notes").mkdir()
    (run.path / "notes" / "of mine.txt").touch()
    assert load_run(run.path).front


def test_a_tower_of_folders_is_refused(run: RunFolder) -> None:
    path = run.path / "notes"
    for _ in range(40):
        path = path / "x"
    path.mkdir(parents=True)
    with pytest.raises(InputError, match="nested more than"):
        RunFolder.open(run.path)


def test_every_command_that_opens_a_run_refuses_it(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (run.path / "schemes").mkdir()
    (run.path / "schemes" / "0").symlink_to(tmp_path)
    commands = [
        ["status"],
        ["front"],
        ["report"],
        ["dashboard"],
        ["resume"],
        ["worker"],
        ["rivals", "modelopt:int8:max"],
    ]
    commands.append(["export", "--trial", "0", "--out", str(tmp_path / "out")])
    for name, *more in commands:
        monkeypatch.setattr("sys.argv", ["tuner", name, str(run.path), *more])
        with pytest.raises(SystemExit) as caught:
            main()
        lines = capfd.readouterr().err.splitlines()
        assert caught.value.code == 2 and len(lines) == 1 and "holds a link, 'schemes/0'" in lines[0], lines
    with pytest.raises(InputError, match="holds a link"):
        work(run.path)


def test_the_dashboard_hands_out_no_link(tmp_path: Path) -> None:
    """One that is planted while it serves."""
    store = FolderArtifacts(tmp_path / "artifacts")
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "model").write_text("model")
    store.put("ab-12", tmp_path / "model")
    with store.open_reader("ab-12") as file:
        assert file.read() == b"model"
    (tmp_path / "artifacts" / "cd-34").symlink_to(tmp_path / "secret")
    with pytest.raises(Exception, match="is a link where a file belongs"):
        store.open_reader("cd-34")
