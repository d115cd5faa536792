"""Fifty devices behind a proxy that lies, and kills on both sides; standard library only.

    soak.py BINARY [SECONDS [ROUNDS [SEED]]]

Runs one job twice with `martlet fleet`, `martlet client` and trainers' commands (50 devices, the report goal is all of them): once undisturbed, once
through a proxy that cuts, delays, repeats, refuses, redirects, hangs and answers in the server's place, while server, fleet and clients are
killed by SIGKILL and started again. After SECONDS the faults end and the job may finish. Then, watched from outside:

 - no device's process has ended by itself;
 - each assignment was accepted at most once, and each committed round holds one update of every device;
 - each device's own ledger has one entry for an assignment, one for everything that the server accepted of it, and none that the server does
   not know;
 - no process of a trainer's command is left, and no directory of an assignment, though their clients were killed;
 - the last model is that of the undisturbed job, to the bit.

Every device has one record, so that an update does not depend on the order of training and is the same in both jobs. Prints one JSON line; status 1
when something does not hold.
"""

import asyncio
import collections
import glob
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

from service import Service, held_port

FLEET, CLIENTS, TRAINERS = 40, 5, 5
DEVICES = FLEET + CLIENTS + TRAINERS

# Adds a small constant to every parameter: the same whenever it is asked.
TRAINER = '''
import array, hashlib, json, os, struct
content = open(os.path.join(os.environ["MARTLET_MODEL_DIR"], "model.safetensors"), "rb").read()
(length,) = struct.unpack("<Q", content[:8])
header = json.loads(content[8:8 + length])
header.pop("__metadata__", None)
(name,) = os.listdir(os.environ["MARTLET_DATA_DIR"])
number = int(open(os.path.join(os.environ["MARTLET_DATA_DIR"], name)).read().split()[-1])
out, data = {"__metadata__": {"kind": "delta", "base": hashlib.sha256(content).hexdigest()}}, b""
for key in sorted(header):
    count = (header[key]["data_offsets"][1] - header[key]["data_offsets"][0]) // 4
    block = array.array("f", [number / 65536] * count).tobytes()
    out[key] = {"dtype": "F32", "shape": header[key]["shape"], "data_offsets": [len(data), len(data) + len(block)]}
    data += block
text = json.dumps(out).encode()
text += b" " * (-len(text) % 8)
def put(name, content):
    path = os.path.join(os.environ["MARTLET_UPDATE_DIR"], name)
    open(path + ".part", "wb").write(content)
    os.rename(path + ".part", path)
put("model.safetensors", struct.pack("<Q", len(text)) + text + data)
put("metrics.json", json.dumps({"schema": 1, "examples": 1, "steps": 1, "tokens": 1, "loss_tokens": 1, "nll": 1.0}).encode())
'''


