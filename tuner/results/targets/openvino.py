"""OpenVINO: a folder in its own form, which Ultralytics loads too where it knows the head."""

from __future__ import annotations

from typing import ClassVar

import yaml

from objectives.runtimes.loader import Loader
from search_spaces.errors import InputError
from tuner.results.targets.target import Laid, Shipment
from tuner.results.targets.ultralytics_metadata import ultralytics_metadata


class OpenVinoFolder:
    """``NAME_openvino_model/`` with ``model.xml``, ``model.bin`` and ``metadata.yaml``."""

    title: ClassVar[str] = "OpenVINO"

    def lay_out(self, shipment: Shipment) -> Laid:
        """As `Target` says."""
        loader = shipment.loaded_by("openvino", Loader.OPENVINO)
        if loader.value not in shipment.files:
            raise InputError(
                f"--for openvino: {loader.value} cannot be made here, OpenVINO is not installed; "
                "`pip install openvino`, or convert the plain export with `ovc model.onnx`"
            )
        folder = f"{shipment.name}_openvino_model"
        added = [name for name in shipment.files if not name.endswith(".onnx")]
        files = {f"{folder}/{name}": shipment.files[name] for name in added}
        usage = f"Timed as it was here by\n\n```sh\ncd {folder} && {shipment.build_command}\n```\n"
        notes: tuple[str, ...] = ()
        try:
            metadata = ultralytics_metadata(shipment, "openvino")
        except InputError:
            head = shipment.detector.name
            notes = (f"without metadata.yaml: YOLO() does not read a model with the head {head!r}, OpenVINO does",)
        else:
            text = yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True)
            files[f"{folder}/metadata.yaml"] = text.encode()
            usage += f'\nand loaded by Ultralytics as `YOLO("{folder}/", task="{metadata["task"]}")`.\n'
        return Laid(files, usage, notes=notes)
