"""A server of its own for each test module. MARTLET_TEST_BINARY names the program; the tests are skipped without it."""

import os
import pathlib
import shutil
import sys

import pytest

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "Tests" / "Python"))


@pytest.fixture(scope="session")
def binary():
    found = os.environ.get("MARTLET_TEST_BINARY") or shutil.which("martlet")
    if not found:
        pytest.skip("MARTLET_TEST_BINARY names no program")
    return os.path.abspath(found)


@pytest.fixture(scope="module")
def service(binary):
    from service import Service

    with Service(binary) as service:
        yield service


@pytest.fixture(scope="session")
def description():
    yaml = pytest.importorskip("yaml")
    return yaml.safe_load((REPOSITORY / "openapi.yaml").read_text())
