"""The samplers that a study file may name; none is loaded here."""

from __future__ import annotations

from typing import Any

from search_spaces.registry import Registry

#: Samplers by name; a package adds its own as an entry point that names a `tuner.samplers.SamplerFactory`.
SAMPLERS: Registry[Any] = Registry(
    "sampler",
    {
        "model": "tuner.samplers.model_guided:ModelGuidedSampler",
        "lowdim-tpe": "tuner.samplers.lowdim:LowDimensionalSampler",
        "knapsack": "tuner.samplers.knapsack:KnapsackSampler",
        "nsga2": "tuner.samplers.optuna_samplers:nsga2",
        "tpe": "tuner.samplers.optuna_samplers:tpe",
        "random": "tuner.samplers.optuna_samplers:uniform",
    },
    "tuner.samplers",
)
