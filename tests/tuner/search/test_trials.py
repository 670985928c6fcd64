"""A storage, manifest or seeds of another space than the study's: one line from every command, and nothing is lost."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from search_spaces.errors import InputError
from tuner.launch import launch, resume, work
from tuner.results.loaded import load_run
from tuner.search.trials import counted
from tuner.study.run_folder import RunFolder
from tuner.study.study_file import read_study

StudyFile = Callable[..., Path]
_OTHERS = {
    "one format less": '{"name": "CategoricalDistribution", "attributes": {"choices": ["fp16"]}}',
    "one more": '{"name": "CategoricalDistribution", "attributes": {"choices": ["fp16", "int8", "w8a16", "int4"]}}',
    "another order": '{"name": "CategoricalDistribution", "attributes": {"choices": ["int8", "fp16"]}}',
    "integers": '{"name": "IntDistribution", "attributes": {"log": false, "step": 1, "low": 0, "high": 9}}',
    "numbers": '{"name": "FloatDistribution", "attributes": {"log": false, "step": null, "low": 0.0, "high": 9.0}}',
}


@pytest.fixture
def run(study_file: StudyFile, tmp_path: Path) -> RunFolder:
    """Three trials of three."""
    return launch(read_study(study_file(search={"trials": 3})), tmp_path / "run")


def refused(run: RunFolder, said: str, *, read: bool = True) -> None:
    """Whatever asks or tells refuses in one line, before it writes anything to the storage; so does what reads."""
    with closing(sqlite3.connect(run.database)) as connection:
        before = list(connection.iterdump())
    for command in (lambda: resume(run.path, trials=5), lambda: work(run.path), *[lambda: load_run(run.path)] * read):
        with pytest.raises(InputError, match=said) as caught:
            command()
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 600
    with closing(sqlite3.connect(run.database)) as connection:
        assert list(connection.iterdump()) == before


def changed(run: RunFolder, sql: str, *values: object) -> None:
    """Changes the database."""
    with closing(sqlite3.connect(run.database)) as connection:
        assert connection.execute(sql, values).rowcount > 0
        connection.commit()


@pytest.mark.parametrize("other", _OTHERS)
@pytest.mark.parametrize("rows", ["", " WHERE trial_id = 2"])
def test_other_choices_than_the_spaces_are_refused(run: RunFolder, other: str, rows: str) -> None:
    where = f"{rows} {'AND' if rows else 'WHERE'} param_name = (SELECT min(param_name) FROM trial_params)"
    changed(run, f"UPDATE trial_params SET param_value = 0, distribution_json = ?{where}", _OTHERS[other])
    refused(run, r"trial [01]: '.*' was chosen otherwise than from .*; restore the run's manifest.json and its storage")


def test_a_group_that_a_measured_trial_lacks_is_refused(run: RunFolder) -> None:
    changed(run, "DELETE FROM trial_params WHERE param_id = 2")
    changed(run, "DELETE FROM trial_system_attributes WHERE key = 'fixed_params'")  # from which it would be known
    refused(run, r"trial 0: '.*' has no format; restore")


def test_a_group_that_the_space_lacks_is_refused(run: RunFolder) -> None:
    rows = "SELECT trial_id, 'model.77', param_value, distribution_json FROM trial_params WHERE param_id = 2"
    changed(run, f"INSERT INTO trial_params (trial_id, param_name, param_value, distribution_json) {rows}")
    refused(run, r"trial 0: 'model.77' is no group of the space; restore")


@pytest.mark.parametrize(("value", "said"), [('"nf9"', "'nf9', not one of"), ("[1]", r"\[1\], not one of")])
def test_a_queued_scheme_of_other_formats_is_refused(run: RunFolder, value: str, said: str) -> None:
    queued = json.dumps({next(iter(load_run(run.path).space.parameters())): json.loads(value)})
    row = "INSERT INTO trials (number, study_id, state) SELECT 3, study_id, 'WAITING' FROM studies"
    changed(run, row)
    changed(
        run,
        "INSERT INTO trial_system_attributes (trial_id, key, value_json) "
        "SELECT max(trial_id), 'fixed_params', ? FROM trials",
        queued,
    )
    refused(run, f"trial 3: '.*' is {said}")


def _fewer(space: dict) -> None:
    space["formats"][0].pop()


def _ordered(space: dict) -> None:
    space["formats"] = [names[::-1] for names in space["formats"]]


def _joined(space: dict) -> None:
    first, second = space["groups"][:2]
    space["groups"][:2] = [[first[0], [*first[1], *second[1]]]]
    del space["formats"][0]


@pytest.mark.parametrize("change", [_fewer, _ordered, _joined])
@pytest.mark.parametrize("empty", [False, True], ids=["with trials", "without"])
def test_a_manifest_of_another_space_than_the_studys_is_refused(
    run: RunFolder, change: Callable[[dict], None], empty: bool
) -> None:
    """Without trials nothing else would tell: the search would be another one than the study asks for."""
    manifest = json.loads(run.manifest.read_text())
    change(manifest["space"])
    run.manifest.write_text(json.dumps(manifest))
    if empty:
        for table in ("trials", "trial_params", "trial_values", "trial_user_attributes", "trial_system_attributes"):
            changed(run, f"DELETE FROM {table}")
    refused(run, "space: its groups or formats are not those of the run's study.yaml", read=False)


def test_two_groups_of_one_name_are_refused(run: RunFolder) -> None:
    manifest = json.loads(run.manifest.read_text())
    manifest["space"]["groups"][1][0] = manifest["space"]["groups"][0][0]
    run.manifest.write_text(json.dumps(manifest))
    refused(run, "do not fit together; restore it")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda choices: {**choices, min(choices): "nf9"}, "'nf9', not one of"),
        (lambda choices: dict(list(choices.items())[1:]), "has no format"),
        (lambda choices: {**choices, "model.77": "int8"}, "'model.77' is no group"),
    ],
)
def test_seeds_of_another_space_are_refused_before_they_are_queued(
    run: RunFolder, change: Callable[[dict], dict], said: str
) -> None:
    seeds = json.loads(run.seeds.read_text())
    run.seeds.write_text(json.dumps([[origin, change(choices)] for origin, choices in seeds]))
    with pytest.raises(InputError, match=f"seeds.json: '.*': .*{said}.*; delete it"):
        resume(run.path, trials=5)
    run.seeds.unlink()  # the remedy
    assert counted(load_run(resume(run.path, trials=5).path).records) == 5


@pytest.mark.parametrize("table", ["trial", "study"])
def test_what_a_sampler_cannot_have_left_is_refused(study_file: StudyFile, tmp_path: Path, table: str) -> None:
    """Of a population of 50, and the parents of the next generation."""
    search = {"trials": 3, "sampler": "nsga2"}
    run = launch(read_study(study_file(search=search)), tmp_path / "run")
    key = {"trial": "NSGAIISampler:generation", "study": "NSGAIISampler:parent:1"}[table]
    if table == "trial":  # its name is Optuna's
        changed(run, "UPDATE trial_system_attributes SET value_json = '\"x\"' WHERE key = ?", key)
    else:
        row = (
            "INSERT INTO study_system_attributes (study_id, key, value_json) SELECT study_id, ?, '[\"x\"]' FROM studies"
        )
        changed(run, row, key)
    refused(run, f"'{key}' is not what a sampler keeps there; restore the storage")
