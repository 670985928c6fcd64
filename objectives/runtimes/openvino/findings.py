"""What ``tuner doctor`` says of OpenVINO."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json

from objectives.runners.interpreter import ask
from objectives.runners.runner import RuntimeUnavailable
from objectives.runtimes.openvino.devices import INSTALL
from objectives.runtimes.runtime import Finding

_NAME = "openvino"
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
        found = json.loads(ask(_ASK))
    except RuntimeUnavailable as error:
        return [Finding(_NAME, False, f"{version}, but lists no devices ({error})", f"{INSTALL}, or check the drivers")]
    if not found:
        return [Finding(_NAME, False, f"{version}, but finds no device", INSTALL)]
    devices = "; ".join(f"{device} ({name}): {', '.join(able)}" for device, (name, *able) in found.items())
    return [Finding(_NAME, True, f"OpenVINO {version}; {devices}")]
