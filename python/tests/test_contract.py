"""The operator's side is held to openapi.yaml."""

import ast
import pathlib
import subprocess
import sys

import pytest
from conftest import REPOSITORY

from martlet.operations import OPERATIONS

SOURCES = pathlib.Path(__file__).resolve().parents[1] / "src" / "martlet"
# Operations that no method has, with the reason.
LEFT_OUT = {
    "dashboard": "a page for browsers",
    "reference": "a page for browsers",
    "description": "types.py and operations.py are made of it",
    "registerClient": "a client's: martlet client registers, with an enrollment token",
    "checkIn": "a client's",
    "getAssignment": "a client's",
    "putUpdate": "a client's",
    "getUploadOffset": "a client's",
    "appendToUpdate": "a client's",
    "heartbeat": "a client's",
    "reportFailure": "a client's",
}


def described(document):
    return {
        operation["operationId"]: (method.upper(), template)
        for template, path in document["paths"].items() for method, operation in path.items() if method != "parameters"
    }


def called():
    """The operations that the methods name."""
    names = set()
    for file in ("server.py", "population.py", "run.py"):
        for node in ast.walk(ast.parse((SOURCES / file).read_text())):
            if isinstance(node, ast.Constant) and node.value in OPERATIONS:
                names.add(node.value)
    return names


def test_every_operation_is_reachable_or_left_out_with_a_reason(description):
    operations = described(description)
    assert set(operations) - called() - set(LEFT_OUT) == set(), "no method of Server, Population or Run"
    assert called() & set(LEFT_OUT) == set() and set(LEFT_OUT) <= set(operations)
    for name, operation in OPERATIONS.items():
        assert operations[name] == (operation.method, operation.path)


def test_made_files_are_what_the_description_says(description):
    result = subprocess.run([sys.executable, SOURCES.parents[1] / "make_types.py", "--check"], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_remedies_are_of_codes_that_exist(description):
    from martlet.errors import _REMEDIES

    assert set(_REMEDIES) <= set(description["components"]["schemas"]["ProblemCode"]["x-codes"])


def test_the_version_is_the_server_s(description):
    import martlet

    text = (REPOSITORY / "python" / "pyproject.toml").read_text()
    assert f'version = "{martlet.__version__}"' in text and martlet.__version__ == description["info"]["version"]


def test_the_package_is_typed():
    pytest.importorskip("mypy")
    result = subprocess.run([sys.executable, "-m", "mypy"], cwd=SOURCES.parents[1], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


def test_answers_of_runs_are_what_the_description_says(description, service):
    """Whole documents of runs of each kind, as strict clients read them."""
    jsonschema = pytest.importorskip("jsonschema")
    service.call("POST", "/v1/populations", {"name": "strict"})
    service.call("POST", "/v1/populations", {"name": "private", "budget": {"epsilon": 8, "delta": 1e-5}})
    external = {"population": "strict", "model": {"architecture": "external"}, "rounds": 2, "cohort": {"goal": 2, "minimum": 2}}
    for specification in (
        external,
        {**external, "evaluation": {"every": 1, "cohort_goal": 2}, "metrics": ["auc"]},
        {**external, "model": {"architecture": "cifg-lstm", "config": {"vocab_size": 52, "embedding_dim": 4, "hidden_dim": 8}}},
        {**external, "population": "private", "privacy": {"mode": "central", "noise_multiplier": 5}},
        {"population": "strict", "kind": "analytics", "cohort": {"goal": 2}, "analytics": {"method": "histogram", "candidates": ["a"]}},
    ):
        for schema, path in (("RunPlan", "/v1/runs?dry_run=true"), ("Run", "/v1/runs")):
            answer = service.call("POST", path, specification)
            judge = jsonschema.Draft202012Validator({**description, "$ref": f"#/components/schemas/{schema}"})
            wrong = [f"{list(error.absolute_path)}: {error.message[:100]}" for error in judge.iter_errors(answer)]
            assert not wrong, (schema, specification, wrong)