class Proxy(threading.Thread):
    """A reverse proxy whose faults are drawn from a seed, one connection for each request upstream."""

    FAULTS = ["cut_request", "cut_answer", "delay", "repeat", "lose_answer", "403", "407", "413", "502", "504", "302", "200", "json", "octets", "hang"]

    def __init__(self, upstream, seed, share):
        super().__init__(daemon=True)
        self.upstream, self.random, self.share = upstream, random.Random(seed), share
        self.counts = collections.Counter()
        self.held = held_port()
        self.port = self.held.getsockname()[1]
        self.ready = threading.Event()

    def run(self):
        asyncio.run(self.serve())

    async def serve(self):
        server = await asyncio.start_server(self.connection, "127.0.0.1", self.port, reuse_address=True)
        self.ready.set()
        async with server:
            await server.serve_forever()

    async def connection(self, reader, writer):
        try:
            while await self.request(reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError):
            pass
        finally:
            writer.close()

    async def request(self, reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        fields = {}
        for line in head.split(b"\r\n")[1:-2]:
            name, _, value = line.partition(b":")
            fields[name.strip().lower()] = value.strip()
        if fields.get(b"expect", b"").lower() == b"100-continue":
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = await reader.readexactly(int(fields.get(b"content-length", b"0")))
        fault = self.random.choice(self.FAULTS) if self.random.random() < self.share else None
        if fault:
            self.counts[fault] += 1
        method = head.split(b" ", 1)[0]
        if fault in ("403", "407", "413", "502", "504", "302", "200"):
            page = b"<html><body>This is not the server that you are looking for.</body></html>"
            extra = b"Location: https://portal.example.net/login\r\n" if fault == "302" else b""
            writer.write(b"HTTP/1.1 %s Intercepted\r\nContent-Type: text/html\r\nContent-Length: %d\r\n%s\r\n"
                         % (fault.encode(), len(page), extra) + (b"" if method == b"HEAD" else page))
            await writer.drain()
            return True
        if fault in ("json", "octets"):
            # No page, and no answer of the server's either.
            kind, page = (b"application/json", b'{"login": true}') if fault == "json" else (b"application/octet-stream", bytes(2 << 20))
            writer.write(b"HTTP/1.1 200 Intercepted\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n" % (kind, len(page))
                         + (b"" if method == b"HEAD" else page))
            await writer.drain()
            return True
        if fault == "hang":
            await asyncio.sleep(self.random.uniform(5, 25))
            return False
        if fault == "delay":
            await asyncio.sleep(self.random.uniform(0.2, 3))
        lines = [line for line in head.split(b"\r\n")[:-2] if not line.lower().startswith((b"expect:", b"connection:"))]
        message = b"\r\n".join(lines) + b"\r\nConnection: close\r\n\r\n" + body
        if fault == "cut_request":
            up = await self.open()
            up[1].write(message[: self.random.randrange(1, len(message))])
            await up[1].drain()
            up[1].close()
            return False
        answer = await self.forward(message)
        if fault == "repeat":
            answer = await self.forward(message)
        if answer is None:
            writer.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/html\r\nContent-Length: 0\r\n\r\n")
            await writer.drain()
            return True
        if fault == "lose_answer":
            return False
        if fault == "cut_answer":
            answer = answer[: self.random.randrange(len(answer))]
        writer.write(answer)
        await writer.drain()
        # The server closes after each answer, so the device must not send another request here.
        return False

    async def open(self):
        return await asyncio.open_connection("127.0.0.1", self.upstream)

    async def forward(self, message):
        try:
            reader, writer = await self.open()
            writer.write(message)
            await writer.drain()
            answer = await reader.read(-1)
            writer.close()
            return answer or None
        except OSError:
            return None


class Devices:
    """The processes of all devices; one that ends without having been told to is noted."""

    def __init__(self, binary, directory, url, token):
        self.directory, self.ended = directory, []
        # By ledger: ids of assignments seen in it, and how many entries it has, those included that it only counts.
        self.seen, self.entries, self.doubled = collections.defaultdict(set), {}, set()
        environment = dict(os.environ, MARTLET_URL=url)
        for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            environment.pop(name, None)
        self.environment = environment
        texts = os.path.join(directory, "texts")
        os.makedirs(texts)
        for index in range(DEVICES):
            name = os.path.join(texts if index < FLEET else directory, f"text-{index:02}.txt")
            with open(name, "w") as file:
                file.write(f"the device of this person writes about house number {index}\n")
        with open(os.path.join(directory, "trainer.py"), "w") as file:
            file.write(TRAINER)
        self.commands = [[binary, "fleet", "--enrollment-token", token, "--clients", str(FLEET), "--width", str(FLEET),
                          "--text", texts, "--state-dir", os.path.join(directory, "fleet")]]
        for index in range(FLEET, DEVICES):
            command = [binary, "client", "--enrollment-token", token, "--data", os.path.join(directory, f"text-{index:02}.txt"),
                       "--state-dir", os.path.join(directory, f"client-{index}")]
            if index >= FLEET + CLIENTS:
                command += ["--trainer-command", f"{sys.executable} {os.path.join(directory, 'trainer.py')}"]
            self.commands.append(command)
        self.processes = [self.start(command) for command in self.commands]

    def start(self, command):
        log = open(os.path.join(self.directory, "devices.log"), "ab")
        return subprocess.Popen(command, stdout=log, stderr=log, env=self.environment)

    def watch(self):
        for index, process in enumerate(self.processes):
            if process.poll() is not None:
                self.ended.append([self.commands[index][1], index, process.returncode])
                self.processes[index] = self.start(self.commands[index])

    def kill(self, index, how):
        """Ends a device, by SIGKILL or by asking it to stop in the middle of whatever it does, and starts it again."""
        process = self.processes[index]
        if process.poll() is None:
            process.send_signal(how)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                self.ended.append(["does not stop", index, None])
                process.kill()
                process.wait()
            self.processes[index] = self.start(self.commands[index])

    def leftovers(self):
        """What trainers' commands have left: processes that name an assignment of ours, and assignments' directories."""
        mark = b"MARTLET_ASSIGNMENT=" + os.fsencode(self.directory)
        processes = []
        for path in glob.glob("/proc/[0-9]*/environ"):
            try:
                with open(path, "rb") as file:
                    if mark in file.read():
                        processes.append(path.split("/")[2])
            except OSError:
                pass
        return processes, glob.glob(os.path.join(self.directory, "client-*", "trainer", "assignment-*"))

    def stop(self):
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()

    def read_ledgers(self):
        """Reads each device's own ledger. Beyond 64 events of a run without privacy it counts all but the last 32, so it is read all along."""
        for path in glob.glob(os.path.join(self.directory, "**", "ledger.json"), recursive=True):
            try:
                with open(path) as file:
                    ledger = json.load(file)
            except FileNotFoundError:
                continue
            names = [event.get("assignment") for event in ledger["events"]]
            if len(set(names)) < len(names):
                self.doubled.add(path)
            self.seen[path].update(names)
            self.entries[path] = len(names) + sum(run["count"] for run in ledger.get("counted") or [])


def job(binary, rounds, seed, seconds):
    """One job; `seconds` of faults, none where it is 0."""
    directory = tempfile.mkdtemp(prefix="martlet-soak-")
    chance = random.Random(seed)
    counts = collections.Counter()
    service = Service(binary)
    try:
        service.population(epsilon=None)
        run = service.call("POST", "/v1/runs", {
            "name": "soak", "population": "keyboards", "rounds": rounds,
            "model": {"architecture": "cifg-lstm", "config": {"vocab_size": 52, "embedding_dim": 8, "hidden_dim": 16}},
            "cohort": {"goal": DEVICES, "minimum": DEVICES, "over_selection": 1.0, "max_participations": 0, "lease_s": 20,
                       "selection_timeout_s": 600, "report_timeout_s": 600, "retry_backoff_s": 1},
            "training": {"local": {"learning_rate": 0.5, "batch_size": 4, "epochs": 1}},
            "aggregation": {"weighting": "uniform"}, "privacy": {"mode": "none"}})["id"]
        service.call("POST", f"/v1/runs/{run}/start", {})
        token = service.call("POST", "/v1/populations/keyboards/enrollment-tokens", {"max_uses": 20 * DEVICES})["token"]
        proxy = Proxy(service.held.getsockname()[1], seed, 0.12 if seconds else 0)
        proxy.start()
        proxy.ready.wait(10)
        devices = Devices(binary, directory, f"http://127.0.0.1:{proxy.port}", token)
        begin = time.monotonic()
        next_kill, next_look = begin + 5, begin
        limit = seconds + 600
        while time.monotonic() - begin < limit:
            time.sleep(0.25)
            now = time.monotonic()
            devices.watch()
            if now >= next_look:
                next_look = now + 1
                devices.read_ledgers()
            if now - begin >= seconds:
                proxy.share = 0
            elif now >= next_kill:
                next_kill = now + chance.uniform(3, 15)
                victim = chance.randrange(-3, len(devices.commands))
                if victim < 0:
                    counts["server kills"] += 1
                    service.kill()
                    time.sleep(chance.uniform(0, 3))
                    service.start()
                else:
                    how = chance.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM])
                    counts["device kills" if how == signal.SIGKILL else "device stops"] += 1
                    devices.kill(victim, how)
            try:
                view = service.call("GET", f"/v1/runs/{run}")
            except Exception:
                continue
            if view["state"] not in ("running", "paused"):
                break
        devices.stop()
        devices.read_ledgers()
        view = service.call("GET", f"/v1/runs/{run}")
        return report(service, run, rounds, devices, view, counts + proxy.counts, time.monotonic() - begin)
    finally:
        service.__exit__()
        shutil.rmtree(directory, ignore_errors=True)


