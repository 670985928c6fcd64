"""A study from its file to its results: launch, resume, or join as a worker."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import optuna
from optuna.storages import RDBStorage

from objectives.devices.waiting import crew
from objectives.quantization.coverage import Coverage
from objectives.runtimes.runtime import StudyEvaluator
from objectives.scores import Scores
from search_spaces.durable import write_durably
from search_spaces.errors import InputError
from tuner.prepare.evaluators import evaluator_settings, open_evaluator
from tuner.prepare.images import ensure_images
from tuner.prepare.knowledge import ensure_knowledge
from tuner.prepare.linked import Link, open_link, recorded_link
from tuner.prepare.precision import record_precision
from tuner.prepare.prepared import PreparedStudy, prepare_study
from tuner.prepare.probe import ensure_probe, unsupported_pairs
from tuner.results.finalize import finish
from tuner.results.so_far import first_front, write_so_far
from tuner.search.callbacks import Callback, Callbacks
from tuner.search.loop import begin, open_trials, queue, read_blocked, score_reference, search
from tuner.search.problem import study_problem
from tuner.search.progress_view import LiveView
from tuner.search.seeds import first_seeds, study_seeds
from tuner.search.session import Session
from tuner.search.trials import Trials, ended_trials
from tuner.search.worker_locks import WorkerLocks, open_worker_locks
from tuner.study.artifacts import check_artifacts
from tuner.study.changes import checked_changes
from tuner.study.config import StudyConfig
from tuner.study.identity import (
    check_identity,
    identity,
    new_manifest,
    read_manifest,
    read_run_study,
    write_manifest,
)
from tuner.study.inputs import Inputs, read_inputs
from tuner.study.model_file import CHECKPOINT_SUFFIX
from tuner.study.run_folder import RunFolder, refuse_existing
from tuner.study.storage import check_kept, close_storage, damage_named, open_storage
from tuner.study.storage_url import detach_password
from tuner.study.study_file import check_name, write_study
from tuner.terminal.console import say
from tuner.terminal.progress import Steps, silent
from tuner.terminal.signals import Interrupted, Interrupts
from tuner.workers.local import local_start
from tuner.workers.ray_cluster import RayCluster
from tuner.workers.ray_workers import ray_start
from tuner.workers.supervisor import Start, supervise


def launch(
    config: StudyConfig,
    path: Path,
    *,
    trials: int | None = None,
    workers: int = 1,
    steps: Steps = silent,
    linked: Path | None = None,
    ray: RayCluster | None = None,
    callbacks: Sequence[Callback] = (),
) -> RunFolder:
    """Starts a study in a new run folder and works until it is done.

    Args:
        config: The study, with absolute paths.
        path: The run folder; must not exist, or be empty.
        trials: In place of the study's ``search.trials``.
        workers: Processes that evaluate; one works in this process, unless it is placed by Ray.
        steps: Shows the progress of long preparations.
        linked: A run of the same study on another device, whose accuracy scores are reused.
        ray: Where the workers are placed; this host by default.
        callbacks: Told of every trial that ends, as `optuna.study.Study.optimize` would.

    Raises:
        InputError: Anything the user named is wrong; nothing is left behind then, unless something was prepared.
        RepeatedFailureError: The same failure ended five trials in a row.
        Interrupted: By a signal; the run can be resumed.
    """
    _at_least_one(trials=trials, workers=workers)
    check_name(path)
    refuse_existing(path)
    config = config.model_copy(update={"storage": detach_password(config.storage)})
    with steps(_reading(config), 0):
        inputs = read_inputs(config)
    for note in inputs.notes:
        say(f"note: {note}")
    if linked is not None:
        open_link(linked, identity(config, digests=inputs.digests))
    with _crew(config, workers, ray) as start:
        run = RunFolder.create(path, write_study(config, path), linked)
        with run.lock():
            try:
                total = trials or config.search.trials
                _work(run, inputs, total, workers, start, steps, callbacks=Callbacks(callbacks))
            except InputError as error:
                if run.prepared:
                    raise InputError(f"{error}; what was prepared is kept: `tuner resume {path}` goes on") from None
                run.remove()
                raise
    return run


def resume(
    path: Path,
    *,
    trials: int | None = None,
    workers: int = 1,
    steps: Steps = silent,
    ray: RayCluster | None = None,
    overrides: Sequence[str] = (),
    callbacks: Sequence[Callback] = (),
) -> RunFolder:
    """Continues a study, up to `trials` trials in all; raises as `launch` does.

    Args:
        path: The run folder.
        trials: Trials in all; None for what was asked for before.
        workers: As `launch` has it.
        steps: As there.
        ray: As there.
        overrides: ``section.key=VALUE`` of keys that may change, see `tuner.study.changes`; the run keeps them.
        callbacks: As there.
    """
    _at_least_one(trials=trials, workers=workers)
    run = RunFolder.open(path)
    changes = checked_changes(overrides)
    config = read_run_study(run, changes)
    check_kept(run.database, config.storage)
    if any(change.startswith("search.trials=") for change in changes):
        trials = trials or config.search.trials
    with run.lock(), _crew(config, workers, ray) as start:
        recorded = read_manifest(run).get("trials") if run.manifest.is_file() else None
        total, extended = trials or recorded or config.search.trials, trials is not None
        with steps(_reading(config), 0):
            inputs = read_inputs(config)
        if changes:
            _keep(run, inputs)
        _work(run, inputs, total, workers, start, steps, extended, Callbacks(callbacks))
    return run


def _at_least_one(**counts: int | None) -> None:
    for name, count in counts.items():
        if count is not None and count < 1:
            raise InputError(f"{name} {count}: must be at least 1")


def _reading(config: StudyConfig) -> str:
    """What the first step is called: the export of a checkpoint takes most of it."""
    if Path(config.model.path).suffix == CHECKPOINT_SUFFIX:
        return "exporting the checkpoint to ONNX, reading the images"
    return "reading the model and the images"


def _keep(run: RunFolder, inputs: Inputs) -> None:
    """Writes a study that changed into its run, if its trials still compare."""
    if run.manifest.is_file():
        manifest = read_manifest(run)
        check_identity(run, manifest["identity"], identity(inputs.config, digests=inputs.digests))
        write_manifest(run, {**manifest, "folder": str(run.path.resolve())})
    write_durably(run.study_file, write_study(inputs.config, run.path))


@contextmanager
def _crew(config: StudyConfig, workers: int, ray: RayCluster | None) -> Iterator[Start | None]:
    """How worker processes are started; None where this process works alone."""
    with crew():
        if ray is not None:
            with ray_start(ray, config, workers) as start:
                yield start
        else:
            yield local_start(config.runtime, workers) if workers > 1 else None


def work(path: Path, device: int | None = None) -> None:
    """Joins the workers of a prepared run, and works until it is done.

    Args:
        path: The run folder.
        device: Among the GPUs that this process sees; by default the study's.

    Raises:
        InputError: The folder is no run, is not prepared, or its trials would not compare with this machine's.
        RepeatedFailureError: The same failure ended five trials in a row.
        Interrupted: By a signal; the trial was queued again.
    """
    run = RunFolder.open(path)
    manifest = read_manifest(run)
    if not (run.reference.is_file() and run.seeds.is_file()):
        raise InputError(f"run {str(path)!r}: not prepared yet; start workers once `tuner run` evaluates its trials")
    config = read_run_study(run, [] if device is None else [f"runtime.device={device}"])
    check_kept(run.database, config.storage)
    inputs = read_inputs(config)
    check_identity(run, manifest["identity"], identity(inputs.config, digests=inputs.digests))
    inputs = inputs.as_recorded(manifest)
    with Interrupts() as interrupts, ExitStack() as stack:
        storage = open_storage(run.database, inputs.config.storage, pooled=True)
        stack.callback(close_storage, storage)
        locks = stack.enter_context(open_worker_locks(run.workers, inputs.config.storage, inputs.config.name))
        study = prepare_study(inputs, run)
        evaluator = stack.enter_context(open_evaluator(inputs, run))
        reference = score_reference(run, evaluator, inputs)
        problem = study_problem(study, reference, study.unsupported.union(read_blocked(run)))
        session = _open_session(inputs, run, locks, evaluator, reference, interrupts, storage)
        session = replace(session, draw=int(locks.worker, 16))
        try:
            with session.view:
                search(session, problem, int(manifest["trials"]))
        except Interrupted as error:
            error.way_on = f"its trial is queued again; `tuner worker {path}` joins again"
            raise


def _work(
    run: RunFolder,
    inputs: Inputs,
    total: int,
    workers: int,
    start: Start | None,
    steps: Steps,
    extended: bool = False,
    callbacks: Callbacks | None = None,
) -> None:
    """Works on a run that this process holds; `extended`: by a user who asked for more, whatever ended it before."""
    now = identity(inputs.config, digests=inputs.digests)
    manifest = read_manifest(run) if run.manifest.is_file() else new_manifest(inputs.config, inputs.space, now)
    check_identity(run, manifest["identity"], now)
    inputs = inputs.as_recorded(manifest)
    known = run.manifest.is_file()
    with ExitStack() as stack:
        storage = open_storage(run.database, inputs.config.storage, pooled=True)
        stack.callback(close_storage, storage)
        _check_study(storage, inputs, run, known)
        check_artifacts(inputs.config.artifacts, manifest["id"])
        if manifest.get("trials") != total or not known or extended:
            manifest["trials"] = total
            manifest["patience_from"] = _done(storage, inputs.config) if extended else 0
            if not known and (link := recorded_link(run, now)) is not None:
                link.take(run)
                _say_link(link)
                manifest["linked"] = link.to_json()
            manifest.setdefault("folder", str(run.path.resolve()))
            write_manifest(run, manifest)
        run.log("start", resumed=known, trials=total, workers=workers)
        if inputs.graph.note:
            say(inputs.graph.note)
        if inputs.runtime.emulated:
            run.log("emulated", reason=inputs.runtime.emulated)
            say(f"note: {inputs.runtime.emulated}: accuracy is that of the same graphs in ONNX Runtime")
        if warning := Coverage.of(inputs.graph).warning:
            run.log("little to quantize", warning=warning)
            say(f"warning: {warning}")
        if inputs.dropped:
            reason = f"no gain in {', '.join(inputs.config.objectives)} on {inputs.config.runtime.name}"
            run.log("dropped", formats=inputs.dropped, reason=reason)
            say(f"left out of the space: {', '.join(inputs.dropped)} ({reason})")
        interrupts = stack.enter_context(Interrupts())
        try:
            with interrupts.allowed():
                if inputs.data is not None:  # the evaluator opens all these
                    ensure_images(inputs, run, inputs.data.full.images, steps)
                    evaluator_settings(inputs, run, steps)
            told = callbacks or Callbacks()
            study, reference = _search(inputs, run, steps, storage, total, workers, start, interrupts, told)
            with interrupts.allowed():
                finish(study, reference, steps)
        except Interrupted as error:
            run.log("interrupted", signal=error.args[0])
            error.way_on = f"{write_so_far(run.path, inputs.graph.layers)}; `tuner resume {run.path}` goes on"
            raise
    run.log("end")


def _search(
    inputs: Inputs,
    run: RunFolder,
    steps: Steps,
    storage: RDBStorage,
    total: int,
    workers: int,
    start: Start | None,
    interrupts: Interrupts,
    callbacks: Callbacks,
) -> tuple[PreparedStudy, Scores]:
    """Prepares the run and evaluates its trials, here or in worker processes; returns the reference's scores too."""
    with open_worker_locks(run.workers, inputs.config.storage, inputs.config.name) as locks:
        with open_evaluator(inputs, run, steps) as evaluator:
            with interrupts.allowed():
                reference = score_reference(run, evaluator, inputs, steps)
                ensure_probe(inputs, run, steps, evaluator)
            session = _open_session(inputs, run, locks, evaluator, reference, interrupts, storage)
            session = replace(session, callbacks=callbacks)
            # A replay prepares nothing; and what earlier studies taught of the model chooses the seeds itself.
            if inputs.data is not None and not run.seeds.exists() and ensure_knowledge(inputs, run).effects is None:
                _begin(session, inputs, total)
            with interrupts.allowed():
                study = prepare_study(inputs, run, steps)
                if study.parts is not None:
                    record_precision(study.parts.materializer, run)
                with steps("choosing the first schemes", 0):
                    problem = study_problem(study, reference)
                    seeds = study_seeds(study, problem)
            queue(session.trials, locks, seeds)
            if start is None:
                with session.view:
                    search(session, problem, total)
        if start is not None:  # the preparing child has ended: each worker has one of its own
            with session.view:
                supervise(session, workers, start, total)
            queue(session.trials, locks, [])
    return study, reference


