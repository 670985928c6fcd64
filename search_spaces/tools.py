"""Other tools in processes of their own, which may take as much memory as one of ours."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from search_spaces.errors import InputError
from search_spaces.limits import memory_limit, memory_used, pause, too_much


@contextmanager
def within_memory(process: subprocess.Popen[Any], name: str) -> Iterator[None]:
    """While it lasts, another tool's process may take as much memory as one of ours; an error in it ends the process.

    Args:
        process: It runs.
        name: Of the tool, for the message.

    Raises:
        InputError: It took more, and was ended.
    """
    limit, over, found = memory_limit(), threading.Event(), []

    def look() -> None:
        used = 0
        while not over.wait(pause(used, limit)):
            used = memory_used(process.pid)
            if used > limit:
                found.append(f"{name} {too_much(used, limit)}")
                process.kill()
                return

    watching = threading.Thread(target=look, daemon=True)
    watching.start()
    try:
        yield
    except BaseException as error:
        process.kill()
        if found and isinstance(error, Exception):
            raise InputError(found[0]) from None
        raise
    finally:
        over.set()
        watching.join()
    if found:
        raise InputError(found[0])


def run_tool(command: Sequence[str | Path], name: str, folder: Path, log: IO[str], **how: Any) -> int:
    """Runs another tool in a folder to its end, within the memory that a process of ours may take.

    Args:
        command: Its words.
        name: Of the tool, for the message.
        folder: Where it runs.
        log: Takes all that it says.
        how: More for `subprocess.Popen`.

    Returns:
        Its exit code.

    Raises:
        InputError: It took more memory.
    """
    with (
        subprocess.Popen(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT, **how) as process,
        within_memory(process, name),
    ):
        return process.wait()
