"""The packages of the `torch` extra, imported late and with settings that keep a checkpoint from running code."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator, Sequence
from importlib import import_module

from objectives.runners.runner import RuntimeUnavailable

#: Set before Ultralytics is imported, which reads them once: restricted unpickling, nothing installed or downloaded,
#: nothing reported to its makers, errors only.
SAFE_SETTINGS = {
    "ULTRALYTICS_SAFE_LOAD": "1",
    "YOLO_AUTOINSTALL": "false",
    "YOLO_OFFLINE": "true",
    "YOLO_VERBOSE": "false",
}
_PACKAGES = ("torch", "ultralytics")
_MODELOPT = ("torch", "huggingface_hub", "modelopt.torch.quantization")


def require_ultralytics(purpose: str) -> None:
    """Makes `torch` and `ultralytics` importable from here on, with `SAFE_SETTINGS`.

    Args:
        purpose: What needs them, the start of the error's line.

    Raises:
        RuntimeUnavailable: One of them is missing, or Ultralytics was imported before without restricted loading.
    """
    _import(purpose, _PACKAGES)
    from ultralytics.utils import SAFE_LOAD

    if not SAFE_LOAD:
        raise RuntimeUnavailable(
            f"{purpose}: ultralytics was imported before ULTRALYTICS_SAFE_LOAD=1 was set; set it in the environment"
        )


def require(package: str, purpose: str) -> None:
    """Makes one further package of the extra importable.

    Raises:
        RuntimeUnavailable: It is missing.
    """
    _import(purpose, (package,))


def require_modelopt(purpose: str) -> None:
    """Makes `modelopt.torch` importable from here on.

    Raises:
        RuntimeUnavailable: It, or a package that its import needs, is missing.
    """
    _import(purpose, _MODELOPT)


@contextlib.contextmanager
def chatter_to_stderr() -> Iterator[None]:
    """Sends what these packages print to stderr: stdout belongs to the command's own result."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Drops what ModelOpt prints, its progress bars among it: the tuner shows progress itself. Errors still raise."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


def _import(purpose: str, names: Sequence[str]) -> None:
    os.environ.update(SAFE_SETTINGS)  # for ModelOpt too: it imports Ultralytics where it finds it
    for name in names:
        try:
            with chatter_to_stderr():
                import_module(name)
        except ImportError as error:
            missing = error.name or name
            raise RuntimeUnavailable(
                f"{purpose}: the Python package {missing!r} is missing; install the extra: `pip install tuner[torch]`"
            ) from None
