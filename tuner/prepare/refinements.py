"""Refined numbers of single trials, as a run keeps them."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from objectives.quantization.refined import Refined, load_refined, save_refined
from search_spaces.durable import durable_folder, write_durably
from search_spaces.errors import InputError
from tuner.study.run_folder import RunFolder, read_json

_FACTS = "refinement.json"


@dataclass(frozen=True)
class KeptRefinement:
    """What is known of the refined numbers of one trial.

    Attributes:
        trial: Its number.
        made: When, in UTC: ``20261128T142007Z``.
        stage: After which they were best: ``reconstruction`` or ``distillation``.
        divergence: Of the scheme from the unquantized model on images that nothing was learnt on: before.
        refined_divergence: The same, with these numbers.
        learnt_on: Images.
        judged_on: Images.
        images: SHA-256 over the contents of all of them, hex.
        seconds: That it took.
        device: ``cpu`` or ``cuda``.
        numbers: Their key.
    """

    trial: int
    made: str
    stage: str
    divergence: float
    refined_divergence: float
    learnt_on: int
    judged_on: int
    images: str
    seconds: float
    device: str
    numbers: str = ""

    def folder(self, run: RunFolder) -> Path:
        """Where they lie."""
        return run.refinements / f"{self.trial}-{self.made}"


def keep_refined(run: RunFolder, refined: Refined, facts: KeptRefinement) -> KeptRefinement:
    """Writes refined numbers into a run, all or nothing; returns their facts with their key."""
    with durable_folder(facts.folder(run)) as staging:
        facts = replace(facts, numbers=save_refined(staging, refined))
        write_durably(staging / _FACTS, json.dumps(asdict(facts), indent=1) + "\n")
    return facts


def forget_refined(run: RunFolder, facts: KeptRefinement) -> None:
    """Removes refined numbers from a run."""
    shutil.rmtree(facts.folder(run), ignore_errors=True)


def kept_refinements(run: RunFolder) -> list[KeptRefinement]:
    """What a run holds, in the order in which it was made.

    Raises:
        InputError: A file is damaged.
    """
    found = []
    for path in run.refinements.glob(f"[0-9]*/{_FACTS}"):
        kept = read_json(path, KeptRefinement)
        if path.parent.name != f"{kept.trial}-{kept.made}":  # what is told would lead out of the run
            raise InputError(f"{path}: not of the folder that it lies in; restore or delete it")
        found.append(kept)
    return sorted(found, key=lambda kept: (kept.made, kept.trial))


def read_refined(run: RunFolder) -> dict[str, Refined]:
    """Refined numbers by their keys; raises as `kept_refinements` does."""
    return {kept.numbers: load_refined(kept.folder(run)) for kept in kept_refinements(run)}
