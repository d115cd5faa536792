"""The examples that use the package run as they stand, in fewer rounds."""

import os
import subprocess
import sys

import pytest
from conftest import REPOSITORY


def test_three_hospitals_and_scikit_learn(binary):
    pytest.importorskip("sklearn")
    result = subprocess.run(
        [REPOSITORY / "Examples" / "scikit-hospital" / "run.sh"], capture_output=True, text=True,
        env={**os.environ, "MARTLET": binary, "PYTHON": sys.executable, "ROUNDS": "2"},
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "failed " not in result.stdout and "skipped" not in result.stdout and "round 2 of 2: 3 updates" in result.stdout
    assert "version 2: loss 0." in result.stdout and "trained: 1 run of three hospitals" in result.stdout
