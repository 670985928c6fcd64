"""Optuna's own callback brings every trial's figures to Weights & Biases, here offline: into its local file."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import FrozenTrial

pytest.importorskip("wandb", reason="Weights & Biases is not installed: pip install tuner[wandb]")
pytest.importorskip("optuna_integration", reason="optuna-integration is not installed: pip install tuner[wandb]")

_BLOCK = 32768
_HEADER, _WHOLE, _LAST = 7, 1, 4


def records(path: Path) -> Iterator[bytes]:
    """Records of an offline run: its file is a log as LevelDB documents it, behind seven bytes of its own."""
    data, place, parts = path.read_bytes(), 7, b""
    while place + _HEADER <= len(data):
        left = _BLOCK - place % _BLOCK
        if left < _HEADER:  # no header fits: the block ends
            place += left
            continue
        size, kind = struct.unpack_from("<HB", data, place + 4)
        if not kind:
            return
        place += _HEADER
        parts += data[place : place + size]
        place += size
        if kind in (_WHOLE, _LAST):
            yield parts
            parts = b""


def history(path: Path) -> dict[int, dict[str, Any]]:
    """What was logged at each step, once the process that writes the file has ended it."""
    from wandb.proto.wandb_internal_pb2 import Record

    while True:
        found = [Record.FromString(data) for data in records(path)]
        if any(record.WhichOneof("record_type") == "exit" for record in found):
            break
        time.sleep(0.2)  # the test's own time limit ends this
    steps = {}
    for record in found:
        if record.WhichOneof("record_type") == "history":
            items = record.history.item
            entry = {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items}
            steps[int(entry["_step"])] = entry
    return steps


@pytest.mark.slow
@pytest.mark.parametrize("layers", [12, 130])
def test_every_trial_is_a_step_with_its_figures(
    told: Callable[..., list[FrozenTrial]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layers: int
) -> None:
    import wandb
    from optuna_integration import WeightsAndBiasesCallback

    monkeypatch.setenv("WANDB_SILENT", "true")
    names = ["map_50_95", "latency_ms"]
    kept = {"mode": "offline", "dir": str(tmp_path), "project": "tuner"}
    ended = told(WeightsAndBiasesCallback(metric_name=names, wandb_kwargs=kept), layers)
    wandb.finish()
    (file,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    found = history(file)
    assert sorted(found) == [trial.number for trial in ended]
    for trial in ended:
        entry = found[trial.number]
        assert [entry[name] for name in names] == pytest.approx(trial.values)
        assert {name: entry[name] for name in trial.params} == trial.params and len(trial.params) == layers
