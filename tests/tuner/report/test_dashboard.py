"""The dashboard on a real SQLite storage and a real socket."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from coco_figures import coco_accuracy

from objectives.scores import Latency, Scores, Size
from search_spaces.allocation import Allocation
from search_spaces.errors import InputError
from tuner.report.dashboard import DashboardServer, attach, serve
from tuner.search.records import Baseline, FrontMember, RunSummary, TrialRecord
from tuner.study.artifacts import FolderArtifacts

optuna.logging.set_verbosity(optuna.logging.WARNING)


def record(number: int, origin: str, fmt: str, value: float, ms: float) -> TrialRecord:
    latency = Latency(ms, ms, ms, ms, 0.01, 30, ms / 100, 100.0)
    accuracy = coco_accuracy(value, 0.6, 0.5, 0.2, 0.4, 0.6, images=128)
    scores = Scores(
        accuracy=accuracy,
        latency=latency,
        size=Size(2**20, 8.0, 2**20),
        latency_ms=ms,
        agreement=0.9,
        artifact="ab" * 32,
    )
    return TrialRecord(number, "COMPLETE", origin, Allocation.uniform(["a|b", "<i>c</i>"], fmt), scores)


RECORDS = [record(0, "reference", "fp16", 0.4, 100.0), record(1, "uniform:int8", "int8", 0.39, 40.0)]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder with a study of two trials, a report and one exported scheme."""
    url = f"sqlite:///{tmp_path / 'study.db'}"
    study = optuna.create_study(storage=url, study_name="one", directions=["maximize", "minimize"])
    for item in RECORDS:
        assert item.scores is not None
        values = [item.scores.accuracy.map_50_95, item.scores.latency_ms]
        study.add_trial(optuna.trial.create_trial(values=values))
    (tmp_path / "report.html").write_text("<h1>first</h1>")
    (tmp_path / "front.json").write_text("[]")
    scheme = tmp_path / "schemes" / "1"
    scheme.mkdir(parents=True)
    (scheme / "model.onnx").write_bytes(b"model")
    return tmp_path


def attach_to(run: Path) -> optuna.Study:
    study = optuna.load_study(storage=f"sqlite:///{run / 'study.db'}", study_name="one")
    attach(
        study,
        summary=RunSummary("one", "m.onnx", {"machine": "a <b>"}),
        records=RECORDS,
        front=[FrontMember(RECORDS[1], None, True)],
        baselines=[Baseline("ORT static", 0.38, 46.0)],
        artifacts=FolderArtifacts(run / "artifacts"),
        report=run / "report.html",
    )
    return study


