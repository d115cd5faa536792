"""A job under faults: the server is killed after random numbers of requests, connections are cut at random bytes, every request is sent three
times, every second answer is thrown away, and clients forget everything but their token. Prints one JSON line.

Usage: faults.py MARTLET DATA_DIRECTORY ROUNDS SEED CALM|FAULTY none|central
"""

import hashlib, json, os, random, signal, socket, struct, subprocess, sys, threading, time
import http.client

binary, directory, rounds, seed, mood, mode = sys.argv[1:7]
rounds, faulty = int(rounds), mood == "FAULTY"
chance = random.Random(int(seed))
counts = {"kills": 0, "cuts": 0, "drops": 0, "repeats": 0, "unavailable": 0}
lock = threading.Lock()
server = {"process": None, "port": None}
done = threading.Event()
# Requests until the next death, and the word that it is due: a fast machine has as many deaths as a slow one.
death = {"in": chance.randrange(20, 50), "due": threading.Event()}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start():
    if server["port"] is None:
        server["port"] = free_port()
    server["process"] = subprocess.Popen(
        [binary, "serve", "--data-dir", directory, "--listen", f"127.0.0.1:{server['port']}"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    line = server["process"].stdout.readline().decode()
    assert "listening" in line, line


def raw(method, path, token, body, kind, counted=False):
    if counted:
        with lock:
            death["in"] -= 1
            if death["in"] == 0:
                death["in"] = chance.randrange(20, 50)
                death["due"].set()
    connection = http.client.HTTPConnection("127.0.0.1", server["port"], timeout=20)
    headers = {"Authorization": "Bearer " + token, "Content-Type": kind}
    connection.request(method, path, body=body, headers=headers)
    answer = connection.getresponse()
    data = answer.read()
    connection.close()
    return answer.status, data


def cut(method, path, token, body, kind):
    """Sends a part of the request and hangs up."""
    head = (f"{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Type: {kind}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n").encode() + body
    with lock:
        size = chance.randrange(1, len(head))
    try:
        with socket.create_connection(("127.0.0.1", server["port"]), timeout=5) as link:
            link.sendall(head[:size])
    except OSError:
        pass


def call(method, path, token, body=b"", kind="application/json", idempotent=True):
    """As a client on a bad line: until there is an answer that it is let have."""
    while True:
        try:
            if faulty and idempotent:
                with lock:
                    counts["cuts"] += 1
                cut(method, path, token, body, kind)
                for _ in range(2):
                    with lock:
                        counts["repeats"] += 1
                    raw(method, path, token, body, kind, counted=True)
            status, data = raw(method, path, token, body, kind)
            if status == 503 or status == 429:
                counts["unavailable"] += 1
                time.sleep(0.05)
                continue
            with lock:
                lost = faulty and idempotent and chance.random() < 0.5
                counts["drops"] += lost
            if not lost:
                return status, data
        except (OSError, http.client.HTTPException):
            time.sleep(0.05)


def safetensors(values, examples):
    header = json.dumps({"__metadata__": {"num_examples": str(examples)},
                         "w": {"dtype": "F32", "shape": [len(values)], "data_offsets": [0, 4 * len(values)]}}).encode()
    header += b" " * (-len(header) % 8)
    return struct.pack("<Q", len(header)) + header + struct.pack(f"<{len(values)}f", *values)


def client(index, token):
    while not done.is_set():
        status, data = call("POST", "/v1/checkins", token, b"{}")
        assignment = json.loads(data).get("assignment") if status == 201 else None
        if assignment is None:
            time.sleep(0.02)
            continue
        number = assignment["round"]
        # What this client would have trained in this round: the same whenever it is asked.
        values = random.Random(number * 100 + index)
        update = safetensors([values.uniform(-1, 1) for _ in range(300)], 1 + index)
        call("PUT", assignment["update_url"], token, update, "application/vnd.safetensors")


def killer():
    while not done.is_set():
        if not death["due"].wait(timeout=0.2):
            continue
        death["due"].clear()
        server["process"].send_signal(signal.SIGKILL)
        server["process"].wait()
        counts["kills"] += 1
        start()


start()
admin = open(directory + "/admin-token").read().strip()
budget = {"budget": {"epsilon": 900, "delta": 1e-5}} if mode == "central" else {}
status, _ = call("POST", "/v1/populations", admin, json.dumps({"name": "p", **budget}).encode(), idempotent=False)
assert status == 201, status
run = {"population": "p", "model": {"architecture": "external"}, "rounds": rounds,
       "cohort": {"goal": 3, "minimum": 3, "over_selection": 1, "max_participations": rounds + 5}}
if mode == "central":
    run["privacy"] = {"mode": "central", "noise_multiplier": 8}
status, data = call("POST", "/v1/runs", admin, json.dumps(run).encode(), idempotent=False)
assert status == 201, data
run = json.loads(data)["id"]
status, data = call("PUT", f"/v1/runs/{run}/model", admin, safetensors([0.0] * 300, 1), "application/vnd.safetensors",
                    idempotent=False)
assert status == 201, data
status, data = call("POST", f"/v1/runs/{run}/start", admin, b"{}", idempotent=False)
assert status == 200, data
status, data = call("POST", "/v1/populations/p/enrollment-tokens", admin, b'{"max_uses": 3}', idempotent=False)
enrollment = json.loads(data)["token"]
tokens = [json.loads(call("POST", "/v1/clients", enrollment, b"{}", idempotent=False)[1])["token"] for _ in range(3)]
threads = [threading.Thread(target=client, args=(i, token), daemon=True) for i, token in enumerate(tokens)]
if faulty:
    threads.append(threading.Thread(target=killer, daemon=True))
for thread in threads:
    thread.start()
end = time.time() + 240
while time.time() < end:
    status, data = call("GET", f"/v1/runs/{run}", admin, idempotent=False)
    view = json.loads(data)
    if status == 200 and view["state"] in ("completed", "failed"):
        break
    time.sleep(0.1)
done.set()
for thread in threads:
    thread.join(timeout=30)
attempts = json.loads(call("GET", f"/v1/runs/{run}/rounds", admin, idempotent=False)[1])["items"]
population = json.loads(call("GET", "/v1/populations/p", admin, idempotent=False)[1])
ledger = json.loads(call("GET", "/v1/populations/p/ledger", admin, idempotent=False)[1])["items"]
server["process"].terminate()
server["process"].wait()
print(json.dumps({
    "state": view["state"], "model_sha256": view.get("model_sha256"), "committed": view["committed_rounds"],
    "accepted": [r["accepted"] for r in attempts if r["state"] == "committed"],
    "spent_epsilon": (population.get("budget") or {}).get("spent_epsilon"),
    "ledger": {s: sum(1 for row in ledger if row["run_id"] == run and row["state"] == s) for s in ("reserved", "committed", "released")},
    **counts}))
