"""Reads an Ultralytics checkpoint without running code that its pickle may hold."""

from __future__ import annotations

import contextlib
import copy
import pickletools
import re
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from objectives.torch_models.packages import chatter_to_stderr, require_ultralytics
from objectives.torch_models.pickle_check import RefusedError, check_pickle
from objectives.torch_models.shut import shut
from search_spaces.errors import InputError
from search_spaces.limits import MEMORY_VARIABLE, memory_limit, step
from search_spaces.reading import digest_of, is_file

_COPIES = 3  # of the weights that loading a checkpoint makes
_WITHOUT_BOXES = ("classify", "semantic", "depth")  # tasks of Ultralytics


@dataclass(frozen=True)
class Checkpoint:
    """A detector as Ultralytics saved it.

    Attributes:
        path: The file.
        digest: SHA-256 of the file, hex.
        module: `torch.nn.Module` in eval mode, float32, on the CPU; BatchNorm not yet folded. Never changed: users take
            a copy by `fused`.
    """

    path: Path
    digest: str
    module: Any

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names by index."""
        names = self.module.names
        return tuple(str(names[index]) for index in sorted(names))

    @property
    def task(self) -> str:
        """Ultralytics' word for what it finds, e.g. ``detect``."""
        return str(self.module.task)

    @property
    def has_one_to_one_head(self) -> bool:
        """Whether it can be exported end to end, without non-maximum suppression."""
        return getattr(self.module.model[-1], "one2one_cv2", None) is not None

    @property
    def default_size(self) -> int:
        """Image size it was trained with, pixels."""
        return int(self.module.args["imgsz"])

    def fused(self, end_to_end: bool) -> Any:
        """Returns a copy with one head, BatchNorm folded and parallel branches merged, as it is exported.

        Args:
            end_to_end: Keep the one-to-one head, else the one-to-many head.
        """
        from ultralytics.utils import IterableSimpleNamespace

        module = copy.deepcopy(self.module)
        with chatter_to_stderr():
            module.end2end = end_to_end and self.has_one_to_one_head
            module = module.fuse(verbose=False).eval()
        for part in module.modules():
            if hasattr(part, "inplace"):
                part.inplace = False  # hooks on gradients forbid it
        module.args = IterableSimpleNamespace(**self.module.args)  # the loss reads its gains
        return module


def load_checkpoint(path: Path) -> Checkpoint:
    """Loads a checkpoint by PyTorch's restricted unpickler and Ultralytics' list of known classes.

    Raises:
        InputError: The file is missing, damaged, asks for anything outside that list (which is then never called),
            holds no detector, or one with quantizers in it.
        RuntimeUnavailable: The `torch` extra is missing.
    """
    checkpoint, quantizers = _load(path)
    if quantizers:
        raise InputError(
            f"{path}: was trained with quantizers in it; give the checkpoint from before "
            f"(`tuner rivals RUN ultralytics-qat:{path}` measures this one beside a run)"
        )
    return checkpoint


def load_qat_checkpoint(path: Path) -> Checkpoint:
    """Loads the detector of quantization-aware training, as `load_checkpoint` does; its quantizers are left out.

    Raises:
        InputError: As of `load_checkpoint`; or it has no quantizers, or a ModelOpt state that does more than quantize.
        RuntimeUnavailable: The `torch` extra is missing.
    """
    checkpoint, quantizers = _load(path)
    if not quantizers:
        raise InputError(f"{path}: holds no quantizers; give a checkpoint of `yolo train quantize=8`")
    foreign = sorted(mode for mode in quantizers if mode != "quantize" and not mode.endswith("_calibrate"))
    if foreign:
        raise InputError(f"{path}: refused: its ModelOpt state asks for {', '.join(foreign)}; get it from its maker")
    return checkpoint


def _load(path: Path) -> tuple[Checkpoint, list[str]]:
    """The checkpoint without its quantizers, and the modes of ModelOpt that bring these back; none for most."""
    if not is_file(path):
        raise InputError(f"model {str(path)!r}: no such file; give the path of an Ultralytics checkpoint")
    require_ultralytics(str(path))
    limit = memory_limit() // _COPIES
    digest = digest_of(path, limit, f"give a smaller checkpoint, or set {MEMORY_VARIABLE} to more")
    _check_archive(path)
    try:
        with step(path, "loading it"):
            _check_pickle(path)
            place = path.absolute()
            with shut(path):
                content = _unpickle(path, place)
                module, quantizers = _detector(content), _modes(content)
    except InputError:
        raise
    except Exception as error:  # whatever a pickle's objects say when they are looked at
        raise _damaged(path, error) from None
    if module is None:
        raise InputError(f"{path}: holds no Ultralytics detector; give a checkpoint of a model that finds boxes")
    return Checkpoint(path, digest, module), quantizers


