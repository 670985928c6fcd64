"""What TensorRT's builder said: which layer stopped a failed build, in one line that a person can use."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from objectives.runtimes.owners import first_layer

_NODE_PATTERNS = (
    # "Could not find any implementation for node <layer + fused layers>."
    re.compile(r"could not find any implementation for node\s+(?P<node>.+)", re.IGNORECASE),
    # The ONNX parser: "In node 12 with name: <name> and operator: <op> (...)".
    re.compile(r"in node -?\d+ with name:\s*(?P<node>\S+)", re.IGNORECASE),
    re.compile(r"while parsing node number \d+ \[[^\]]*\"?(?P<node>/[^\"\s\]]+)", re.IGNORECASE),
    # Network validation names the layer first: "<layer>: ... must be ...".
    re.compile(r"\(?(?P<node>[^\s:()]+): .*(?:must|cannot|not supported|unsupported|requires)", re.IGNORECASE),
    re.compile(r"(?:layer|node) [\"']?(?P<node>[^\s\"']+)[\"']?.*(?:fail|unsupported|not supported)", re.IGNORECASE),
)
_MEMORY = re.compile(r"out ?of ?memory|insufficient memory|cudaErrorMemoryAllocation", re.IGNORECASE)
_WORKSPACE = re.compile(r"insufficient workspace", re.IGNORECASE)
_PREFIX = re.compile(r"^\s*(\[[^\]]*\]\s*)*(?P<code>[\w.]*:*[\w ]*: ?Error Code \d+: |\d+: )?")


@dataclass(frozen=True)
class BuildVerdict:
    """Why a build failed.

    Attributes:
        message: The decisive line of the log.
        layer: The model layer it names; empty where it names none.
        memory: Whether memory ran out.
    """

    message: str
    layer: str
    memory: bool


def read_build_errors(errors: Sequence[str], layers: Iterable[str]) -> BuildVerdict:
    """Finds the decisive error of a failed build and the model layer that it names.

    Args:
        errors: The builder's error lines, in order.
        layers: Names of the layers that could have been given another format.

    Returns:
        The verdict. An engine node fuses several model nodes; the first layer in its name is taken.
    """
    known = set(layers)
    text = [_with_remedy(_PREFIX.sub("", line).strip()) for line in errors]
    for pattern in _NODE_PATTERNS:
        for line in text:
            found = pattern.search(line)
            layer = first_layer(found["node"], known) if found else ""
            if layer:
                return BuildVerdict(line, layer, False)
    memory = next((line for line in text if _MEMORY.search(line)), "")
    if memory:
        return BuildVerdict(memory, "", True)
    return BuildVerdict(next(iter(text), "the builder returned no engine and named no reason"), "", False)


def _with_remedy(line: str) -> str:
    """TensorRT says that the workspace is too small, but not which setting bounds it."""
    return f"{line} Raise runtime.workspace_mib, or leave it out." if _WORKSPACE.search(line) else line
