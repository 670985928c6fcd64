"""What a pickle would do, found without doing it; pickles are written opcode by opcode."""

from __future__ import annotations

import struct

import pytest

from objectives.torch_models.known_classes import MADE
from objectives.torch_models.pickle_check import RefusedError, check_pickle

EMPTY, CALL, NEW, BUILD, END = b")", b"R", b"\x81", b"b", b"."
STORAGE = {"0": 400}


def named(full: str) -> bytes:
    module, _, name = full.rpartition(".")
    return f"c{module}\n{name}\n".encode()


def plain(value: object) -> bytes:
    """A text, number, truth, tuple or mapping of them, as opcodes."""
    if isinstance(value, str):
        return b"X" + struct.pack("<I", len(value)) + value.encode()
    if isinstance(value, bool):
        return b"\x88" if value else b"\x89"
    if isinstance(value, int):
        return f"L{value}L\n".encode()
    if isinstance(value, dict):
        return b"}(" + b"".join(plain(part) for pair in value.items() for part in pair) + b"u"
    assert isinstance(value, tuple)
    return b"(" + b"".join(map(plain, value)) + b"t"


def tensor(size: tuple[int, ...], count: int = 100, key: str = "0", kind: str = "torch.FloatStorage") -> bytes:
    """A tensor of a storage of so many numbers."""
    place = b"(" + plain("storage") + named(kind) + b"".join(map(plain, (key, "cpu", count))) + b"tQ"
    shape = b"".join(map(plain, (0, size, (1,) * len(size), False)))
    return named("torch._utils._rebuild_tensor_v2") + b"(" + place + shape + named("collections.OrderedDict") + b")RtR"


@pytest.mark.parametrize(
    "name",
    [
        "ultralytics.nn.distill_model.DistillationModel",
        "ultralytics.nn.autobackend.AutoBackend",
        "ultralytics.nn.text_model.CLIP",
        "ultralytics.nn.modules.block.TorchVision",
        "ultralytics.engine.trainer.BaseTrainer",
        "ultralytics.engine.predictor.BasePredictor",
        "ultralytics.utils.downloads.safe_download",
        "torch.hub.load",
        "torch.load",
        "torch.nn.modules.module.Module",
        "torch.nn.modules.lazy.LazyModuleMixin",
        "torch.jit._script.RecursiveScriptModule",
        "torch._utils._rebuild_wrapper_subclass",
        "torch._tensor._rebuild_from_type_v2",
        "posix.system",
        "builtins.eval",
        "builtins.bytearray",
        "builtins.print",
    ],
)
def test_what_is_no_part_of_a_detector_may_not_even_be_named(name: str) -> None:
    for use in (EMPTY + CALL, EMPTY + NEW, b""):
        with pytest.raises(RefusedError, match=f"^asks for {name}$"):
            check_pickle(named(name) + use + END, {})


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("ultralytics.nn.tasks.DetectionModel", ("http://somewhere/model.yaml",)),
        ("torch.nn.modules.linear.Linear", (10**6, 10**6)),
        ("torch.nn.modules.container.Sequential", ()),
        ("ultralytics.nn.modules.head.Detect", (80,)),
        ("torch.FloatStorage", (10**10,)),
        ("torch.float32", ()),
        ("ultralytics.utils.IterableSimpleNamespace", (1,)),
        ("numpy.dtype", ("V9999999999",)),
        ("_codecs.encode", ("x", "zip")),
        ("torch.device", ("meta",)),
    ],
)
def test_nothing_is_called_with_arguments_of_the_file(name: str, arguments: tuple[object, ...]) -> None:
    """In any of the ways in which a pickle calls."""
    module, _, last = name.rpartition(".")
    flat = b"".join(map(plain, arguments))
    for data in (
        named(name) + plain(arguments) + CALL,
        plain(module) + plain(last) + b"\x93" + plain(arguments) + CALL,
        *((b"(" + named(name) + flat + b"o", b"(" + flat + f"i{module}\n{last}\n".encode()) if arguments else ()),
    ):
        with pytest.raises(RefusedError, match=f"^calls {name} with arguments of its own$"):
            check_pickle(data + END, {})


def test_an_instance_is_made_of_nothing_and_filled() -> None:
    layer = named("torch.nn.modules.linear.Linear")
    check_pickle(layer + EMPTY + NEW + plain({"in_features": 10**9}) + BUILD + END, {})
    with pytest.raises(RefusedError, match=r"makes torch\.nn\.modules\.linear\.Linear of something"):
        check_pickle(layer + plain((10**6, 10**6)) + NEW + END, {})
    with pytest.raises(RefusedError, match=r"makes torch\.Size"):
        check_pickle(named("torch.Size") + EMPTY + NEW + END, {})


def test_a_tensor_is_no_larger_than_what_it_is_stored_in() -> None:
    check_pickle(tensor((10, 10)) + END, STORAGE)
    for size in ((10**5, 10**5), (101,), (-1, -101), (2**62, 2**62)):
        with pytest.raises(RefusedError, match="makes a tensor of"):
            check_pickle(tensor(size) + END, STORAGE)
    with pytest.raises(RefusedError, match="claims 101 numbers for the storage '0'"):
        check_pickle(tensor((2,), count=101) + END, STORAGE)
    with pytest.raises(RefusedError, match="claims 100 numbers for the storage '1'"):
        check_pickle(tensor((2,), key="1") + END, STORAGE)
    with pytest.raises(RefusedError, match="again and again"):
        check_pickle(b"]" + b"".join(tensor((100,)) + b"a" for _ in range(3)) + END, STORAGE)


def test_old_names_are_told_by_what_they_are_now() -> None:
    check_pickle(named("__builtin__.set") + b"]" + b"\x85" + CALL + END, {})
    with pytest.raises(RefusedError, match=r"asks for builtins\.eval"):
        check_pickle(named("__builtin__.eval") + END, {})


def test_a_tuple_of_itself_many_times_over_takes_no_time() -> None:
    nested = b"K\x01" + b"2\x86" * 60
    with pytest.raises(RefusedError, match=r"calls torch\.device"):
        check_pickle(named("torch.device") + nested + b"\x85" + CALL + END, {})


@pytest.mark.parametrize("data", [b"", b"no pickle", b"\x80\x02", b"\x80\x02X" + struct.pack("<I", 2**32 - 1) + b"x."])
def test_what_is_no_pickle_says_so(data: bytes) -> None:
    with pytest.raises(Exception) as caught:
        check_pickle(data, {})
    assert not isinstance(caught.value, RefusedError)


def test_the_list_names_no_class_that_acts() -> None:
    acting = ("TorchVision", "Distillation", "AutoBackend", "Trainer", "Predictor", "CLIP", "Lazy", "Script")
    assert not [name for name in MADE for word in acting if word in name]
