"""A job under faults, beside the same job undisturbed: the server is killed, connections are cut at random bytes, every request is
sent three times, every second answer is thrown away, and clients forget everything but their token. Prints one JSON line.

Usage: faults.py MARTLET DIRECTORY ROUNDS SEED CALM|FAULTY none|central   one job; a FAULTY one's server dies after random requests
       faults.py MARTLET DIRECTORY ROUNDS SEED POINTS none|central [EVERY [FIRST [LAST]]]
           the undisturbed job, then one job for each EVERY-th point at which a death would part what belongs together (around each
           transaction and each change of a file's name): the server kills itself there by SIGKILL, and goes on after a restart.
"""

import json, os, random, shutil, signal, socket, struct, subprocess, sys, threading, time
import http.client

from service import PATIENCE, held_port


def safetensors(values, examples, base="", size=0):
    header = json.dumps({"__metadata__": {"num_examples": str(examples), "base": base},
                         "w": {"dtype": "F32", "shape": [len(values)], "data_offsets": [0, 4 * len(values)]}}).encode()
    # Private runs want one length of all.
    header += b" " * max(-len(header) % 8, size - 8 - len(header) - 4 * len(values))
    return struct.pack("<Q", len(header)) + header + struct.pack(f"<{len(values)}f", *values)


class Job:
    """A server with a started run, and three clients that work on it."""

    def __init__(self, binary, directory, rounds, seed, faulty=False, mode="none"):
        self.binary, self.directory, self.rounds, self.faulty, self.mode = binary, directory, rounds, faulty, mode
        self.chance = random.Random(seed)
        self.counts = {"kills": 0, "cuts": 0, "drops": 0, "repeats": 0, "unavailable": 0}
        self.lock = threading.Lock()
        self.done = threading.Event()
        self.held = held_port()
        self.port = self.held.getsockname()[1]
        self.process = None
        # Requests until the next death, and the word that it is due: a fast machine has as many deaths as a slow one. Who asks in vain for
        # work, or a server that is starting, is not counted: where that takes longer than so many questions, the job would never end.
        self.death_in = self.chance.randrange(10, 30)
        self.death_due = threading.Event()

    # The server

    def start(self, point=None):
        """Starts the server; it may die on the way, at its point."""
        environment = dict(os.environ)
        if point:
            environment["MARTLET_DIE_AT_POINT"] = str(point)
        self.process = subprocess.Popen(
            [self.binary, "serve", "--data-dir", self.directory, "--listen", f"127.0.0.1:{self.port}"],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment)
        line = self.process.stdout.readline().decode()
        if "listening" not in line:
            assert point and self.process.wait() == -signal.SIGKILL, line
            self.counts["kills"] += 1
            self.start()

    def stop(self):
        self.process.terminate()
        self.process.wait()

    def killer(self):
        """Kills the server when it is due, and starts one that has died."""
        while not self.done.is_set():
            if self.death_due.wait(timeout=0.01):
                self.death_due.clear()
                self.process.send_signal(signal.SIGKILL)
                self.process.wait()
            elif self.process.poll() is None:
                continue
            self.counts["kills"] += 1
            self.start()

    # Requests

    def raw(self, method, path, token, body, kind, counted=False):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        connection.request(method, path, body=body, headers={"Authorization": "Bearer " + token, "Content-Type": kind})
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        if counted and answer.status in (200, 201):
            with self.lock:
                self.death_in -= 1
                if self.death_in == 0:
                    self.death_in = self.chance.randrange(10, 30)
                    self.death_due.set()
        return answer.status, data

    def cut(self, method, path, token, body, kind):
        """Sends a part of the request and hangs up."""
        head = (f"{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Type: {kind}\r\n"
                f"Content-Length: {len(body)}\r\n\r\n").encode() + body
        with self.lock:
            size = self.chance.randrange(1, len(head))
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as link:
                link.sendall(head[:size])
        except OSError:
            pass

    def call(self, method, path, token, body=b"", kind="application/json", idempotent=True):
        """As a client on a bad line: until there is an answer that it is let have."""
        faulty = self.faulty and idempotent
        while True:
            try:
                if faulty:
                    with self.lock:
                        self.counts["cuts"] += 1
                    self.cut(method, path, token, body, kind)
                    for _ in range(2):
                        with self.lock:
                            self.counts["repeats"] += 1
                        self.raw(method, path, token, body, kind, counted=True)
                status, data = self.raw(method, path, token, body, kind)
                if status == 503 or status == 429:
                    self.counts["unavailable"] += 1
                    time.sleep(0.02)
                    continue
                with self.lock:
                    lost = faulty and self.chance.random() < 0.5
                    self.counts["drops"] += lost
                if not lost:
                    return status, data
            except (OSError, http.client.HTTPException):
                time.sleep(0.02)

    # The job

    def prepare(self):
        """Everything before the first check-in; the server is stopped then, so that its directory can be copied."""
        self.start()
        admin = open(self.directory + "/admin-token").read().strip()

        def ask(method, path, body, kind="application/json", token=admin):
            status, data = self.call(method, path, token, body, kind, idempotent=False)
            assert status in (200, 201), data
            return json.loads(data)

        budget = {"budget": {"epsilon": 900, "delta": 1e-5}} if self.mode == "central" else {}
        ask("POST", "/v1/populations", json.dumps({"name": "p", **budget}).encode())
        run = {"population": "p", "model": {"architecture": "external"}, "rounds": self.rounds,
               "cohort": {"goal": 3, "minimum": 3, "over_selection": 1, "max_participations": self.rounds + 5}}
        if self.mode == "central":
            run["privacy"] = {"mode": "central", "noise_multiplier": 8}
            run["evaluation"] = {"every": 2, "minimum": 3, "noise_multiplier": 8, "max_participations": self.rounds + 5}
        run = ask("POST", "/v1/runs", json.dumps(run).encode())["id"]
        ask("PUT", f"/v1/runs/{run}/model", safetensors([0.0] * 300, 1), "application/vnd.safetensors")
        ask("POST", f"/v1/runs/{run}/start", b"{}")
        enrollment = ask("POST", "/v1/populations/p/enrollment-tokens", b'{"max_uses": 3}')["token"]
        tokens = [ask("POST", "/v1/clients", b"{}", token=enrollment)["token"] for _ in range(3)]
        self.stop()
        with open(self.directory + "/job.json", "w") as file:
            json.dump({"admin": admin, "run": run, "tokens": tokens}, file)

    def client(self, index, token):
        while not self.done.is_set():
            status, data = self.call("POST", "/v1/checkins", token, b"{}")
            assignment = json.loads(data).get("assignment") if status == 201 else None
            if assignment is None:
                time.sleep(0.01)
                continue
            if assignment["kind"] == "evaluate":
                sums = {"num_examples": 8, "metrics": {"nll": 16 + index, "tokens": 8, "hit1": 2, "hit3": 4}}
                self.call("PUT", assignment["update_url"], token, json.dumps(sums).encode().ljust(assignment.get("update_bytes", 0)))
                continue
            number = assignment["round"]
            # What this client would have trained in this round: the same whenever it is asked.
            values = random.Random(number * 100 + index)
            update = safetensors([values.uniform(-1, 1) for _ in range(300)], 1 + index, assignment["model"]["sha256"],
                                 assignment.get("update_bytes", 0))
            self.call("PUT", assignment["update_url"], token, update, "application/vnd.safetensors")

    def work(self, point=None):
        """Runs the prepared job to its end; the first server dies at its point."""
        with open(self.directory + "/job.json") as file:
            job = json.load(file)
        admin, run = job["admin"], job["run"]
        self.start(point)
        threads = [threading.Thread(target=self.client, args=(i, token), daemon=True) for i, token in enumerate(job["tokens"])]
        if self.faulty or point:
            threads.append(threading.Thread(target=self.killer, daemon=True))
        for thread in threads:
            thread.start()

        def get(path):
            return json.loads(self.call("GET", path, admin, idempotent=False)[1])

        # A job takes seconds; one that hangs is told as such.
        end = time.monotonic() + 2 * PATIENCE
        while time.monotonic() < end:
            view = get(f"/v1/runs/{run}")
            if view["state"] in ("completed", "failed"):
                break
            time.sleep(0.05)
        # Everything is asked before the watch over the server ends.
        attempts = get(f"/v1/runs/{run}/rounds")["items"]
        evaluations = get(f"/v1/runs/{run}/evaluations")["items"]
        population = get("/v1/populations/p")
        ledger = get("/v1/populations/p/ledger")["items"]
        self.done.set()
        for thread in threads:
            thread.join(timeout=30)
        self.stop()
        return {
            "state": view["state"], "model_sha256": view.get("model_sha256"), "committed": view["committed_rounds"],
            "accepted": [r["accepted"] for r in attempts if r["state"] == "committed"],
            "evaluated": [r["number"] for r in evaluations if r["state"] == "committed"],
            "spent_epsilon": (population.get("budget") or {}).get("spent_epsilon"),
            "ledger": {s: sum(1 for row in ledger if row["run_id"] == run and row["state"] == s)
                       for s in ("reserved", "committed", "released")},
            **self.counts}


