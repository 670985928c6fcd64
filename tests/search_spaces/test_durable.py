"""The durable writer: old or new, never a part, and on the disk before it has its name."""

from __future__ import annotations

import os
import resource
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from search_spaces.durable import append_durably, durable_file, durable_folder, write_durably

# Dies, as of a power cut, when the temporary file is complete and about to take its name.
_CRASH = """
import os, sys
from pathlib import Path
from search_spaces.durable import write_durably
sys.addaudithook(lambda event, _: os._exit(9) if event == "os.rename" else None)
write_durably(Path(sys.argv[1]), "new")
"""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[tuple[bool, Callable[[], object]]]:
    """What was synchronised, in order: whether a folder, and how to look at it as it was."""
    calls: list[tuple[bool, Callable[[], object]]] = []
    real = os.fsync

    def record(handle: int) -> None:
        folder = stat.S_ISDIR(os.fstat(handle).st_mode)
        seen: object = sorted(os.listdir(handle)) if folder else os.fstat(handle).st_size
        calls.append((folder, lambda: seen))
        real(handle)

    monkeypatch.setattr(os, "fsync", record)
    return calls


def test_text_and_bytes_with_todays_permissions(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    write_durably(path, "ä\r\n")
    assert path.read_bytes() == "ä\r\n".encode() and stat.S_IMODE(path.stat().st_mode) == 0o644
    write_durably(path, b"\0\1")
    assert path.read_bytes() == b"\0\1" and names(path.parent) == ["file"]


def test_a_crash_before_the_rename_leaves_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    done = subprocess.run([sys.executable, "-c", _CRASH, str(path)], check=False)
    assert done.returncode == 9 and path.read_text() == "old"
    [draft] = [name for name in names(tmp_path) if name != "file"]
    assert draft.startswith(".file-") and (tmp_path / draft).read_text() == "new"
    write_durably(path, "newer")  # what the crash left does not stand in the way
    assert path.read_text() == "newer"


def test_an_error_leaves_the_old_content_and_no_temporary_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), durable_file(path) as draft:
        draft.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old" and names(tmp_path) == ["file"]


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError):
            write_durably(path, bytes(2000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_text() == "old" and names(tmp_path) == ["file"]


def test_the_file_is_on_the_disk_before_its_name_is(
    tmp_path: Path, synced: list[tuple[bool, Callable[[], object]]]
) -> None:
    write_durably(tmp_path / "file", "content")
    (is_folder, size), (then_folder, listed) = synced
    assert not is_folder and size() == 7
    assert then_folder and listed() == ["file"]


def test_a_writer_of_its_own(tmp_path: Path, synced: list[tuple[bool, Callable[[], object]]]) -> None:
    path = tmp_path / "pixels.npy"
    with durable_file(path, mode=0o600) as draft:
        pixels = np.lib.format.open_memmap(draft, "w+", np.uint8, (2, 3))
        pixels[:] = 7
        del pixels
        assert not path.exists()
    assert (np.load(path) == 7).all() and stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [folder for folder, _ in synced] == [False, True]


def test_a_writer_may_put_a_link_there(tmp_path: Path) -> None:
    source, path = tmp_path / "source", tmp_path / "linked"
    source.write_text("content")
    source.chmod(0o640)
    with durable_file(path, mode=None) as draft:
        draft.unlink()
        os.link(source, draft)
    assert path.samefile(source) and stat.S_IMODE(source.stat().st_mode) == 0o640
    assert names(tmp_path) == ["linked", "source"]


def test_a_link_is_replaced_and_its_target_kept(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("kept")
    link.symlink_to(target)
    write_durably(link, "own")
    assert target.read_text() == "kept" and not link.is_symlink() and link.read_text() == "own"


def test_a_folder_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError):
        write_durably(tmp_path / "folder", "content")
    assert names(tmp_path) == ["folder"]


def test_a_folder_appears_complete(tmp_path: Path, synced: list[tuple[bool, Callable[[], object]]]) -> None:
    path = tmp_path / "run"
    path.mkdir()
    with durable_folder(path) as draft:
        write_durably(draft / "study.yaml", "name: x")
        assert names(path) == []
    assert names(tmp_path) == ["run"] and names(path) == ["study.yaml"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o755
    folder, listed = synced[-1]
    assert folder and listed() == ["run"]


def test_a_folder_that_fails_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "run"
    with pytest.raises(ValueError, match="broken"), durable_folder(path) as draft:
        write_durably(draft / "study.yaml", "name: x")
        raise ValueError("broken")
    assert names(tmp_path) == []
    path.mkdir()
    (path / "mine").touch()
    with pytest.raises(OSError), durable_folder(path):
        pass
    assert names(tmp_path) == ["run"] and names(path) == ["mine"]


def test_appended_lines_are_whole(tmp_path: Path, synced: list[tuple[bool, Callable[[], object]]]) -> None:
    path = tmp_path / "new" / "journal"
    append_durably(path, "one")
    assert [folder for folder, _ in synced] == [False, True]
    with path.open("ab") as file:
        file.write(b"cut sho")  # a crash
    append_durably(path, "two")
    append_durably(path, "three")
    assert path.read_text() == "one\ncut sho\ntwo\nthree\n"
    assert [folder for folder, _ in synced[2:]] == [False, False]
