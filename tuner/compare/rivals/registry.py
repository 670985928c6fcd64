"""The rivals that are known."""

from __future__ import annotations

from typing import TYPE_CHECKING

from search_spaces.registry import Registry

if TYPE_CHECKING:  # names are told without what is behind them
    from tuner.compare.rivals.rival import Rival

#: Rivals by name, as ``tuner rivals RUN NAME:ARGUMENT`` takes them.
RIVALS: Registry[type[Rival]] = Registry(
    "rival",
    {
        "modelopt": "tuner.compare.rivals.modelopt:ModelOpt",
        "autoquantize": "tuner.compare.rivals.autoquantize:AutoQuantize",
        "inc": "tuner.compare.rivals.neural_compressor:NeuralCompressor",
        "nncf": "tuner.compare.rivals.neural_network_compression:Nncf",
        "ultralytics-int8": "tuner.compare.rivals.ultralytics:UltralyticsInt8",
        "ultralytics-qat": "tuner.compare.rivals.ultralytics_qat:UltralyticsQat",
    },
    "tuner.rivals",
)
