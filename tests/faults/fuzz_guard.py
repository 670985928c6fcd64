"""What a case may do: write below its folder, and nothing else. An audit hook and a listing tell what it did."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_PATHS = {"os.remove": 1, "os.rename": 2, "os.rmdir": 1, "os.mkdir": 1, "os.link": 2, "os.symlink": 2, "os.truncate": 1}
_PATHS |= {"os.chmod": 1, "os.chown": 1, "os.utime": 1, "shutil.rmtree": 1}
_NEVER = {"socket.connect", "socket.bind", "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork"}
_NEVER |= {"pty.spawn", "os.startfile", "webbrowser.open"}
_LOCKS = (".lock", ".turnstile", ".users")  # of the devices, in the temporary folder of this host on purpose
#: What a file outside holds: words that hold it are a finding.
CANARY = "nobodys-business-7f3a"
_DEVICES = ("/dev/null", "/dev/tty", "/dev/shm/")


class Place:
    """A folder for one case: ``given`` is the user's, ``outside`` nobody's business.

    Attributes:
        given: The mutated files; the working directory.
        outside: Files that no input may have read or changed.
        offences: What the case did that it must not.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.given, self.outside = root / "given", root / "outside"
        self.offences: list[str] = []
        self._own = [str(self.given), str(root / "tmp"), str(root / "home")]
        self._active = self._elsewhere = False
        sys.dont_write_bytecode = True  # an import's cached bytecode is the interpreter's doing, not the case's
        sys.addaudithook(self._heard)

    def fresh(self) -> None:
        """Empties the folder and makes this process live in it."""
        shutil.rmtree(self.root, ignore_errors=True)
        for name in ("given", "tmp", "home", "outside"):
            (self.root / name).mkdir(parents=True)
        (self.outside / "secret.bin").write_bytes(bytes(range(256)) * 64)
        (self.outside / "canary.txt").write_text(CANARY)
        os.environ.update(HOME=self._own[2], TMPDIR=self._own[1], XDG_CACHE_HOME=self._own[2])
        tempfile.tempdir = self._own[1]
        os.chdir(self.given)
        self.offences.clear()

    def begin(self, *, watched: bool = True, elsewhere: bool = False) -> None:
        """From here on what happens is the product's doing.

        Args:
            watched: Whether what it does is looked at, and not only what it leaves.
            elsewhere: Whether it may read outside.
        """
        self._before = self._listing()
        self._active, self._elsewhere = watched, elsewhere

    def end(self) -> list[str]:
        """Stops watching; returns the offences."""
        self._active = False
        after = self._listing()
        names = sorted(name for name in self._before.keys() | after.keys() if self._before.get(name) != after.get(name))
        left = [path.name for path in (self.root / "tmp").iterdir() if path.suffix not in _LOCKS]
        return [
            *dict.fromkeys(self.offences),
            *(f"changed outside: {name}" for name in names),
            *(f"left in the temporary folder: {name}" for name in left),
        ]

    def _listing(self) -> dict[str, tuple[int, int]]:
        found = {}
        for path in (self.root, *self.root.iterdir(), *self.outside.rglob("*")):
            if str(path) not in self._own:
                state = path.lstat()
                found[str(path)] = (state.st_size, state.st_mtime_ns) if path.is_file() else (0, 0)
        return found

    def _heard(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._active:
            return
        if event == "open":
            path, _, flags = arguments
            if isinstance(path, (str, bytes)):
                name = os.path.abspath(os.fsdecode(path))  # noqa: PTH100 - an audit hook must not resolve links
                if isinstance(flags, int) and flags & _WRITES and not self._may_write(name):
                    self.offences.append(f"opened to write: {name}")
                elif not self._elsewhere and name.startswith(str(self.outside)):
                    self.offences.append(f"read: {name}")
        elif event in _PATHS:
            for path in arguments[: _PATHS[event]]:
                if isinstance(path, (str, bytes, os.PathLike)):
                    name = os.path.abspath(os.fsdecode(path))  # noqa: PTH100
                    if not self._may_write(name):
                        self.offences.append(f"{event}: {name}")
        elif event in _NEVER:
            self.offences.append(f"{event}: {str(arguments)[:200]}")

    def _may_write(self, name: str) -> bool:
        return name.startswith((*(f"{own}{os.sep}" for own in self._own), *_DEVICES)) or name in self._own
