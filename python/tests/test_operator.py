"""Server, Population and Run against a server."""

import json
import warnings

import numpy as np
import pytest

import martlet

RUN = """
name: two-numbers
population: {population}
rounds: {rounds}
model: {{architecture: external}}
cohort: {{goal: 2, minimum: 2, over_selection: 1, selection_timeout_s: 600, report_timeout_s: 600}}
"""


@pytest.fixture(scope="module")
def server(service):
    return martlet.Server(service.address, service.admin)


@pytest.fixture(scope="module")
def trained(server, service, tmp_path_factory):
    """A run after its only round: two clients sent 0.25 and 0.75, with a loss and a metric of their own."""
    server.create_population("trained")
    file = tmp_path_factory.mktemp("run") / "run.yaml"
    file.write_text(RUN.format(population="trained", rounds=1) + "metrics: [pearson]\n")
    run = martlet.Run.create(file, model={"w": np.zeros((2, 2))}, server=server).start()
    clients = service.clients(2, population="trained")
    work = [(client, service.assignment(client)) for client in clients]
    for (client, assignment), value in zip(work, (0.25, 0.75)):
        service.deliver(client, assignment, [value] * 4, {
            "num_examples": "10", "nll": "5", "loss_tokens": "10", "tokens": "10", "hit1": "8", "pearson": "4"})
    lines = []
    run.watch(lines.append, timeout_s=60, poll_s=0.05)
    return run, lines


def test_a_run_from_its_file_to_its_weights(trained, server, tmp_path):
    run, lines = trained
    assert run.state == "completed" and run.committed_rounds == 1
    assert any(line.startswith("round 1 of 1: 2 updates") and "loss 0.5" in line for line in lines), lines
    assert lines[-1] == "two-numbers: completed, 1 rounds"
    weights = run.weights()
    assert list(weights) == ["w"] and weights["w"].dtype == np.float32
    np.testing.assert_allclose(weights["w"], np.full((2, 2), 0.5), atol=1e-6)
    assert not run.weights(0)["w"].any()
    again = server.run(run.id)
    assert again.id == run.id and server.run("two-numbers").id == run.id
    path = run.download(tmp_path / "model.safetensors")
    assert path.read_bytes()[8:9] == b"{" and not list(tmp_path.glob("*.part"))


def test_metrics_are_flat_rows(trained):
    run, _ = trained
    rows = run.metrics()
    assert len(rows) == 1 and rows[0]["round"] == 1 and rows[0]["accepted"] == 2
    measured = {name: value for name, value in rows[0].items() if "." in name}
    assert any(name.endswith(".loss") and value == pytest.approx(0.5) for name, value in measured.items()), measured
    assert any(name.endswith(".pearson") and value == pytest.approx(0.4) for name, value in measured.items()), measured
    pandas = pytest.importorskip("pandas")
    frame = run.metrics_frame()
    assert isinstance(frame, pandas.DataFrame) and list(frame.index) == [1] and frame["accepted"].iloc[0] == 2


def test_every_other_reading(trained, server, tmp_path):
    """Each method is asked once; what is not there has its documented refusal."""
    run, _ = trained
    assert run.rounds(last=1)[0]["number"] == 1 and run.round(1)["state"] == "committed"
    assert run.history(1)[-1]["state"] == "committed" and run.history(assignments=True)
    assert run.evaluations() == [] and run.update_scores(1) == []
    assert run.curves(points=10)["run"] == run.id
    assert run.report_metrics({"accuracy": 0.5})["metrics"]["held-out"] == {"accuracy": 0.5}
    assert [one["version"] for one in run.versions()] == [0, 1] and run.version(0)["version"] == 0
    assert run.archive(tmp_path / "model.tar").stat().st_size > 512
    refusals = {
        "optimizer": lambda: run.optimizer_state(0), "control": lambda: run.control_variate(), "tokenizer": run.tokenizer,
        "words": run.words, "evaluation": lambda: run.evaluation_history(1),
    }
    for name, ask in refusals.items():
        try:
            assert ask() == [], name
        except martlet.ServerError as error:
            assert error.status in (404, 409), name
    assert server.health()["status"] and server.ready()["status"] and server.overview()["role"] == "admin"
    assert "martlet_" in server.prometheus()
    assert {event["type"] for event in server.events(run=run.id)} >= {"run", "round", "model"}
    assert run.id in [one.id for one in server.runs()]
    assert server.ledger_state()["record"] == "kept"
    with pytest.raises(martlet.ServerError) as refused:
        server.acknowledge_rollback("nothing was rolled back")
    assert refused.value.code == "nothing_to_acknowledge"
    action = "POST /v1/runs/{run}/start"
    assert [row["action"] for row in server.audit(action=action, limit=1)] == [action]


def test_populations_and_their_budget(server):
    people = server.create_population("people", epsilon=4, delta=1e-5)
    assert people.budget["epsilon"] == 4 and server.population("people").id == people.id
    assert people.set_budget(3).budget["epsilon"] == 3
    with pytest.raises(martlet.ServerError) as refused:
        people.set_budget(5)
    assert refused.value.code == "reason_required"
    assert people.set_budget(5, "a second study").refresh().budget["epsilon"] == 5
    assert people.enrollment_token(3) and people.issue_enrollment_token(1, expires_in_s=60)["id"]
    assert people.ledger_audit()["population"] and people.ledger_acknowledgements()["items"] == []
    assert len(people.ledger_links()) == len(people.ledger())
    assert "people" in [one.name for one in server.populations()] and "people" in repr(people)
    with pytest.raises(ValueError, match="both or none"):
        server.create_population("half", epsilon=1)


