"""The trials of a study: how allocations and scores are kept in Optuna, and what a crash leaves behind."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from objectives.objective_set import ObjectiveSet
from objectives.scores import Failure, Outcome, Scores, Screened
from search_spaces.allocation import Allocation
from search_spaces.durable import write_durably
from search_spaces.errors import InputError
from search_spaces.formats import UNQUANTIZED
from search_spaces.reading import record_of
from search_spaces.space import SearchSpace
from search_spaces.unsupported import Unsupported
from tuner.samplers.optuna_compat import (
    SCORES,
    SCREENED,
    finished,
    odd_attr,
    propose,
    recorded,
    running_trial,
    set_trial_attr,
)
from tuner.search.records import TrialRecord
from tuner.search.trial_facts import plain_facts
from tuner.study.config import StudyConfig
from tuner.study.run_folder import RunFolder, read_json

INTERRUPTED = "interrupted"
BLOCKED = "blocked"
UNSTABLE = "unstable"
#: A scheme whose worker died while it was evaluated is tried so many times more.
MAX_RETRIES = 2


def directions(objectives: ObjectiveSet) -> list[StudyDirection]:
    """Optuna's direction of each objective."""
    return [StudyDirection[objective.direction.upper()] for objective in objectives.objectives]


@dataclass
class Trials:
    """All dealings with one Optuna study.

    Attributes:
        study: The study.
        space: Its groups and formats.
        config: Objectives and constraints.
        run: Where finished evaluations are durable.
        blocked: Pairs that the target cannot build; schemes are repaired around them.
        worker: Who asks; a trial names its worker as long as it runs.
    """

    study: optuna.Study
    space: SearchSpace
    config: StudyConfig
    run: RunFolder
    blocked: Unsupported = field(default_factory=Unsupported)
    worker: str = ""
    _ended: dict[int, TrialRecord] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        found, wanted = self.study.directions, directions(self.config.objective_set)
        if found != wanted:  # Optuna would fail every trial that is told
            raise InputError(
                f"study {self.study.study_name!r}: its directions are {[way.name for way in found]}, not "
                f"{[way.name for way in wanted]} as the objectives ask; restore its storage"
            )
        self._check_attr(f"study {self.study.study_name!r}", odd_attr(self.study))

    def repair_choices(self, choices: Mapping[str, str]) -> dict[str, str]:
        """The scheme without what the target cannot build."""
        return self.blocked.repair(self.space, choices)

    def block(self, trial: Trial, allocation: Allocation, failure: Failure) -> bool:
        """Blocks the pair that stopped a trial's build and queues the scheme without it.

        Returns:
            Whether the failure named a pair that was not blocked yet.
        """
        fmt = allocation.formats.get(failure.layer, UNQUANTIZED)
        if failure.kind != "build" or fmt == UNQUANTIZED or (failure.layer, fmt) in self.blocked.pairs:
            return False
        self.blocked = self.blocked.with_pair(failure.layer, fmt, failure.message)
        write_durably(self.run.blocked, self.blocked.to_json())
        choices = self.repair_choices(self.space.choices(allocation))
        self.enqueue([(f"repair:{trial.number}", choices)])
        return True

    def records(self) -> list[TrialRecord]:
        """All trials, in order.

        Raises:
            InputError: They are not numbered from 0 on, as Optuna does it: the storage was damaged.
        """
        trials = self.study.get_trials(deepcopy=False)
        for place, trial in enumerate(trials):
            if trial.number != place:
                raise InputError(
                    f"study {self.study.study_name!r}: a trial is numbered {trial.number} in place of {place}; restore "
                    "its storage"
                )
        return [self._ended.get(trial.number) or self._record(trial) for trial in trials]

    def enqueue(self, seeds: Iterable[tuple[str, Mapping[str, str]]]) -> int:
        """Queues those ``(origin, choices)`` that the study does not hold in any state; returns how many."""
        held = {record.allocation.digest for record in self.records()}
        count = 0
        for origin, seed in seeds:
            choices = self.repair_choices(seed)
            digest = self.space.allocation(choices).digest
            if digest not in held:
                held.add(digest)
                count += 1
                self.study.enqueue_trial(dict(choices), user_attrs={"origin": origin, "digest": digest})
        return count

    def ask(self) -> tuple[Trial, Allocation]:
        """Starts the next trial: a queued one, else the sampler's proposal. The caller has the turn.

        A scheme that was queued before one of its pairs was blocked is failed, and queued again without the pair.
        """
        while True:
            trial = self.study.ask()
            trial.set_user_attr("worker", self.worker)
            allocation = self._choose(trial)
            choices = self.space.choices(allocation)
            if (repaired := self.repair_choices(choices)) == choices:
                return trial, allocation
            origin = self._frozen(trial.number).user_attrs.get("origin", "sampler")
            self.tell(trial, Failure(BLOCKED, "holds a pair that cannot be built; queued again without it"))
            self.enqueue([(origin, repaired)])

    def tell(self, trial: Trial, result: Outcome) -> None:
        """Finishes a trial. The result must be durable already, unless it is an interruption.

        A screened scheme is pruned, as Optuna calls a trial that ended early because it promised nothing: its samplers
        take it for a bad one, and its dashboard tells it from a failure.

        Where another worker took this one for dead meanwhile, for its connection was cut, nothing is left to tell.
        """
        if finished(self.study, trial):
            return
        if isinstance(result, Failure):
            trial.set_user_attr("failure", result.to_json())
            self.study.tell(trial, state=TrialState.FAIL)
            return
        if isinstance(result, Screened):
            set_trial_attr(self.study, trial, SCREENED, result.to_json())
            self.study.tell(trial, state=TrialState.PRUNED)
            return
        excesses = self._bounded().violations(result)
        for name, excess in excesses.items():
            if name not in trial.constraints:
                trial.set_constraint(name, excess)
        # optuna-dashboard 0.21 reads only the list of Optuna before 5, which Optuna 5 reads too.
        set_trial_attr(self.study, trial, "constraints", list(excesses.values()))
        set_trial_attr(self.study, trial, SCORES, result.to_json())
        reference = read_json(self.run.reference, Scores) if self.run.reference.is_file() else None
        choices = self._choices(self._frozen(trial.number))
        allocation = self.space.allocation(choices) if choices is not None else Allocation(())
        for name, value in plain_facts(result, allocation, self.config.objective_set, reference).items():
            trial.set_user_attr(name, value)
        self.study.tell(trial, self.config.objective_set.values(result))

    def requeue(self, trial: Trial, *, lost: bool = False) -> None:
        """Fails a trial that was cut short and queues its scheme again, in that order of safety. Needs the turn.

        The new trial takes over the scheme and its origin, and nothing that was measured or judged.

        Args:
            trial: It is RUNNING.
            lost: Whether its worker died while it was evaluated: the third time ends the tries, for the scheme may be
                what kills it.
        """
        frozen = self._frozen(trial.number)
        choices = self._choices(frozen)
        retries = int(frozen.user_attrs.get("retries", 0)) + lost
        if choices is not None and retries > MAX_RETRIES:
            failure = Failure("lost", f"its worker died {retries} times while it was evaluated; not tried again")
            self.run.save_evaluation(self.space.allocation(choices), failure)
            self.tell(trial, failure)
            return
        if choices is not None:
            digest = self.space.allocation(choices).digest
            queued = self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
            if all(other.user_attrs.get("digest") != digest for other in queued):
                attrs = {"origin": frozen.user_attrs.get("origin", "sampler"), "digest": digest}
                self.study.enqueue_trial(choices, user_attrs={**attrs, "retries": retries} if retries else attrs)
        self.tell(trial, Failure(INTERRUPTED, "the run ended while this trial was running; queued again"))

    def settle(self, alive: Callable[[str], bool]) -> tuple[int, int]:
        """Settles the RUNNING trials whose worker is dead, or died before it was named. Needs the turn.

        One whose evaluation is durable is told; any other is failed and its scheme queued again.

        Args:
            alive: Whether the worker of that name lives.

        Returns:
            How many were told, and how many were queued again.
        """
        told = queued = 0
        for frozen in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            worker = frozen.user_attrs.get("worker")
            if worker is not None and alive(worker):
                continue
            trial = running_trial(self.study, frozen)
            choices = self._choices(frozen)
            result = self.run.evaluation(self.space.allocation(choices)) if choices is not None else None
            if result is None:
                self.requeue(trial, lost=worker is not None)
                queued += 1
            else:
                self._choose(trial)
                self.tell(trial, result)
                told += 1
        return told, queued

    def exhausted(self) -> bool:
        """Whether every scheme of the space has been tried or is queued."""
        size = 1
        for group, choices in zip(self.space.groups, self.space.formats, strict=True):
            size *= sum(not self.blocked.blocks(group, name) for name in choices)
            if size > 10**6:
                return False
        tried = {record.allocation for record in self.records() if record.allocation.items}
        return sum(self.blocked.repair_allocation(allocation) == allocation for allocation in tried) >= size

    def _choose(self, trial: Trial) -> Allocation:
        # Even where a queued scheme fixes every parameter: samplers mark the trial as a parent when they draw.
        propose(trial)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            choices = {
                name: trial.suggest_categorical(name, formats) for name, formats in self.space.parameters().items()
            }
        allocation = self.space.allocation(choices)
        if "digest" not in trial.user_attrs:
            trial.set_user_attr("origin", "sampler")
            trial.set_user_attr("digest", allocation.digest)
        return allocation

    def _bounded(self) -> ObjectiveSet:
        """The study's objectives with all their bounds, of which one may need the reference."""
        wanted = self.config.objective_set
        return wanted if wanted.max_drop is None else wanted.against(read_json(self.run.reference, Scores))

    def _frozen(self, number: int) -> FrozenTrial:
        return self.study.get_trials(deepcopy=False)[number]

    def _choices(self, trial: FrozenTrial) -> dict[str, Any] | None:
        """The scheme of a trial in any state; None where it was cut short before it had one."""
        params = _given(trial)
        return params if params.keys() >= self.space.parameters().keys() else None

    def _check(self, trial: FrozenTrial) -> None:
        """Refuses a trial of another space: its scheme would be misread, and Optuna would ask for no further one.

        Raises:
            InputError: Its groups, their formats or the order of these are others than the run's.
        """
        name = f"study {self.study.study_name!r}: trial {trial.number}"
        remedy = "restore the run's manifest.json and its storage, or start another run"
        for group, formats in self.space.parameters().items():
            found = trial.distributions.get(group)
            if found is not None and found != CategoricalDistribution(formats):
                raise InputError(f"{name}: {group!r} was chosen otherwise than from {', '.join(formats)}; {remedy}")
        self._check_attr(name, odd_attr(self.study, trial))
        measured = trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
        self.space.check(_given(trial), name, remedy, whole=measured)

    @staticmethod
    def _check_attr(name: str, odd: str | None) -> None:
        if odd is not None:
            raise InputError(
                f"{name}: {odd!r} is not what a sampler keeps there; restore the storage, or start another run"
            )

    def _record(self, trial: FrozenTrial) -> TrialRecord:
        choices = self._choices(trial)
        self._check(trial)
        attrs, name = trial.user_attrs, f"study.db: trial {trial.number}"
        complete = trial.state is TrialState.COMPLETE
        scores, screened = recorded(trial, SCORES), recorded(trial, SCREENED)
        failed, pruned = trial.state is TrialState.FAIL, trial.state is TrialState.PRUNED
        record = TrialRecord(
            number=trial.number,
            state=trial.state.name,
            origin=str(attrs.get("origin", "sampler")),
            allocation=self.space.allocation(choices) if choices is not None else Allocation(()),
            scores=record_of(Scores, scores, name) if complete and scores is not None else None,
            failure=record_of(Failure, attrs["failure"], name) if failed and "failure" in attrs else None,
            screened=record_of(Screened, screened, name) if pruned and screened is not None else None,
        )
        if complete or failed or pruned:  # it changes no more
            self._ended[trial.number] = record
        return record


def _given(trial: FrozenTrial) -> dict[str, Any]:
    """What is queued or chosen of its scheme so far."""
    return {**trial.system_attrs.get("fixed_params", {}), **trial.params}


def counted(records: Iterable[TrialRecord]) -> int:
    """Trials that count towards ``--trials``: complete ones, screened ones and real failures."""
    return sum(_counts(r.state in ("COMPLETE", "PRUNED"), r.failure.kind if r.failure else None) for r in records)


def ended_trials(study: optuna.Study) -> int:
    """The same of a study whose space is not at hand."""
    trials = study.get_trials(deepcopy=False)
    scored = (TrialState.COMPLETE, TrialState.PRUNED)
    return sum(_counts(t.state in scored, t.user_attrs.get("failure", {}).get("kind")) for t in trials)


def _counts(complete: bool, failure: str | None) -> bool:
    return complete or failure not in (None, INTERRUPTED, BLOCKED)
