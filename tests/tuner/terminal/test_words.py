"""Words of errors: what was refused, of which file, and never a password."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from search_spaces.passwords import without_passwords
from tuner.terminal.console import BAD_INPUT, CRASHED, ENVIRONMENT, STORAGE, guarded

URL = "postgresql+psycopg://tuner:s3cret@db.example:5432/studies"


def refused(number: int, *names: str) -> OSError:
    return OSError(number, os.strerror(number), *names)


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (refused(errno.ENOSPC, "/run/front.json"), STORAGE, "'/run/front.json': no space left on device; make room"),
        (refused(errno.EACCES, "/run"), BAD_INPUT, "'/run': permission denied; check its owner"),
        (refused(errno.EROFS, "/run"), BAD_INPUT, "'/run': read-only file system; choose a place"),
        (refused(errno.EMFILE), ENVIRONMENT, "too many open files; raise `ulimit -n`"),
        (refused(errno.ELOOP, "/a"), BAD_INPUT, "leads to itself"),
        (refused(errno.ENAMETOOLONG, "x"), BAD_INPUT, "choose a shorter name"),
        (refused(errno.EXDEV, "/a", "/b"), BAD_INPUT, "'/a': "),
        (OSError("Cannot call rmtree on a symbolic link"), BAD_INPUT, "Cannot call rmtree on a symbolic link"),
        (ConnectionResetError(errno.ECONNRESET, "reset"), ENVIRONMENT, "the system: reset"),
        (UnicodeEncodeError("utf-8", "r\udcff", 1, 2, "surrogates not allowed"), BAD_INPUT, r"'r\udcff': not UTF-8"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), BAD_INPUT, "invalid start byte"),
    ],
)
def test_what_the_system_refuses_is_one_line(
    capsys: pytest.CaptureFixture[str], error: Exception, code: int, words: str
) -> None:
    def work() -> None:
        raise error

    assert guarded(work) == code
    line = capsys.readouterr().err
    assert line.startswith("tuner: error: ") and words in line and line.count("\n") == 1 and "Errno" not in line


@pytest.mark.parametrize("error", [ValueError, RuntimeError, OSError])
def test_no_error_shows_a_password(capsys: pytest.CaptureFixture[str], error: type[Exception]) -> None:
    def work() -> None:
        raise error(f"cannot reach {URL} now")

    assert guarded(work) in (CRASHED, BAD_INPUT)
    said = capsys.readouterr().err
    assert "s3cret" not in said and "tuner:***@db.example" in said
    assert (error is OSError) == ("Traceback" not in said)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (URL, "postgresql+psycopg://tuner:***@db.example:5432/studies"),
        ("x://u:p@ss:w@h/d and y://v@h", "x://u:***@h/d and y://v@h"),
        ("'x://u:p'", "'x://u:p'"),
        ("x://h/d?user=u&password=abc&b=1", "x://h/d?user=u&password=***&b=1"),
        ("http://127.0.0.1:8080/dashboard", "http://127.0.0.1:8080/dashboard"),
        ("at 10:20:30, me@example", "at 10:20:30, me@example"),
    ],
)
def test_passwords_of_urls_are_left_out(text: str, shown: str) -> None:
    assert without_passwords(text) == shown


def test_nothing_is_written_into_a_file_that_took_the_place_of_a_closed_stream(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom tuner.terminal.console import guarded, say\n"
        "def work():\n with open(sys.argv[1], 'w') as file:\n  say('a message')\n  print('a result')\n"
        "sys.exit(guarded(work))"
    )
    script = f"'{sys.executable}' -c \"$1\" '{tmp_path}/file' >&- 2>&-"
    assert subprocess.run(["bash", "-c", script, "bash", code], check=False).returncode == 0
    assert (tmp_path / "file").read_text() == ""
