"""The same seed on the same machine: the same proposals, whatever the environment of the process is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

_PROPOSALS = """
import json, sys
from pathlib import Path
from tuner.launch import launch, resume
from tuner.results.loaded import load_run
from tuner.study.study_file import read_study
study, run = Path(sys.argv[1]), Path(sys.argv[2])
launch(read_study(study), run, trials=8)
resume(run, trials=14)  # in two sittings
print(json.dumps([record.allocation.formats for record in load_run(run).records]))
"""
ENVIRONMENTS: list[dict[str, str]] = [
    {"PYTHONHASHSEED": "0"},
    {"PYTHONHASHSEED": "4294967295", "LC_ALL": "C", "TZ": "Pacific/Kiritimati"},
    {"PYTHONHASHSEED": "random", "LC_ALL": "tr_TR.UTF-8", "LANG": "tr_TR.UTF-8", "TZ": "America/St_Johns"},
]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("sampler", ["model", "random"])
def test_proposals_depend_on_the_seed_alone(study_file: Callable[..., Path], tmp_path: Path, sampler: str) -> None:
    study = study_file(search={"trials": 14, "sampler": sampler, "seed": 5})
    found = []
    for number, environment in enumerate(ENVIRONMENTS):
        command = [sys.executable, "-c", _PROPOSALS, study, tmp_path / f"run{number}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **environment})
        assert done.returncode == 0, done.stderr
        found.append(json.loads(done.stdout.splitlines()[-1]))
    assert len(found[0]) >= 14 and found[1] == found[0] and found[2] == found[0]
