"""Where engines and timing caches of this user lie: outside of all run folders, one folder per device and version.

A plan is code: TensorRT trusts it when it is deserialized. So plans are read from here alone, a folder that only
this user can write, and never from a run folder that may have come from somebody else.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import asdict
from pathlib import Path

from objectives.devices.gpu import Gpu
from objectives.runtimes.tensorrt.rules import BuilderSettings
from search_spaces.durable import durable_file

#: Least recently used plans beyond this many bytes are dropped.
MAX_BYTES = 20 * 2**30


def cache_home() -> Path:
    """The user's folder: ``TUNER_CACHE``, else ``XDG_CACHE_HOME/tuner``, else ``~/.cache/tuner``."""
    named = os.environ.get("TUNER_CACHE")
    if named:
        return Path(named)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "tuner"


class EngineCache:
    """Plans of one TensorRT version on one kind of GPU.

    Args:
        version: TensorRT's.
        gpu: The device; engines run on any GPU of its name, but timing caches and probes are kept alike.
        home: In place of `cache_home`.
    """

    def __init__(self, version: str, gpu: Gpu, home: Path | None = None) -> None:
        name = re.sub(r"[^a-z0-9]+", "-", gpu.name.lower()).strip("-")
        major, minor = gpu.compute_capability
        self.folder = (home or cache_home()) / f"tensorrt-{version}-{name}-sm{major}{minor}"
        self.plans = self.folder / "plans"
        self.plans.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.folder.chmod(0o700)
        self.timing_cache = self.folder / "timing.cache"
        self._device = f"{version} {gpu.name} {gpu.compute_capability}"

    def key(self, model: bytes, settings: BuilderSettings, fp32_layers: frozenset[str] = frozenset()) -> str:
        """Digest of everything that makes an engine, hex."""
        facts = json.dumps([self._device, asdict(settings), sorted(fp32_layers)], sort_keys=True)
        return hashlib.sha256(hashlib.sha256(model).digest() + facts.encode()).hexdigest()

    def plan(self, key: str) -> Path | None:
        """The plan of that key, if it is there."""
        path = self.plans / f"{key}.plan"
        if not path.is_file():
            return None
        path.touch()
        return path

    def save(self, key: str, plan: bytes) -> Path:
        """Keeps a plan that was just built, whole or not at all."""
        path = self.plans / f"{key}.plan"
        with durable_file(path, mode=0o600) as draft:
            draft.write_bytes(plan)
        self._trim()
        return path

    def _trim(self) -> None:
        """Drops the least recently used plans beyond `MAX_BYTES`."""
        kept = 0
        for path in sorted(self.plans.glob("*.plan"), key=lambda p: p.stat().st_mtime, reverse=True):
            kept += path.stat().st_size
            if kept > MAX_BYTES:
                path.unlink(missing_ok=True)
