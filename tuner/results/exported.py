"""One scheme as it leaves a run, and the writing of its folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search_spaces.durable import durable_folder, write_durably
from search_spaces.errors import InputError

#: Name of the file that describes an exported scheme.
DESCRIPTION = "scheme.json"


@dataclass(frozen=True)
class Exported:
    """One scheme as it leaves a run.

    Attributes:
        files: ``{file name: content}``.
        scheme: What `DESCRIPTION` says.
    """

    files: Mapping[str, bytes]
    scheme: dict[str, Any]

    @property
    def description(self) -> bytes:
        """The content of `DESCRIPTION`."""
        return (json.dumps(self.scheme, indent=1) + "\n").encode()


def check_free(folder: Path) -> None:
    """Raises `InputError` where a folder holds something."""
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise InputError(f"--out {str(folder)!r}: exists and is not empty; choose another folder")


def write_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Writes a folder, whole or not at all.

    Args:
        folder: Does not exist, or is empty.
        files: ``{path below it: content}``.

    Raises:
        InputError: It cannot be written.
    """
    try:
        with durable_folder(folder) as staging:
            for name, data in files.items():
                (staging / name).parent.mkdir(parents=True, exist_ok=True)
                write_durably(staging / name, data)
    except OSError as error:
        raise InputError(f"--out {str(folder)!r}: cannot be written ({error.strerror})") from None
