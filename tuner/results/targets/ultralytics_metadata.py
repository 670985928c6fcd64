"""What Ultralytics writes beside a model's weights, and reads back before it runs it."""

from __future__ import annotations

from typing import Any

from objectives.tasks.detection.data.preprocessing import Preprocessing
from objectives.tasks.detection.heads.instances import KEYPOINTS, MASKS
from search_spaces.errors import InputError
from search_spaces.reading import literal
from tuner.results.targets.target import Shipment

#: Without these Ultralytics assumes defaults of its own.
_NEEDED = ("task", "stride", "names")
_USUAL_STRIDE = 32
_TEXTS = ("description", "author", "date", "version", "license", "docs", "task", "head")


def ultralytics_metadata(shipment: Shipment, target: str) -> dict[str, Any]:
    """Returns the metadata of a model, as Ultralytics reads them back.

    What the model's exporter wrote is kept. Where it wrote nothing, they are told by the head.

    Args:
        shipment: The scheme.
        target: As the command line names it.

    Raises:
        InputError: Ultralytics would not read this model as it was measured.
    """
    detector = shipment.detector
    found = {key: value if key in _TEXTS else _value(value) for key, value in shipment.metadata.items()}
    sizes = {"batch": shipment.batch, "imgsz": list(detector.image_size)}
    names = {"names": dict(enumerate(shipment.classes))}
    if all(key in found for key in _NEEDED):
        return {**found, **sizes, **names}
    if not detector.head.exported or detector.preprocessing != Preprocessing(detector.image_size):
        raise InputError(
            f"--for {target}: Ultralytics does not read a model with the head {detector.name!r} as it was measured; "
            "leave --for out, or choose another"
        )
    task = "segment" if MASKS in detector.gives else "pose" if KEYPOINTS in detector.gives else "detect"
    return {
        "description": f"{shipment.name}, trial {shipment.trial}",
        **found,
        "task": task,
        "stride": _USUAL_STRIDE,
        **sizes,
        **names,
        "channels": 3,
        "end2end": detector.head.one_to_one,
        "args": {"batch": shipment.batch, "dynamic": False, "nms": None},
    }


def _value(text: str) -> Any:
    """A number, list or dict where the text is one, else the text."""
    found = literal(text)
    return text if found is None and text != "None" else found
