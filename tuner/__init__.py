"""Finds which number format every layer of an object detector should have.

    import tuner

    run = tuner.run("best.pt", data="data.yaml", max_drop=1.0)
    run.plot()
    run.export(run.recommended.trial, "best")

What is named here is loaded when it is first used: importing `tuner` takes no time.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tuner.version import __version__

if TYPE_CHECKING:
    from search_spaces.errors import InputError
    from tuner.api.evaluating import Evaluation, evaluate
    from tuner.api.materializing import Materialized, materialize
    from tuner.api.runs import Run, Scheme, load_run, resume, run
    from tuner.terminal.progress import bar, silent

__all__ = [
    "Evaluation",
    "InputError",
    "Materialized",
    "Run",
    "Scheme",
    "__version__",
    "bar",
    "evaluate",
    "load_run",
    "materialize",
    "resume",
    "run",
    "silent",
]

_HOMES = {
    "tuner.api.evaluating": ("Evaluation", "evaluate"),
    "tuner.api.materializing": ("Materialized", "materialize"),
    "tuner.api.runs": ("Run", "Scheme", "load_run", "resume", "run"),
    "tuner.terminal.progress": ("bar", "silent"),
    "search_spaces.errors": ("InputError",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    if name == "samplers":
        return import_module("tuner.samplers")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "samplers"})
