"""Weights beside an ONNX file: how many bytes of them will be read is settled before any are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import onnx

from search_spaces.errors import InputError
from search_spaces.limits import MEMORY_VARIABLE, memory_limit
from search_spaces.reading import size_text

_COPIES = 3  # of the weights that reading a model makes
_BITS = {2: ("INT2", "UINT2"), 4: ("INT4", "UINT4", "FLOAT4E2M1")}  # packed; all others take whole bytes


def bound_external_data(tensors: Sequence[onnx.TensorProto], path: Path) -> None:
    """Gives each tensor that lies outside the length that its shape takes, where the file states none, in place.

    ONNX reads all that a file holds then, and a length beyond the tensor's as it stands: both may be any number.

    Args:
        tensors: Of one model, with external data.
        path: The model.

    Raises:
        InputError: A length is not that of the tensor's shape, or all of them do not fit into memory.
    """
    total = 0
    for tensor in tensors:
        expected = _bytes_of(tensor, path)
        stated = {entry.key: entry for entry in tensor.external_data}
        if "length" not in stated:
            tensor.external_data.add(key="length", value=str(expected))
        elif not stated["length"].value.isdecimal() or int(stated["length"].value[:20]) != expected:
            raise InputError(
                f"{path}: external data of {tensor.name!r} has length {stated['length'].value[:20]}, and its shape "
                f"takes {expected} bytes; export it again"
            )
        total += expected
    limit = memory_limit() // _COPIES
    if total > limit:
        raise InputError(
            f"{path}: its external data comes to {size_text(total)} (at most {size_text(limit)} here); give a smaller "
            f"model, or set {MEMORY_VARIABLE} to more"
        )


def _bytes_of(tensor: onnx.TensorProto, path: Path) -> int:
    name = onnx.TensorProto.DataType.Name(tensor.data_type)
    count = math.prod(tensor.dims)
    if count < 0 or name in ("UNDEFINED", "STRING"):
        raise InputError(
            f"{path}: external data of {tensor.name!r} is {name} of shape {list(tensor.dims)}; export it again"
        )
    kept = next((bits for bits, names in _BITS.items() if name in names), 0)
    bits = kept or 8 * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    return int(-(-count * bits // 8))
