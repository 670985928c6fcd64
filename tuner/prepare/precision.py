"""Says and logs what a study's fp16 graphs keep in float32."""

from __future__ import annotations

from objectives.quantization.materialize import Materializer
from tuner.study.run_folder import RunFolder
from tuner.terminal.console import say


def record_precision(materializer: Materializer, run: RunFolder) -> None:
    """Writes a line and an event of the run where fp16 cannot hold all of the model, or was not looked at in full.

    Args:
        materializer: Of the study's artifacts.
        run: Whose log takes the event.
    """
    lines = materializer.precision.lines()
    if lines:
        run.log("fp32", **materializer.precision.to_json())
    for line in lines:
        say(line)