def _detector(content: Any) -> Any:
    """The detector of an unpickled checkpoint in float32, once through its folding; None where it holds none."""
    from ultralytics.nn.tasks import DetectionModel

    if not isinstance(content, dict):
        return None
    kept = content["ema"] if content.get("ema") is not None else content.get("model")
    if not isinstance(kept, DetectionModel) or not hasattr(kept, "names") or _task(kept) in _WITHOUT_BOXES:
        return None
    module: Any = kept.float().eval()
    module.task = _task(kept)  # older checkpoints leave it out
    module.args = _arguments(content)
    found = Checkpoint(Path(), "", module)
    if not found.classes or found.default_size < 1:
        return None
    found.fused(False)
    return module


def _modes(content: Any) -> list[str]:
    """Names of the changes that ModelOpt is to make to the module again, as Ultralytics keeps them beside it."""
    state = content.get("modelopt") if isinstance(content, dict) else None
    return [str(name) for name, _ in state["modelopt"]["modelopt_state_dict"]] if state else []


def _check_archive(path: Path) -> None:
    """Refuses an archive that unpacks to more than it is: PyTorch stores its records as they are.

    Raises:
        InputError: It does.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
    except Exception:  # no archive, or a damaged one, as loading it will tell
        return
    if unpacked > path.stat().st_size:
        raise InputError(f"{path}: refused: it unpacks to {unpacked} bytes, more than it is; get it from its maker")


def _arguments(content: dict[str, Any]) -> dict[str, Any]:
    """Training arguments, loss gains and image size among them; Ultralytics' defaults where a checkpoint lacks them."""
    from ultralytics.cfg import DEFAULT_CFG_DICT

    return {**DEFAULT_CFG_DICT, **(content.get("train_args") or {})}


def _task(module: Any) -> str:
    from ultralytics.nn.tasks import guess_model_task

    return str(getattr(module, "task", None) or guess_model_task(module))


def _check_pickle(path: Path) -> None:
    """Refuses a pickle that does what no detector needs; nothing of it is made to find out.

    Raises:
        InputError: It does, or the file is no archive of PyTorch's, as every checkpoint of Ultralytics' is.
    """
    import torch

    try:
        # The loader's own reader: another one may take other bytes of an odd archive for the pickle.
        data = torch._C.PyTorchFileReader(str(path)).get_record("data.pkl")
        with zipfile.ZipFile(path) as archive:
            records = {entry.filename.rpartition("/data/")[2]: entry.file_size for entry in archive.infolist()}
        check_pickle(data, records)
    except RefusedError as error:
        raise _refused(path, str(error)) from None
    except Exception as error:
        foreign = sorted(_globals_of(path))
        if foreign:
            raise _refused(path, f"asks for {', '.join(foreign)}") from None
        raise _damaged(path, error) from None


def _unpickle(path: Path, place: Path) -> Any:
    """What the pickle holds; `place` is the file as seen from the folder in which it is put together."""
    from ultralytics.nn.tasks import torch_safe_load

    plain = Path("checkpoint.pt")  # by its own name, yolov5n.pt say, Ultralytics would look for another one to download
    plain.symlink_to(place)
    try:
        with chatter_to_stderr(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch_safe_load(str(plain), safe_only=True)[0]
    except Exception as error:
        blocked = re.search(r"unsafe getattr\([^)]*\)", f"{error.__cause__} {error}")
        if blocked:
            raise InputError(
                f"{path}: refused: its pickle uses {blocked[0]}; get the checkpoint from its maker"
            ) from None
        raise _damaged(path, error) from None


def _refused(path: Path, what: str) -> InputError:
    return InputError(
        f"{path}: refused: its pickle {what}, which no Ultralytics detector needs and which could run code; get the "
        "checkpoint from its maker"
    )


def _damaged(path: Path, error: Exception) -> InputError:
    kind = type(error).__name__
    return InputError(f"{path}: not an Ultralytics checkpoint, or damaged ({kind}); get it again")


def _globals_of(path: Path) -> set[str]:
    """Names that bare pickles, one after the other, ask for, read from their opcodes as far as these make sense."""
    found: set[str] = set()
    texts: list[str] = []
    with path.open("rb") as file, contextlib.suppress(Exception):
        while True:  # until the bytes are no pickle any more, which genops tells by an error
            for opcode, argument, _ in pickletools.genops(file):
                if opcode.name == "GLOBAL":
                    found.add(str(argument).replace(" ", "."))
                elif opcode.name == "STACK_GLOBAL":
                    found.add(".".join(texts[-2:]))
                elif isinstance(argument, str):
                    texts.append(argument)
    return {name for name in found if not name.startswith(("torch.", "collections."))}