def _begin(session: Session, inputs: Inputs, total: int) -> None:
    """Evaluates the schemes that need no preparation, so that a front is there before anything long begins."""
    queue(session.trials, session.locks, first_seeds(inputs))
    with session.view:
        if not begin(session, total):
            return
    session.view.table()
    if words := first_front(session.trials.run.path, inputs.graph.layers, total):
        say(words)


def _open_session(
    inputs: Inputs,
    run: RunFolder,
    locks: WorkerLocks,
    evaluator: StudyEvaluator,
    reference: Scores,
    interrupts: Interrupts,
    storage: RDBStorage,
) -> Session:
    """Opens the trials of a run."""
    blocked = unsupported_pairs(inputs, run)
    trials = open_trials(run, inputs=inputs, storage=storage, locks=locks, blocked=blocked)
    start = int(read_manifest(run).get("patience_from", 0))
    return Session(trials, locks, evaluator, reference, interrupts, LiveView(), start=start)


def _say_link(link: Link) -> None:
    say(f"linked to {link.source.path} (run {link.id[:8]}): ranges, weights and sensitivity are taken from there")
    if link.differing:
        say(f"accuracy is scored again: {'; '.join(link.differing)}")


def _done(storage: RDBStorage, config: StudyConfig) -> int:
    """Trials that count, before any is added."""
    if config.name not in optuna.get_all_study_names(storage):
        return 0
    return ended_trials(optuna.load_study(study_name=config.name, storage=storage))


def _check_study(storage: RDBStorage, inputs: Inputs, run: RunFolder, known: bool) -> None:
    """Refuses a storage that holds another run's study of this name, or a damaged one."""
    config = inputs.config
    with damage_named(run.database, config.storage):
        if config.name not in optuna.get_all_study_names(storage):
            return
        study = optuna.load_study(study_name=config.name, storage=storage)
    if not known or study.user_attrs.get("run") not in (None, read_manifest(run).get("id")):
        raise InputError(
            f"storage: already holds a study named {config.name!r} of another run; resume it or rename this"
        )
    with damage_named(run.database, config.storage):
        Trials(study, inputs.space, config, run).records()
