"""Artifacts in a bucket of a real S3-compatible server on loopback (moto's)."""

from __future__ import annotations

import http.client
import importlib.util
import json
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from search_spaces.durable import write_durably
from search_spaces.errors import InputError
from tuner.cli.commands import study as cli
from tuner.launch import launch
from tuner.results.loaded import LoadedRun, load_run
from tuner.results.reporting import write_report_of
from tuner.study.study_file import read_study
from tuner.terminal.console import DONE, ENVIRONMENT, STORAGE, guarded

BUCKET = "runs-of-tests"
StudyFile = Callable[..., Path]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A server with one empty bucket, and credentials for it."""
    moto = pytest.importorskip("moto.server", reason="no S3 server: pip install 'moto[s3]' flask flask-cors boto3")
    for name, value in (("ACCESS_KEY_ID", "someone"), ("SECRET_ACCESS_KEY", "secret"), ("DEFAULT_REGION", "us-east-1")):
        monkeypatch.setenv(f"AWS_{name}", value)
    started = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    started.start()
    try:
        reset = urllib.request.Request(f"{url(started)}/moto-api/reset", method="POST")  # it remembers earlier tests
        urllib.request.urlopen(reset, timeout=20).close()
        client(started).create_bucket(Bucket=BUCKET)
        yield started
    finally:
        started.stop()


def url(server: Any) -> str:
    host, port = server.get_host_and_port()
    return f"http://{host}:{port}"


def client(server: Any) -> Any:
    import boto3

    return boto3.client("s3", endpoint_url=url(server))


def objects(server: Any) -> dict[str, Any]:
    """``{key: time of the last upload}``."""
    return {
        item["Key"]: item["LastModified"] for item in client(server).list_objects_v2(Bucket=BUCKET).get("Contents", [])
    }


def names_of(loaded: LoadedRun) -> dict[str, str]:
    """``{file name: artifact id}``, as the dashboard lists them."""
    study = loaded.trials.study
    attributes = study._storage.get_study_system_attrs(study._study_id)
    entries = [json.loads(text) for key, text in attributes.items() if "artifacts:" in key]
    return {entry["filename"]: entry["artifact_id"] for entry in entries}


def test_a_run_keeps_its_artifacts_in_the_bucket(server: Any, study_file: StudyFile, tmp_path: Path) -> None:
    section = {"s3": {"bucket": BUCKET, "prefix": "team/a", "endpoint_url": url(server)}}
    config = read_study(study_file(artifacts=section, search={"trials": 12, "sampler": "random"}))
    loaded = load_run(launch(config, tmp_path / "run").path)
    run, names = loaded.run, names_of(loaded)
    root = f"team/a/{loaded.manifest['id']}"
    stored = objects(server)
    assert set(stored) == {f"{root}/{artifact}" for artifact in names.values()} and not run.artifacts.exists()
    assert {"report.html", "front.json"} < set(names)
    for name, artifact in names.items():
        place = Path("schemes", *name.split("-")[1:]) if name.startswith("trial-") else Path(name)
        assert loaded.artifacts().open_reader(artifact).read() == (run.path / place).read_bytes()

    time.sleep(1.1)  # the server's clock counts seconds
    write_durably(run.path / "front.json", "[]")
    write_report_of(loaded)
    changed = {key.removeprefix(f"{root}/") for key, when in objects(server).items() if when != stored[key]}
    assert names["front.json"] in changed <= {names["front.json"], names["report.html"]}
    assert served(run.path, loaded.trials.study._study_id, names["front.json"]) == b"[]"


def served(run: Path, study_id: int, artifact: str) -> bytes:
    """What `tuner dashboard` hands out."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "tuner", "dashboard", str(run), "--port", str(port)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            assert process.poll() is None
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
            try:
                connection.request("GET", f"/artifacts/{study_id}/{artifact}")
                response = connection.getresponse()
                assert response.status == 200
                return response.read()
            except ConnectionRefusedError:
                time.sleep(0.1)
            finally:
                connection.close()
        raise AssertionError("the dashboard did not start")
    finally:
        process.terminate()
        process.wait(10)


@pytest.mark.parametrize(
    ("change", "words"),
    [({"bucket": "another-bucket"}, "NoSuchBucket"), ({"endpoint_url": "http://127.0.0.1:1"}, "127.0.0.1:1")],
)
def test_a_bucket_that_cannot_be_written_is_named_before_any_trial(
    server: Any, study_file: StudyFile, tmp_path: Path, change: dict[str, str], words: str
) -> None:
    section = {"s3": {"bucket": BUCKET, "endpoint_url": url(server), **change}}
    config = read_study(study_file(artifacts=section))
    with pytest.raises(InputError, match=rf"^artifacts\.s3: s3://.*{words}.*check bucket, endpoint_url") as caught:
        launch(config, tmp_path / "run")
    assert "\n" not in str(caught.value) and not (tmp_path / "run").exists() and objects(server) == {}


@pytest.mark.slow
def test_a_bucket_that_goes_away_is_a_storage_error_and_the_run_stays(
    server: Any, study_file: StudyFile, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    section = {"s3": {"bucket": BUCKET, "endpoint_url": url(server)}}
    run = launch(read_study(study_file(artifacts=section, search={"trials": 5, "sampler": "random"})), tmp_path / "run")
    stored = set(objects(server))
    for key in stored:
        client(server).delete_object(Bucket=BUCKET, Key=key)
    client(server).delete_bucket(Bucket=BUCKET)
    run.report.unlink()
    capsys.readouterr()
    assert guarded(lambda: cli.report(run.path)) == STORAGE
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"tuner: error: artifacts.s3: s3://{BUCKET}/") and run.report.is_file()
    client(server).create_bucket(Bucket=BUCKET)
    assert guarded(lambda: cli.report(run.path)) == DONE
    assert set(objects(server)) == stored


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"s3": {}}, "artifacts.s3.bucket: missing"),
        ({"s3": {"bucket": "Not A Bucket"}}, "artifacts.s3.bucket: string should match"),
        ({"s3": {"bucket": BUCKET, "endpoint_url": "ftp://127.0.0.1"}}, "artifacts.s3.endpoint_url: string should"),
        ({"s3": {"bucket": BUCKET, "endpoint_url": "http://me:word@127.0.0.1"}}, "artifacts.s3.endpoint_url: string"),
        ({"s3": {"bucket": BUCKET, "prefix": "a b"}}, "artifacts.s3.prefix: string should match"),
        ({"s3": {"bucket": BUCKET, "key": "secret"}}, "artifacts.s3.key: unknown key"),
        ({"bucket": BUCKET}, "artifacts.bucket: unknown key"),
        ("s3://bucket", "artifacts: "),
    ],
)
def test_bad_settings_are_one_line(study_file: StudyFile, section: object, words: str) -> None:
    with pytest.raises(InputError) as caught:
        read_study(study_file(artifacts=section))
    assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.skipif(importlib.util.find_spec("boto3") is not None, reason="boto3 is installed here")
def test_without_boto3_the_extra_is_named(study_file: StudyFile, tmp_path: Path) -> None:
    path = study_file(artifacts={"s3": {"bucket": BUCKET}})
    command = [sys.executable, "-m", "tuner", "run", path, "--run", tmp_path / "run"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == ENVIRONMENT and "tuner[s3]" in done.stderr and "Traceback" not in done.stderr
