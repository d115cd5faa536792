"""A deterministic job of ten rounds, and 24 attackers; standard library only.

    siege.py job URL TOKEN                   runs the job, prints {"model", "rounds", "checkins", "p50_ms", "p99_ms", "seconds"}
    siege.py attack URL                      attacks until it is ended, for two minutes at most
    siege.py measure BINARY [REPEATS [PAGE]] both together against servers of its own, and the job alone; medians, which go
                                             into the last section of PAGE where one is named
"""

import base64
import hashlib
import http.client
import json
import os
import random
import re
import socket
import statistics
import struct
import subprocess
import sys
import threading
import time
import urllib.parse

LENGTH = 1000


def tensors(value, base=""):
    header = json.dumps({"w": {"dtype": "F32", "shape": [LENGTH], "data_offsets": [0, 4 * LENGTH]},
                         "__metadata__": {"num_examples": "1", "kind": "delta", "base": base}}).encode()
    return struct.pack("<Q", len(header)) + header + struct.pack(f"<{LENGTH}f", *[value] * LENGTH)


class Caller:
    def __init__(self, url, token):
        parts = urllib.parse.urlsplit(url)
        self.connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=600)
        self.token = token

    def call(self, method, path, body=None, content_type="application/json", expect=(200, 201, 204)):
        headers = {"Authorization": "Bearer " + self.token, "Content-Type": content_type}
        data = json.dumps(body).encode() if isinstance(body, dict) else body
        if content_type == "application/vnd.safetensors":
            digest = base64.b64encode(hashlib.sha256(data).digest()).decode()
            headers["Content-Digest"] = f"sha-256=:{digest}:"
        while True:
            self.connection.request(method, path, data, headers)
            answer = self.connection.getresponse()
            content = answer.read()
            if answer.status != 429:
                break
            # Where rounds take long, a client that asks for work all the time meets its limit.
            time.sleep(0.2)
        if answer.status not in expect:
            raise SystemExit(f"{method} {path}: {answer.status} {content[:300]}")
        return answer.status, json.loads(content) if content[:1] in b"{[" else content