def points(binary, directory, rounds, seed, mode, every=1, first=1, last=10**9):
    """One job for each point; the same updates must be accepted, and the model be the same to the bit."""
    template = directory + "/template"
    Job(binary, template, rounds, seed, mode=mode).prepare()

    def job(point=None):
        place = directory + "/job"
        shutil.copytree(template, place)
        try:
            return Job(binary, place, rounds, seed, mode=mode).work(point)
        finally:
            shutil.rmtree(place)

    calm = job()
    tried, failures, point, started = 0, [], first, time.time()
    while point <= last:
        result = job(point)
        if result["kills"] == 0:
            break
        tried += 1
        ledger = result["ledger"]
        good = (result["state"] == "completed" and result["accepted"] == calm["accepted"]
                and (mode == "central" or result["model_sha256"] == calm["model_sha256"])
                # Every release is charged, and what is reserved is settled.
                and (result["spent_epsilon"] or 0) >= (calm["spent_epsilon"] or 0) * (1 - 1e-12)
                and result["evaluated"] == calm["evaluated"]
                and (mode == "none" or ledger["committed"] >= rounds + len(calm["evaluated"]))
                and ledger["reserved"] == ledger["committed"] + ledger["released"])
        if not good:
            failures.append({"point": point, **result})
        point += every
    return {"calm": calm, "points": tried, "last_point": point - every, "failures": failures,
            "seconds": round(time.time() - started, 1)}


if __name__ == "__main__":
    binary, directory, rounds, seed, mood, mode = sys.argv[1:7]
    rounds, seed = int(rounds), int(seed)
    if mood == "POINTS":
        result = points(binary, directory, rounds, seed, mode, *map(int, sys.argv[7:]))
    else:
        job = Job(binary, directory, rounds, seed, faulty=mood == "FAULTY", mode=mode)
        job.prepare()
        result = job.work()
    print(json.dumps(result))
