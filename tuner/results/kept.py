"""What a run itself exported of its schemes: enough to export them again, without the model."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from search_spaces.regular import read_regular
from tuner.results.front_files import rescored
from tuner.results.loaded import LoadedRun
from tuner.search.records import TrialRecord
from tuner.study.run_folder import read_json

_DESCRIPTION = "scheme.json"


def kept_scheme(
    loaded: LoadedRun, record: TrialRecord, *, artifacts: bool
) -> tuple[dict[str, bytes], dict[str, Any]] | None:
    """Files and description of a trial as they lie in the run, where they are whole and tell what is known now.

    Args:
        loaded: The run.
        record: A complete trial.
        artifacts: Whether the run's runtime makes model files.

    Returns:
        ``{file name: content}`` and the description; None where the run has no such export.
    """
    folder = loaded.run.schemes / record.name
    if record.scores is None or not (folder / _DESCRIPTION).is_file():
        return None
    scheme = read_json(folder / _DESCRIPTION, dict[str, Any])
    if scheme.get("rescored") != rescored(
        record, loaded.rescores, loaded.reference, loaded.config.objective_set.maximised
    ):
        return None
    told = scheme.get("sha256")
    if not isinstance(told, dict) or told.get("model.onnx") != record.scores.artifact:
        return None
    plain = [name for name in told if Path(name).name == name and not (folder / name).is_symlink()]
    files = {name: read_regular(folder / name, None) for name in plain if (folder / name).is_file()}
    whole = all(hashlib.sha256(data).hexdigest() == told[name] for name, data in files.items())
    return (files, scheme) if whole and ("model.onnx" in files) == artifacts else None
