#!/usr/bin/env python3
"""Holds a live server to openapi.yaml with schemathesis, all its checks on. contract.py BINARY [ARGUMENT of schemathesis...]

Twice: with ids of things that exist, so that the answers of success are seen, and with whatever ids the description allows.
Nothing is left to chance: cases are derived from the description alone (deterministic mode, no memory of earlier runs, nothing
learnt from answers), by one worker, and how long something takes fails nothing.
"""

import json
import os
import subprocess
import sys
import tempfile

import yaml

from service import Service

REPOSITORY = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
CONFIGURATION = os.path.join(REPOSITORY, "scripts", "schemathesis.toml")
# Clients' calls come faster than any client's would.
SERVER = ["--log-format", "json", "--set", "rate.client_per_s=0"]
# The ids of paths in a server that has something of everything.
IDS = {"population": "POPULATION", "run": "RUN", "client": "CLIENT", "token": "TOKEN", "assignment": "ASSIGNMENT"}


def describe(node, examples):
    """Adds examples of path parameters to a description, in place."""
    if isinstance(node, dict):
        if node.get("in") == "path" and node["name"] in examples:
            node["example"] = examples[node["name"]]
        for item in node.values():
            describe(item, examples)
    elif isinstance(node, list):
        for item in node:
            describe(item, examples)


def check(binary, phases, with_example, arguments):
    """Whether a server of its own kept the contract."""
    with tempfile.NamedTemporaryFile("w+", suffix=".log") as log, tempfile.TemporaryDirectory() as work:
        with Service(binary, arguments=SERVER, log=log) as service:
            environment = {"CLIENT_TOKEN": service.admin, "ENROLLMENT_TOKEN": service.admin}
            with open(os.path.join(REPOSITORY, "openapi.yaml")) as file:
                description = yaml.safe_load(file)
            if with_example:
                environment = service.example()
                describe(description, {name: environment[variable] for name, variable in IDS.items()})
            path = os.path.join(work, "openapi.json")
            with open(path, "w") as file:
                json.dump(description, file)
            program = os.path.join(os.path.dirname(sys.executable), "schemathesis")
            result = subprocess.run(
                [program, "--config-file", CONFIGURATION, "run", path, "--url", service.address,
                 "--header", "Authorization: Bearer " + service.admin,
                 "--phases", phases, "--workers", "1", "--no-color", *arguments],
                env={**os.environ, **environment}, cwd=work, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            )
            lines = result.stdout.splitlines()
            print("\n".join(lines if result.returncode else [line.strip() for line in lines[-5:] if line.strip()]))
            stopped = service.process.poll()
            if stopped is not None:
                print(f"The server has stopped with {stopped}")
        log.seek(0)
        errors = [line for line in log if '"level":"error"' in line or '"level":"critical"' in line]
        print("".join(errors), end="")
        return result.returncode == 0 and stopped is None and not errors


def main():
    binary, arguments = sys.argv[1], sys.argv[2:]
    kept = [
        check(binary, "examples,coverage,fuzzing,stateful", True, arguments),
        check(binary, "examples,coverage,fuzzing", False, arguments),
    ]
    sys.exit(0 if all(kept) else 1)


if __name__ == "__main__":
    main()