def report(service, run, rounds, devices, view, counts, seconds):
    faults = []
    if view["state"] != "completed":
        faults.append(f"the run is {view['state']}: {view.get('waiting_for')}")
    if devices.ended:
        faults.append(f"{len(devices.ended)} devices ended by themselves: {devices.ended[:5]}")
    processes, directories = devices.leftovers()
    if processes or directories:
        faults.append(f"trainers have left {len(processes)} processes and {len(directories)} directories of assignments")
    # What the server says of each assignment.
    accepted, known = collections.Counter(), set()
    for number in range(1, view["committed_rounds"] + 2):
        try:
            rows = service.call("GET", f"/v1/runs/{run}/rounds/{number}/history?assignments=true")["items"]
        except Exception:
            continue
        for row in rows:
            if row.get("assignment"):
                known.add(row["assignment"])
                if row["state"] == "accepted":
                    accepted[row["assignment"]] += 1
    if any(count > 1 for count in accepted.values()):
        faults.append("an assignment was accepted twice")
    attempts = service.call("GET", f"/v1/runs/{run}/rounds?limit=1000")["items"]
    for attempt in attempts:
        if attempt["state"] == "committed" and attempt["accepted"] != DEVICES:
            faults.append(f"round {attempt['number']} has {attempt['accepted']} updates")
    seen = set().union(*devices.seen.values())
    missing, foreign = set(accepted) - seen, seen - known
    # What was written twice, or lost, beyond what a ledger spells out shows in its sum.
    doubled = [path for path, count in devices.entries.items() if path in devices.doubled or count != len(devices.seen[path])]
    if len(devices.entries) != DEVICES:
        faults.append(f"{len(devices.entries)} devices have a ledger")
    if doubled or missing or foreign:
        faults.append(f"device ledgers: {len(doubled)} do not have one entry an assignment, {len(missing)} entries missing, "
                      f"{len(foreign)} unknown to the server")
    return {"model": view.get("model_sha256"), "rounds": view["committed_rounds"], "attempts": len(attempts), "accepted": len(accepted),
            "seconds": round(seconds, 1), "disturbances": dict(counts), "faults": faults}


def main():
    binary = sys.argv[1]
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 60
    rounds = int(sys.argv[3]) if len(sys.argv) > 3 else 3
    seed = int(sys.argv[4]) if len(sys.argv) > 4 else 1
    calm = job(binary, rounds, seed, 0)
    disturbed = job(binary, rounds, seed, seconds)
    if calm["model"] != disturbed["model"]:
        disturbed["faults"].append("the models differ")
    print(json.dumps({"calm": calm, "disturbed": disturbed}))
    sys.exit(1 if calm["faults"] or disturbed["faults"] else 0)


if __name__ == "__main__":
    main()