class Client:
    def __init__(self, port: int) -> None:
        self.port = port

    def __call__(
        self, method: str, path: str, host: str | None = None, **headers: str
    ) -> tuple[int, bytes, dict[str, str]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        connection.request(method, path, headers={"Host": host or f"localhost:{self.port}", **headers})
        response = connection.getresponse()
        answer = response.status, response.read(), dict(response.getheaders())
        connection.close()
        return answer


def served(run: Path, *, writable: bool) -> Iterator[Client]:
    url = f"sqlite:///{run / 'study.db'}"
    with DashboardServer(url, FolderArtifacts(run / "artifacts"), 0, writable=writable) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield Client(server.port)
        finally:
            server.close()
            thread.join()


@pytest.fixture
def client(run: Path) -> Iterator[Client]:
    attach_to(run)
    yield from served(run, writable=False)


@pytest.fixture
def writer(run: Path) -> Iterator[Client]:
    yield from served(run, writable=True)


def test_the_page_holds_figure_note_names_and_artifacts(client: Client) -> None:
    assert client("GET", "/dashboard")[0] == 200
    status, body, _ = client("GET", "/api/studies/1")
    study = json.loads(body)
    assert status == 200
    assert study["objective_names"] == ["map_50_95", "latency_ms"]
    (graph,) = study["plotly_graph_objects"]
    assert "ORT static" in graph["graph_object"] and json.loads(graph["graph_object"])["data"]
    assert "| **1** ★ |" in study["note"]["body"] and "a &lt;b&gt;" in study["note"]["body"]
    assert {item["filename"] for item in study["artifacts"]} == {"report.html", "front.json"}
    (model,) = study["trials"][1]["artifacts"]
    assert model["filename"] == "trial-1-model.onnx"
    assert client("GET", f"/artifacts/1/2/{model['artifact_id']}")[1] == b"model"


def test_the_report_is_served_in_a_sandbox(client: Client) -> None:
    study = json.loads(client("GET", "/api/studies/1")[1])
    report = next(item for item in study["artifacts"] if item["filename"] == "report.html")
    status, body, headers = client("GET", f"/artifacts/1/{report['artifact_id']}")
    assert (status, body) == (200, b"<h1>first</h1>")
    assert "sandbox" in headers["Content-Security-Policy"]
    assert "Access-Control-Allow-Origin" not in headers


@pytest.mark.parametrize("path", ["/dashboard", "/dashboard/studies/1", "/api/studies/1", "/static/bundle.js", "/no"])
def test_every_page_runs_the_dashboards_own_script_alone(client: Client, path: str) -> None:
    headers = client("GET", path)[2]
    policy = dict(rule.split(maxsplit=1) for rule in headers["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == "'self'" and policy["script-src"] == "'self' 'unsafe-eval'"
    assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert client("POST", path)[2]["Content-Security-Policy"] == headers["Content-Security-Policy"]


def test_attaching_again_changes_nothing_but_what_changed(run: Path) -> None:
    study = attach_to(run)
    before = dict(study._storage.get_study_system_attrs(study._study_id))
    files = {path.name: path.read_bytes() for path in (run / "artifacts").iterdir()}
    attach_to(run)
    assert study._storage.get_study_system_attrs(study._study_id) == before
    assert {path.name: path.read_bytes() for path in (run / "artifacts").iterdir()} == files
    fresh = run / "fresh.html"
    fresh.write_text("<h1>second</h1>")
    fresh.replace(run / "report.html")
    attach_to(run)
    contents = [path.read_bytes() for path in (run / "artifacts").iterdir()]
    assert len(contents) == len(files)
    assert b"<h1>second</h1>" in contents and b"<h1>first</h1>" not in contents


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "localhost.evil.example", "127.0.0.1@evil"])
def test_foreign_hosts_are_refused(client: Client, host: str) -> None:
    assert client("GET", "/api/studies", host=host)[0] == 403


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.0.0.1:9999", "LOCALHOST:1"])
def test_loopback_hosts_are_answered(client: Client, host: str) -> None:
    assert client("GET", "/api/studies", host=host)[0] == 200


@pytest.mark.parametrize("method", ["DELETE", "POST", "PUT", "PATCH"])
def test_writes_are_refused(client: Client, method: str) -> None:
    status, body, headers = client(method, "/api/studies/1")
    assert status == 405
    assert "read-only" in json.loads(body)["reason"] and "GET" in headers["Allow"]
    assert json.loads(client("GET", "/api/studies")[1])["study_summaries"][0]["study_name"] == "one"


def test_writable_takes_writes_from_this_machine_only(writer: Client) -> None:
    assert writer("DELETE", "/api/studies/1", Origin="http://evil.example")[0] == 403
    assert writer("DELETE", "/api/studies/1", Origin=f"http://localhost:{writer.port}")[0] == 204
    assert json.loads(writer("GET", "/api/studies")[1])["study_summaries"] == []


def test_a_port_in_use_is_named(run: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=rf"port {port} is in use: .*--port"):
            serve(f"sqlite:///{run / 'study.db'}", FolderArtifacts(run / "artifacts"), port)
    with pytest.raises(InputError, match="between 0 and 65535"):
        serve(f"sqlite:///{run / 'study.db'}", FolderArtifacts(run / "artifacts"), 70000)


def test_listens_on_loopback_only(run: Path) -> None:
    with DashboardServer(f"sqlite:///{run / 'study.db'}", FolderArtifacts(run / "artifacts"), 0) as server:
        assert server._server.socket.getsockname()[0] == "127.0.0.1"
        assert server.url == f"http://127.0.0.1:{server.port}/dashboard"


def test_our_figure_is_put_first_and_trials_have_notes(run: Path, client: Client) -> None:
    attach_to(run)
    status, page, headers = client("GET", "/dashboard/studies/1")
    assert status == 200 and int(headers["Content-Length"]) == len(page)
    study = json.loads(client("GET", "/api/studies/1")[1])
    (graph,) = study["plotly_graph_objects"]
    assert f'[id="user-defined-plot:{graph["id"]}"]' in page.decode() and b"order: -1" in page
    first, second = (trial["note"] for trial in study["trials"])
    assert first["body"].startswith("The unquantized model") and "speed-up: 1.00x" in first["body"]
    assert "by the figures of the search images" in second["body"] and "- speed-up: 2.50x" in second["body"]
    assert "formats: int8 x 2" in second["body"] and "tuner export" in second["body"]
    assert second["version"] == 1, "a second call writes nothing again"
    assert client("GET", "/static/bundle.js")[0] == 200