def test_clients(server, service):
    server.create_population("devices")
    service.clients(1, population="devices")
    client = server.clients()[-1]
    assert server.client(client["id"])["id"] == client["id"]
    assert server.change_client(client["id"], labels={"site": "north"})["labels"] == {"site": "north"}
    assert server.client_update_scores(client["id"]) == []
    server.release_client(client["id"])
    server.revoke_client(client["id"])
    assert server.client(client["id"])["state"] == "revoked"


def test_tokens(server, service):
    made = server.create_token("operator", "notebook", expires_in_s=3600)
    mine = martlet.Server(service.address, made["token"])
    assert mine.token()["role"] == "operator"
    mine.rotate_token()
    assert mine.overview()["role"] == "operator", "the new text is used"
    with pytest.raises(martlet.ServerError) as refused:
        mine.create_population("not mine")
    assert refused.value.code == "forbidden" and "higher role" in str(refused.value)
    assert made["id"] in [one["id"] for one in server.tokens()]
    server.revoke_token(made["id"])
    with pytest.raises(martlet.ServerError) as refused:
        mine.overview()
    assert refused.value.status == 401 and "MARTLET_TOKEN" in str(refused.value)


def test_steering_and_refusals(server):
    server.create_population("steered")
    specification = {"population": "steered", "model": {"architecture": "external"}, "rounds": 2, "cohort": {"goal": 1}}
    plan = martlet.Run.plan(specification, server=server)
    assert plan["specification"]["rounds"] == 2 and plan["warnings"]
    run = server.create_run(specification)
    with pytest.raises(martlet.ServerError) as refused:
        run.start()
    assert refused.value.code == "model_missing" and "set_model" in str(refused.value)
    assert run.refresh().state == "created"
    run.set_model([[1, 1, 1], np.zeros((2, 2))])
    assert list(run.weights()) == ["00000", "00001"]
    assert run.start().pause().resume().state == "running"
    with pytest.raises(TimeoutError, match="waits for"):
        run.watch(None, timeout_s=0.1, poll_s=0.02)
    run.cancel()
    with pytest.raises(martlet.RunEnded, match="cancelled"):
        run.watch(None)
    with pytest.raises(martlet.ServerError) as refused:
        server.create_run({**specification, "rounds": 0, "cohort": {"goal": 0}})
    assert refused.value.code == "invalid_document"
    assert {one.pointer for one in refused.value.errors} == {"/rounds", "/cohort/goal"}
    assert "/cohort/goal" in str(refused.value)


def test_a_model_that_cannot_be_sent_makes_no_run(server):
    server.create_population("unsent")
    count = len(server.runs())
    specification = {"population": "unsent", "model": {"architecture": "external"}, "rounds": 1, "cohort": {"goal": 1}}
    for model, words in [
        ({"w": np.array([1.0, np.nan])}, r"tensor 'w': the value at \[1\] is NaN"), ({"w": np.array([1e300])}, "too large for F32"),
        ({"w": np.array(["a"])}, "no number"), ({"n": np.array([1])}, "no tensor of floating point"), (3, "int is no model"),
    ]:
        with warnings.catch_warnings(), pytest.raises(martlet.ModelError, match=words):
            warnings.simplefilter("ignore")
            server.create_run(specification, model=model)
    assert len(server.runs()) == count


def test_generic_calls(server):
    answer = server.call("listRuns", query={"limit": 1})
    assert len(answer.json()["items"]) == 1
    with pytest.raises(ValueError, match="no operation"):
        server.call("checkIn")


def test_environment_and_directory(service, monkeypatch, tmp_path):
    monkeypatch.setenv("MARTLET_URL", service.address)
    token = tmp_path / "token"
    token.write_text(service.admin + "\n")
    monkeypatch.delenv("MARTLET_TOKEN", raising=False)
    assert martlet.Server(token_file=token).token()["role"] == "admin"
    monkeypatch.setenv("MARTLET_TOKEN", "wrong")
    with pytest.raises(martlet.ServerError):
        martlet.Server().token()
    monkeypatch.delenv("MARTLET_URL")
    with pytest.raises(martlet.MartletError, match="martlet env"):
        martlet.Server()
    assert martlet.Server.of_directory(service.directory).token()["role"] == "admin"
    with pytest.raises(martlet.Unreachable, match="no server is ready"):
        martlet.Server.of_directory(tmp_path, wait_s=0.1)


def test_json_files_and_pages(server, service, tmp_path):
    path = tmp_path / "run.json"
    server.create_population("many")
    path.write_text(json.dumps({"population": "many", "model": {"architecture": "external"}, "rounds": 1, "cohort": {"goal": 1}}))
    made = [martlet.Run.create(path, server=server).id for _ in range(3)]
    listed = [run["id"] for run in server._pages("listRuns", query={"limit": 1})]
    assert listed[-3:] == made