def job(url, token):
    admin = Caller(url, token)
    admin.call("POST", "/v1/populations", {"name": "siege"})
    _, run = admin.call("POST", "/v1/runs", {
        "population": "siege", "rounds": 10, "model": {"architecture": "external"},
        "cohort": {"goal": 4, "minimum": 4, "over_selection": 1.0, "max_participations": 100}})
    run = run["id"]
    admin.call("PUT", f"/v1/runs/{run}/model", tensors(0.0), "application/vnd.safetensors")
    admin.call("POST", f"/v1/runs/{run}/start")
    _, enrollment = admin.call("POST", "/v1/populations/siege/enrollment-tokens", {"max_uses": 4})
    # Clients for whom there is never work: what most check-ins are.
    admin.call("POST", "/v1/populations", {"name": "bystanders"})
    _, idle = admin.call("POST", "/v1/populations/bystanders/enrollment-tokens", {"max_uses": 4})
    times, lock, ended = [], threading.Lock(), threading.Event()
    begin = time.monotonic()

    def bystander():
        _, registered = Caller(url, idle["token"]).call("POST", "/v1/clients", {})
        caller = Caller(url, registered["token"])
        while not ended.is_set():
            start = time.monotonic()
            caller.call("POST", "/v1/checkins", {})
            with lock:
                times.append(time.monotonic() - start)
            # Within the limit of one client.
            time.sleep(0.06)

    def client(index):
        _, registered = Caller(url, enrollment["token"]).call("POST", "/v1/clients", {"name": f"honest-{index}"})
        caller = Caller(url, registered["token"])
        accepted = 0
        while accepted < 10:
            start = time.monotonic()
            _, answer = caller.call("POST", "/v1/checkins", {})
            with lock:
                times.append(time.monotonic() - start)
            assignment = answer.get("assignment")
            if not assignment:
                time.sleep(0.02)
                continue
            value = 0.25 * (index + 1) + assignment["round"]
            caller.call("PUT", assignment["update_url"], tensors(value, assignment["model"]["sha256"]), "application/vnd.safetensors")
            accepted += 1

    idlers = [threading.Thread(target=bystander) for _ in range(4)]
    threads = [threading.Thread(target=client, args=(index,)) for index in range(4)]
    for thread in threads + idlers:
        thread.start()
    for thread in threads:
        thread.join()
    for _ in range(12_000):
        _, view = admin.call("GET", f"/v1/runs/{run}")
        if view["state"] == "completed":
            break
        time.sleep(0.05)
    seconds = time.monotonic() - begin
    ended.set()
    for thread in idlers:
        thread.join()
    times.sort()
    print(json.dumps({"seconds": round(seconds, 2), "model": view["model_sha256"], "rounds": view["committed_rounds"], "checkins": len(times),
                      "p50_ms": round(1000 * times[len(times) // 2], 2),
                      "p99_ms": round(1000 * times[min(len(times) - 1, int(0.99 * len(times)))], 2)}))


def attack(url):
    parts = urllib.parse.urlsplit(url)
    address = (parts.hostname, parts.port)

    def connect():
        return socket.create_connection(address, timeout=5)

    def slowloris(rng):
        peer = connect()
        peer.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n")
        for _ in range(20):
            peer.sendall(b"X-%d: y\r\n" % rng.randrange(10 ** 6))
            time.sleep(0.2)

    def oversized(rng):
        peer = connect()
        peer.sendall(b"POST /v1/populations HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(200):
            peer.sendall(b"10000\r\n" + b"x" * 65536 + b"\r\n")

    def garbage(rng):
        peer = connect()
        peer.sendall(rng.randbytes(rng.randrange(1, 4096)) + b"\r\n\r\n")
        peer.recv(1000)
        time.sleep(0.02)

    def guessing(rng):
        peer = connect()
        for _ in range(50):
            peer.sendall(b"GET /v1/runs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer mlt_%x\r\n\r\n" % rng.getrandbits(256))
            if not peer.recv(4000):
                break
            time.sleep(0.02)

    def pipelining(rng):
        peer = connect()
        requests = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" * 5000
        peer.sendall(requests + b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        while peer.recv(1 << 16):
            pass

    def attacker(index):
        kind = [slowloris, oversized, garbage, guessing, pipelining][index % 5]
        rng = random.Random(index)
        while True:
            try:
                kind(rng)
            except OSError:
                time.sleep(0.02)

    for index in range(24):
        threading.Thread(target=attacker, args=(index,), daemon=True).start()
    print("attacking", flush=True)
    # Ends by itself should nobody end it.
    time.sleep(120)


def resident(process):
    with open(f"/proc/{process.pid}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2 ** 20


def measure(binary, repeats="5", page=None):
    from service import Service

    results = {False: [], True: []}
    for _ in range(int(repeats)):
        for is_attacked in (False, True):
            with Service(binary) as service:
                before = resident(service.process)
                attackers = None
                if is_attacked:
                    attackers = subprocess.Popen([sys.executable, __file__, "attack", service.address], stdout=subprocess.PIPE)
                    attackers.stdout.readline()
                try:
                    job = subprocess.run([sys.executable, __file__, "job", service.address, service.admin],
                                         stdout=subprocess.PIPE, check=True, text=True)
                finally:
                    if attackers:
                        attackers.kill()
                        attackers.wait()
                result = json.loads(job.stdout)
                result["grown_mib"] = round(resident(service.process) - before, 1)
                print(json.dumps({"attacked": is_attacked, **result}), flush=True)
                results[is_attacked].append(result)
    models = {result["model"] for part in results.values() for result in part}

    def median(is_attacked, name):
        return statistics.median(result[name] for result in results[is_attacked])

    rows = [("a check-in, median", "p50_ms", "ms", ""), ("a check-in, 99th percentile", "p99_ms", "ms", "5 times the quiet one"),
            ("the whole run", "seconds", "s", ""), ("resident memory grows by", "grown_mib", "MiB", "64 MiB")]
    text = "| | quiet | under siege | limit |\n|---|---|---|---|\n"
    for title, name, unit, limit in rows:
        text += f"| {title} | {median(False, name):.3g} {unit} | {median(True, name):.3g} {unit} | {limit} |\n"
    text += f"| models of the {2 * int(repeats)} runs | | {'the same' if len(models) == 1 else 'DIFFERENT'} | the same |\n"
    print(text)
    if page:
        with open(page) as file:
            content = file.read()
        with open(page, "w") as file:
            file.write(re.sub(r"\| \| quiet \| under siege.*", lambda _: text, content, flags=re.S))


if __name__ == "__main__":
    {"job": job, "attack": attack, "measure": measure}[sys.argv[1]](*sys.argv[2:])
