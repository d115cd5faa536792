#!/usr/bin/env python3
"""Runs every curl line of /docs against a real server, as a reader would paste it. reference.py BINARY"""

import html
import json
import os
import re
import subprocess
import sys
import urllib.request

from service import Service, safetensors

# What changes or ends things runs after what looks at them.
LATE = ["appendToUpdate", "putUpdate", "reportFailure", "cancelRun", "revokeClient", "rotateToken", "revokeToken"]
# Where the state of the server decides: the answers that are right for the place the line is run in.
STATES = {
    # The run has no evaluation rounds.
    "getEvaluationHistory": {404}, "getEvaluation": {404},
    "startRun": {200, 409}, "pauseRun": {200, 409}, "resumeRun": {200, 409}, "cancelRun": {200, 409}, "putModel": {201, 409},
    "createPopulation": {201, 409}, "acknowledgeRollback": {409}, "changeBudget": {200, 409}, "getWeights": {200, 307},
    # The run's architecture is external: it has no vocabulary.
    "getTokenizer": {404}, "getOptimizerState": {404}, "getControlVariate": {404},
}


def documented(description):
    """The statuses of each operation, by operationId, read from the description's own indentation."""
    statuses = {}
    name = None
    for line in description.splitlines():
        found = re.match(r"      operationId: (\w+)", line)
        if found:
            name = found[1]
            statuses[name] = set()
        found = re.match(r"        '(\d{3})':", line)
        if found and name:
            statuses[name].add(int(found[1]))
        if re.match(r"components:", line):
            break
    return statuses


def main():
    with Service(sys.argv[1]) as service:
        page = urllib.request.urlopen(service.address + "/docs").read().decode()
        description = urllib.request.urlopen(service.address + "/openapi.yaml").read().decode()
        statuses = documented(description)
        lines = re.findall(r'<code class="curl" data-operation="(\w+)">(.*?)</code>', page, re.S)
        assert len(lines) == len(statuses), f"{len(lines)} lines for {len(statuses)} operations"
        lines.sort(key=lambda item: LATE.index(item[0]) if item[0] in LATE else -1)

        example = service.example()
        words = service.call("POST", "/v1/runs", {
            "population": "keyboards", "kind": "analytics", "cohort": {"goal": 2},
            "analytics": {"method": "histogram", "candidates": ["yes", "no"]},
            "privacy": {"mode": "central", "noise_multiplier": 1},
        })["id"]
        # The update ends the assignment, so the failure is reported for another one.
        other = {"CLIENT_TOKEN": example["OTHER_CLIENT_TOKEN"], "ASSIGNMENT": example["OTHER_ASSIGNMENT"]}
        os.chdir(service.directory)
        work = service.call("GET", f"/v1/assignments/{example['ASSIGNMENT']}", token=example["CLIENT_TOKEN"])
        base = {"base": work["model"]["sha256"]}
        for name, metadata in (("update.safetensors", base), ("model.safetensors", None)):
            with open(name, "wb") as file:
                file.write(safetensors([0.1, 0.1, 0.1, 0.1], metadata, size=work["update_bytes"] if metadata else 0))
        environment = {**os.environ, **example}
        failures = []
        for name, text in lines:
            command = html.unescape(text)
            unset = [word for word in re.findall(r"\$(\w+)", command) if word not in environment]
            if unset:
                failures.append(f"{name}: nothing is known for {unset}")
                continue
            here = {**environment, **{"reportFailure": other, "listWords": {"RUN": words, "VERSION": "0"}}.get(name, {})}
            # A stream is cut by the time limit after its head: where that took longer, later.
            for limit in (2, 20, 200) if name == "watchEvents" else (600,):
                timed = re.sub(r"^curl ", f"curl --max-time {limit} -o answer -w '%{{http_code}}' ", command)
                answer = subprocess.run(["bash", "-c", timed], env=here, capture_output=True, text=True)
                status = int(answer.stdout or 0)
                if status:
                    break
            allowed = STATES.get(name) or {code for code in statuses[name] if code < 400}
            if status not in allowed or answer.returncode not in (0, 28):
                body = open("answer").read()[:300] if os.path.exists("answer") else ""
                failures.append(f"{name}: {status}, not one of {sorted(allowed)}\n{command}\n{answer.stderr}{body}")
        assert not failures, "\n\n".join(failures)
        print(f"passed: {len(lines)} lines")


if __name__ == "__main__":
    main()
