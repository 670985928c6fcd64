"""While a checkpoint is put together nothing is written, started or connected; each attempt is told."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from objectives.torch_models.shut import shut
from search_spaces.errors import InputError

ATTEMPTS: dict[str, Callable[[Path], object]] = {
    "open": lambda place: (place / "x").write_text("x"),
    "os.mkdir": lambda place: (place / "x").mkdir(),
    "os.remove": lambda place: (place / "kept").unlink(),
    "os.rename": lambda place: (place / "kept").rename("here"),
    "os.symlink": lambda place: (place / "x").symlink_to("there"),
    "os.chmod": lambda place: (place / "kept").chmod(0),
    "os.truncate": lambda place: os.truncate(place / "kept", 0),
    "shutil.rmtree": shutil.rmtree,
    "subprocess.Popen": lambda place: subprocess.run(["true"], check=False),
    "os.system": lambda place: os.system("true"),
    "urllib.Request": lambda place: urllib.request.urlopen("http://localhost:9/"),
    "socket.connect": lambda place: socket.socket().connect(("127.0.0.1", 9)),
    "socket.getaddrinfo": lambda place: socket.getaddrinfo("localhost", 9),
}


@pytest.mark.parametrize("attempt", ATTEMPTS)
@pytest.mark.parametrize("hidden", [False, True])
def test_each_attempt_is_refused_and_told(tmp_path: Path, attempt: str, hidden: bool) -> None:
    (tmp_path / "kept").write_text("kept")
    before = Path.cwd()
    with (
        pytest.raises(InputError, match=rf"^m\.pt: refused: it tried to act when it was put together \({attempt} "),
        shut(Path("m.pt")),
    ):
        try:
            ATTEMPTS[attempt](tmp_path)
        except OSError:
            if not hidden:
                raise
    assert [path.name for path in tmp_path.iterdir()] == ["kept"] and (tmp_path / "kept").read_text() == "kept"
    assert Path.cwd() == before


def test_through_a_link_nothing_is_written_either(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="open"), shut(Path("m.pt")):
        Path("link").symlink_to(tmp_path / "x")
        Path("link").write_text("x")
    assert not list(tmp_path.iterdir())


def test_reading_and_a_folder_of_its_own_are_free(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("kept")
    with shut(Path("m.pt")):
        assert (tmp_path / "kept").read_text() == "kept"
        Path("own").mkdir()
        Path("own/x").write_text("x")
        inside = Path.cwd()
    assert not inside.exists()
    (tmp_path / "after").write_text("free again")
    with pytest.raises(KeyError), shut(Path("m.pt")):
        raise KeyError("an error of another kind")
