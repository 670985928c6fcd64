"""Databases that this user may not write: read whole, whatever state their writer left them in, without any trace."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
from other_users import give_away, state

from tuner.study.storage import close_storage, open_storage

_READ = (
    "import sys, optuna\nfrom pathlib import Path\nfrom tuner.study.storage import open_storage\n"
    "storage = open_storage(Path(sys.argv[1]), create=False)\n"
    "print(len(optuna.load_study(study_name='s', storage=storage).trials))"
)


@pytest.mark.parametrize("left", ["closed", "killed", "copied", "living"])
def test_every_acknowledged_trial_is_read(tmp_path: Path, left: str) -> None:
    database, target = tmp_path / "ours" / "study.db", tmp_path / "theirs"
    for folder in (database.parent, target):
        folder.mkdir()
    writer = open_storage(database, pooled=True)
    study = optuna.create_study(study_name="s", storage=writer)
    for value in range(3):
        study.add_trial(optuna.trial.create_trial(value=value))
    if left == "closed":
        close_storage(writer)
    if left == "living":
        target = database.parent
    else:
        for path in database.parent.glob("study.db*"):
            if left != "copied" or path.suffix != ".db-shm":
                shutil.copy(path, target)
    assert (target / "study.db-wal").exists() is (left != "closed")
    begin = give_away(target)
    before = state(target)
    read = [*begin, sys.executable, "-c", _READ, target / "study.db"]
    done = subprocess.run(read, capture_output=True, text=True, check=False)
    assert done.stdout == "3\n", done.stderr
    assert state(target) == before
