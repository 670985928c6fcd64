"""What ``tuner doctor`` says of OpenVINO."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import subprocess
import sys

from objectives.runtimes.openvino.devices import INSTALL
from objectives.runtimes.runtime import Finding

_NAME = "openvino"
# In a process of its own: a broken driver can take the interpreter with it.
_ASK = """
import json, openvino
core = openvino.Core()
print(json.dumps({
    device: [core.get_property(device, "FULL_DEVICE_NAME"), *map(str, core.get_property(device, "OPTIMIZATION_CAPABILITIES"))]
    for device in core.available_devices
}))
"""  # noqa: E501


def openvino_findings() -> list[Finding]:
    """Whether it is installed, and which devices its plugins answer for."""
    if importlib.util.find_spec("openvino") is None:
        return [Finding(_NAME, False, "not installed", INSTALL)]
    version = importlib.metadata.version("openvino")
    try:
        done = subprocess.run([sys.executable, "-c", _ASK], capture_output=True, text=True, timeout=120, check=False)
    except subprocess.TimeoutExpired:
        return [Finding(_NAME, False, f"{version}, but listing devices takes longer than 120 s", "check the drivers")]
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        return [Finding(_NAME, False, f"{version}, but does not start ({last})", INSTALL)]
    found = json.loads(done.stdout.splitlines()[-1])
    if not found:
        return [Finding(_NAME, False, f"{version}, but finds no device", INSTALL)]
    devices = "; ".join(f"{device} ({name}): {', '.join(able)}" for device, (name, *able) in found.items())
    return [Finding(_NAME, True, f"OpenVINO {version}; {devices}")]
