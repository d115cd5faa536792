"""A client that a generator makes of openapi.yaml: all of it, without a warning, and able to drive a run."""

import importlib
import io
import os
import pathlib
import pkgutil
import shutil
import subprocess
import sys

import pytest
from conftest import REPOSITORY

pytest.importorskip("openapi_python_client", reason="pip install openapi-python-client")


@pytest.fixture(scope="module")
def generated(tmp_path_factory):
    """The generated package and what the generator said."""
    directory = tmp_path_factory.mktemp("generated")
    programs = os.path.dirname(sys.executable)
    answer = subprocess.run(
        [
            sys.executable, "-m", "openapi_python_client", "generate", "--path", REPOSITORY / "openapi.yaml", "--meta", "none",
            "--config", REPOSITORY / "scripts" / "openapi-python-client.yaml", "--output-path", directory / "martlet_generated",
        ],
        capture_output=True, text=True, env={**os.environ, "PATH": programs + os.pathsep + os.environ["PATH"]},
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    sys.path.insert(0, str(directory))
    yield importlib.import_module("martlet_generated"), answer.stdout + answer.stderr
    sys.path.remove(str(directory))


def test_no_part_is_missing(generated, description):
    package, said = generated
    # The generator tidies up with ruff, and says so where there is none.
    if shutil.which("ruff", path=os.path.dirname(sys.executable)):
        assert "arning" not in said, said
    assert "WARNING" not in said and "Unable to process" not in said, said
    modules = [name for _, name, _ in pkgutil.walk_packages(package.__path__, package.__name__ + ".")]
    for name in modules:
        importlib.import_module(name)
    operations = [one for path in description["paths"].values() for key, one in path.items() if key != "parameters"]
    calls = {name.rsplit(".", 1)[1].replace("_", "") for name in modules if ".api." in name}
    assert {one["operationId"].lower() for one in operations} <= calls


def test_every_answer_of_a_success_has_a_type(generated, description):
    """An answer that the generator leaves out is `None` in the code that it makes."""
    package, _ = generated
    for path in description["paths"].values():
        for key, operation in path.items():
            # The description itself is YAML, which the made code leaves as bytes.
            if key in ("parameters", "head") or operation["operationId"] == "description":
                continue
            tag = operation["tags"][0]
            name = "".join("_" + letter.lower() if letter.isupper() else letter for letter in operation["operationId"])
            text = pathlib.Path(importlib.import_module(f"{package.__name__}.api.{tag}.{name}").__file__).read_text()
            for status, answer in operation["responses"].items():
                if "content" in answer and status.startswith("2"):
                    assert f"response_{status} = " in text, f"{operation['operationId']}: {status}"


def test_it_drives_a_run(generated, service):
    from service import safetensors

    package, _ = generated
    def api(tag, name):
        return importlib.import_module(f"{package.__name__}.api.{tag}.{name}").sync

    models = importlib.import_module(package.__name__ + ".models")
    client = package.AuthenticatedClient(
        # Events are a stream for those who do not ask for JSON.
        base_url=service.address, token=service.admin, headers={"Accept": "application/json, application/octet-stream, */*;q=0.1"},
        raise_on_unexpected_status=True, follow_redirects=True,
    )
    population = api("populations", "create_population")(
        client=client, body=models.PopulationRequest.from_dict({"name": "generated"}))
    assert population.name == "generated"
    specification = models.RunSpecification.from_dict({
        "population": "generated", "name": "by-generator", "rounds": 1, "model": {"architecture": "external"},
        "cohort": {"goal": 2, "minimum": 2, "over_selection": 1},
    })
    plan = api("runs", "create_run")(client=client, body=specification, dry_run=True)
    assert plan.specification.rounds == 1
    run = api("runs", "create_run")(client=client, body=specification)
    types = importlib.import_module(package.__name__ + ".types")
    first = api("models", "put_model")(
        run.id, client=client, body=types.File(payload=io.BytesIO(safetensors([0, 0, 0, 0]))))
    assert first.version == 0
    assert api("runs", "start_run")(run.id, client=client).state.value == "running"
    clients = service.clients(2, population="generated")
    service.round(clients)
    page = api("runs", "list_runs")(client=client)
    assert [one.id for one in page.items] == [run.id] and not page.next_cursor
    assert [(one.number, one.accepted) for one in api("runs", "list_rounds")(run.id, client=client).items] == [(1, 2)]
    assert {one.type_.value for one in api("status", "watch_events")(client=client, after=0).items} >= {"run", "round", "model"}
    assert [one.version for one in api("models", "list_models")(run.id, client=client).items] == [0, 1]
    changes = api("runs", "get_round_history")(run.id, 1, client=client).items
    assert changes[-1].state == "committed"
    weights = api("models", "get_weights")(run.id, "latest", client=client)
    assert weights.payload.read() == service_weights(service, run.id)
    refused = api("runs", "start_run")(run.id, client=client)
    assert refused.code == "wrong_state"


def service_weights(service, run):
    import urllib.request

    request = urllib.request.Request(f"{service.address}/v1/runs/{run}/models/1/weights")
    request.add_header("Authorization", "Bearer " + service.admin)
    return urllib.request.urlopen(request).read()
