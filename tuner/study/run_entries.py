"""What a run folder may hold: regular files and folders, at any depth, each of the kind that its place asks for."""

from __future__ import annotations

from pathlib import Path

from search_spaces.errors import InputError
from search_spaces.regular import FILE, FOLDER, entries

MAX_DEPTH = 32
# Never the end of a name of one of our folders. Below `_FOREIGN` other tools write what they like.
_FILES = (".json", ".jsonl", ".yaml", ".md", ".csv", ".html", ".db", ".npy", ".npz", ".log", ".lock", ".jpg", ".onnx")
_FOREIGN = ("baselines", "modelopt")
_FOLDERS = {
    *[(name,) for name in ("cache", "workers", "failures", "artifacts", "schemes", "baselines", "methods")],
    *[("cache", name) for name in ("images", "evaluations", "predictions", "known", "engines", "rescores")],
    ("artifacts", "previews"),
}


def check_entries(run: Path) -> None:
    """Refuses a run folder that would have us read or write somewhere else, wait for ever, or trip over a wrong kind.

    Args:
        run: The folder.

    Raises:
        InputError: It holds a link, a FIFO, a socket, a device, or a file where a folder belongs or the other way.
    """
    try:
        for parts, kind in entries(run):
            name = str(Path(*parts))
            if kind not in (FILE, FOLDER):
                raise InputError(f"run {str(run)!r}: holds {kind}, {name!r}; put the file or folder itself there")
            wanted = _wanted(parts)
            if wanted and kind != wanted:
                raise InputError(f"run {str(run)!r}: {name!r} is {kind} where {wanted} belongs; move it away")
            if len(parts) > MAX_DEPTH:
                raise InputError(f"run {str(run)!r}: folders nested more than {MAX_DEPTH} deep; move {parts[0]!r} away")
    except OSError as error:
        what = f"{str(error.filename or run)!r} cannot be read ({error.strerror})"
        raise InputError(f"run {str(run)!r}: {what}; check its owner") from None


def _wanted(parts: tuple[str, ...]) -> str | None:
    """The kind that a place asks for; None where either will do."""
    if parts in _FOLDERS:
        return FOLDER
    above, name = parts[:-1], parts[-1]
    if above == ("schemes",) and not name.startswith("."):
        return FOLDER
    if above == ("artifacts",) or (name.endswith(_FILES) and parts[0] not in _FOREIGN):
        return FILE
    return None
