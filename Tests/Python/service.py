"""A martlet server, its operator and its clients, for tests that look at it with a browser. Only Python's own library."""

import json
import os
import signal
import socket
import struct
import subprocess
import tempfile
import shutil
import time
import urllib.error
import urllib.request


def safetensors(values, metadata=None, name="w", shape=(2, 2), size=0):
    """A file with one tensor; its header is padded to make up so many bytes, as private runs want."""
    header = {name: {"dtype": "F32", "shape": list(shape), "data_offsets": [0, 4 * len(values)]}}
    if metadata:
        header["__metadata__"] = metadata
    text = json.dumps(header).encode()
    text += b" " * max(-len(text) % 8, size - 8 - len(text) - 4 * len(values))
    return struct.pack("<Q", len(text)) + text + struct.pack(f"<{len(values)}f", *values)


# How long anything may take that is waited for, in seconds: far beyond what any machine needs, so it decides nothing but how a
# failure looks.
PATIENCE = 600


def wait_until(claim, condition, pause=0.01):
    """Asks until a condition holds, and gives its value."""
    end = time.monotonic() + PATIENCE
    while not (value := condition()):
        assert time.monotonic() < end, f"after {PATIENCE} s not: {claim}"
        time.sleep(pause)
    return value


def held_port():
    """A socket that keeps a free port of 127.0.0.1 from everybody but servers of ours, which may stop and come back: it is bound but
    does not listen, and they, too, set SO_REUSEADDR."""
    holder = socket.socket()
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.bind(("127.0.0.1", 0))
    return holder


class Refused(Exception):
    def __init__(self, status, body):
        super().__init__(f"{status}: {body}")
        self.status = status
        self.body = body


class Service:
    """A server with a data directory of its own on a free port."""

    # The one tensor of its runs' models.
    tensor = "w"

    def __init__(self, binary, directory=None, arguments=(), log=subprocess.DEVNULL, wrapper=()):
        self.binary = binary
        self.wrapper = wrapper
        self.arguments = list(arguments)
        self.log = log
        self.directory = directory or tempfile.mkdtemp(prefix="martlet-service-")
        self.held = held_port()
        self.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.held.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    def start(self):
        """Starts the server, on the address that it had before."""
        listen = f"127.0.0.1:{self.held.getsockname()[1]}"
        self.process = subprocess.Popen(
            [*self.wrapper, self.binary, "serve", "--data-dir", self.directory, "--listen", listen, *self.arguments],
            stdout=subprocess.PIPE, stderr=self.log, text=True,
        )
        line = self.process.stdout.readline()
        assert "listening on" in line, f"the server did not start: {line!r}"
        self.address = line.split()[-1]
        self.admin = open(os.path.join(self.directory, "admin-token")).read().strip()

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def call(self, method, path, body=None, token=None, kind="application/json", headers=None):
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(self.address + path, data=data, method=method)
        request.add_header("Authorization", "Bearer " + (token or self.admin))
        if data is not None:
            request.add_header("Content-Type", kind)
        for name, value in (headers or {}).items():
            request.add_header(name, value)
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                text = answer.read()
        except urllib.error.HTTPError as error:
            raise Refused(error.code, error.read().decode()) from None
        return json.loads(text) if text.strip() else None

    # As an operator

    def population(self, name="keyboards", epsilon=8):
        budget = {"epsilon": epsilon, "delta": 1e-5} if epsilon else None
        return self.call("POST", "/v1/populations", {"name": name, "budget": budget})

    def staff_token(self, role):
        answer = self.call("POST", "/v1/tokens", {"role": role, "name": role})
        return answer["token"], answer.get("id")

    def clients(self, count, population="keyboards"):
        token = self.call("POST", f"/v1/populations/{population}/enrollment-tokens", {"max_uses": count})["token"]
        return [self.call("POST", "/v1/clients", {}, token=token)["token"] for _ in range(count)]

    def run(self, specification=None, start=True, **changes):
        body = specification or {
            "name": "keyboard-en", "population": "keyboards", "rounds": 3, "model": {"architecture": "external"},
            "cohort": {"goal": 2, "minimum": 2, "over_selection": 1.0, "max_participations": 1000,
                       "selection_timeout_s": 600, "report_timeout_s": 600},
            "privacy": {"mode": "central", "noise_multiplier": 200},
        }
        body.update(changes)
        run = self.call("POST", "/v1/runs", body)["id"]
        self.call("PUT", f"/v1/runs/{run}/model", safetensors([0, 0, 0, 0], name=self.tensor), kind="application/vnd.safetensors")
        if start:
            self.call("POST", f"/v1/runs/{run}/start", {})
        return run

    def measure(self, run, version, **metrics):
        self.call("POST", f"/v1/runs/{run}/models/{version}/metrics", {"metrics": metrics})

    # As a client

    def assignment(self, client):
        """Work, which may have to be waited for."""
        return wait_until("work for a client", lambda: self.call(
            "POST", "/v1/checkins", {}, token=client, headers={"Prefer": "wait=5"}).get("assignment"), pause=0.2)

    def deliver(self, client, assignment, values=(0.1, 0.1, 0.1, 0.1), metadata=None):
        return self.call(
            "PUT", assignment["update_url"],
            safetensors(values, {"base": assignment["model"]["sha256"], **(metadata or {})}, self.tensor,
                        size=assignment.get("update_bytes", 0)),
            token=client, kind="application/vnd.safetensors"
        )

    def round(self, clients, run=None):
        """Clients that take a whole round's work and deliver it; waits until it is committed."""
        work = [(client, self.assignment(client)) for client in clients]
        for client, assignment in work:
            self.deliver(client, assignment)
        path = f"/v1/runs/{work[0][1]['run']}/rounds/{work[0][1]['round']}"
        wait_until("the round is committed", lambda: self.call("GET", path)["state"] == "committed", pause=0.02)
        return work[0][1]["round"]

    # What every operation can be asked about

    def example(self):
        """A server that has something of everything, as the variables that the curl lines of /docs use: a run after its
        first round, clients, one of them at work, a token that may be revoked."""
        self.population("keyboards")
        run = self.run(rounds=5, cohort={"goal": 2, "minimum": 2, "over_selection": 1.0, "max_participations": 1000})
        clients = self.clients(3)
        self.round(clients[:2])
        enrollment = self.call("POST", "/v1/populations/keyboards/enrollment-tokens", {"max_uses": 100000})["token"]
        return {
            "MARTLET_URL": self.address, "MARTLET_TOKEN": self.admin, "CLIENT_TOKEN": clients[0],
            "ENROLLMENT_TOKEN": enrollment, "POPULATION": "keyboards", "RUN": run, "ROUND": "1", "VERSION": "1",
            "ASSIGNMENT": self.assignment(clients[0])["id"], "OTHER_CLIENT_TOKEN": clients[1],
            "OTHER_ASSIGNMENT": self.assignment(clients[1])["id"],
            "CLIENT": self.call("GET", "/v1/clients")["items"][-1]["id"],
            "TOKEN": self.call("POST", "/v1/tokens", {"role": "viewer", "name": "to-revoke"})["id"],
        }
