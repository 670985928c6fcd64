"""Ultralytics: a model that `YOLO("model.onnx")` predicts and validates with."""

from __future__ import annotations

import json
from typing import ClassVar

import onnx

from objectives.runtimes.loader import Loader
from search_spaces.errors import InputError
from tuner.results.targets.target import Laid, Shipment
from tuner.results.targets.ultralytics_metadata import ultralytics_metadata


class Ultralytics:
    """One file with Ultralytics' metadata: ``.onnx``, or ``.engine`` where there is one."""

    title: ClassVar[str] = "Ultralytics"

    def lay_out(self, shipment: Shipment) -> Laid:
        """As `Target` says."""
        if shipment.runtime.loader is Loader.OPENVINO:
            raise InputError(
                "--for ultralytics: of an OpenVINO scheme YOLO() loads OpenVINO's own form; use --for openvino"
            )
        loader = shipment.loaded_by("ultralytics", Loader.ONNXRUNTIME, Loader.TENSORRT)
        metadata = ultralytics_metadata(shipment, "ultralytics")
        if loader is Loader.ONNXRUNTIME:
            file = f"{shipment.name}.onnx"
            model = onnx.ModelProto()
            model.CopyFrom(shipment.model)
            onnx.helper.set_model_props(model, {key: str(value) for key, value in metadata.items()})
            content = bytes(model.SerializeToString(deterministic=True))
        else:
            file = f"{shipment.name}.engine"
            plan = shipment.files.get(loader.value)
            if plan is None:
                raise InputError(
                    "--for ultralytics: the engine that was timed is no longer in the cache of this machine; export "
                    "where it was built, or build it there: " + shipment.build_command
                )
            header = json.dumps(metadata).encode()  # Ultralytics puts its length, 4 bytes, before it
            content = len(header).to_bytes(4, "little") + header + plan
        usage = (
            "```python\nfrom ultralytics import YOLO\n\n"
            f'model = YOLO("{file}", task="{metadata["task"]}")\n'
            'model.predict("image.jpg")\nmodel.val(data="data.yaml")\n```\n'
        )
        return Laid({file: content}, usage, file if loader is Loader.ONNXRUNTIME else "")
