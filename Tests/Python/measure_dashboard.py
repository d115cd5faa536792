#!/usr/bin/env python3
"""Measures the dashboard with 1,000 rounds and 50,000 clients while rounds go on. measure_dashboard.py BINARY [SECONDS]

Prints JSON lines: scripting per second (limit 50 ms), memory after a collection at the beginning and at the end.
"""

import json
import statistics
import sys
import threading
import time

from browser import Browser
from filled import fill
from service import Service

ROUNDS = 1000
CLIENTS = 50_000


def drive(service, clients, stop, failures):
    """A round a second."""
    try:
        number = ROUNDS
        while not stop.wait(1):
            number = service.round(clients)
            run = service.run_id
            service.measure(run, number, accuracy=0.95, loss=0.4)
    except Exception as error:
        failures.append(error)


def main():
    seconds = int(sys.argv[2]) if len(sys.argv) > 2 else 600
    with Service(sys.argv[1]) as service, Browser() as browser:
        service.population(epsilon=None)
        run = service.run(rounds=100_000, privacy={"mode": "none"})
        service.run_id = run
        clients = service.clients(2)
        service.round(clients)
        service.process.terminate()
        service.process.wait()
        fill(service, run, rounds=ROUNDS, clients=CLIENTS)
        service.start()
        page = browser.page()
        page.screen(1440, 900)
        page.send("Performance.enable")
        page.open(service.address)
        page.until("document.activeElement?.id === 'token'")
        page.type(service.admin)
        page.key("Enter")
        start = time.monotonic()
        page.until(f"document.querySelector('.figures dd span')?.textContent === '1,000'", what="1,000 rounds")
        print(json.dumps({"name": "first sight", "value": round(time.monotonic() - start, 3), "unit": "s", "rounds": ROUNDS, "clients": CLIENTS}))
        page.run("document.querySelector('details').open = true")
        assert "50,002" in page.run("document.body.innerText")
        stop, failures = threading.Event(), []
        threading.Thread(target=drive, args=(service, clients, stop, failures), daemon=True).start()

        def counters():
            values = {item["name"]: item["value"] for item in page.send("Performance.getMetrics")["metrics"]}
            return values

        def scripted(duration):
            """Milliseconds of script a second, collections included, by V8's own samples."""
            page.send("Profiler.start")
            time.sleep(duration)
            profile = page.send("Profiler.stop")["profile"]
            names = {node["id"]: node["callFrame"]["functionName"] for node in profile["nodes"]}
            busy = sum(
                delta for sample, delta in zip(profile["samples"], profile["timeDeltas"])
                if names[sample] not in ("(idle)", "(program)", "(root)")
            )
            return busy / (profile["endTime"] - profile["startTime"]) * 1000

        page.send("Profiler.enable")
        page.send("Profiler.setSamplingInterval", interval=500)

        def memory():
            page.send("HeapProfiler.collectGarbage")
            values = counters()
            return values["JSHeapUsedSize"], values["Nodes"]

        time.sleep(5)
        first = memory()
        scripting, tasks = [], []
        before = counters()
        samples = []
        for step in range(seconds // 5):
            scripting.append(scripted(5))
            after = counters()
            elapsed = after["Timestamp"] - before["Timestamp"]
            tasks.append((after["TaskDuration"] - before["TaskDuration"]) / elapsed * 1000)
            before = after
            if (step + 1) % 12 == 0:
                samples.append(memory())
                before = counters()
        last = memory()
        stop.set()
        assert not failures, failures
        shown = page.run("document.querySelector('.figures dd span').textContent")
        assert not page.errors, page.errors
        print(json.dumps({"name": "scripting per second", "median": round(statistics.median(scripting), 2), "maximum": round(max(scripting), 2), "unit": "ms", "limit": 50, "samples": len(scripting)}))
        print(json.dumps({"name": "main thread per second", "median": round(statistics.median(tasks), 2), "maximum": round(max(tasks), 2), "unit": "ms"}))
        print(json.dumps({
            "name": "memory after collection", "first": first[0], "last": last[0], "growth": round(last[0] / first[0] - 1, 4), "unit": "bytes",
            "nodes": [first[1], last[1]], "each_minute": [item[0] for item in samples], "rounds_shown": shown, "seconds": seconds,
        }))


if __name__ == "__main__":
    main()
