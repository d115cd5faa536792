"""What docker/ gives operators to watch a server with, at work: Prometheus, the alert rules, the Grafana dashboard.

Usage: monitoring.py MARTLET [PROMETHEUS]

Prometheus runs with the configuration of docker/prometheus, only more often and with this machine's paths. A server lives through a
private run, a refused update and callers who are turned away. Then its target must be up, each rule must evaluate, each expression
of each panel must give numbers, the alert about a spent budget must fire, and the one about a server that is down must be pending
after the server's end. Without Prometheus only the files are checked.
"""

import json
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request

from service import Refused, Service, held_port

DOCKER = os.path.join(os.path.dirname(__file__), "..", "..", "docker")
UNITS = {"short", "s", "bytes", "Bps"}


def text(*path):
    with open(os.path.join(DOCKER, *path)) as file:
        return file.read()


def dashboard():
    """The dashboard's panels, after what Grafana would refuse or show wrongly."""
    board = json.loads(text("grafana", "dashboards", "martlet.json"))
    source = re.search(r"uid: (\w+)", text("grafana", "provisioning", "datasources", "prometheus.yml"))[1]
    compose = text("compose.yaml")
    folder = re.search(r"path: ([^\s}]+)", text("grafana", "provisioning", "dashboards", "martlet.yml"))[1]
    assert f"./grafana/dashboards:{folder}:ro" in compose, f"compose.yaml does not mount the dashboards at {folder}"
    assert "url: \"http://prometheus:9090\"" in text("grafana", "provisioning", "datasources", "prometheus.yml")
    assert board["uid"] and board["title"] and board["schemaVersion"] >= 39 and board["panels"]
    for key in ("id", "title"):
        values = [panel[key] for panel in board["panels"]]
        assert len(set(values)) == len(values), f"two panels have one {key}: {values}"
    taken = set()
    for panel in board["panels"]:
        name, place, targets = panel["title"], panel["gridPos"], panel["targets"]
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        assert place["x"] + place["w"] <= 24 and not cells & taken, f"{name} lies on another panel or outside"
        taken |= cells
        assert panel["datasource"] == {"type": "prometheus", "uid": source}, f"{name} asks another data source than {source}"
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS, f"{name} has the unit {panel['fieldConfig']['defaults']['unit']}"
        assert targets and len({target["refId"] for target in targets}) == len(targets), f"{name}: two targets have one refId"
        assert len({target["legendFormat"] for target in targets}) == len(targets), f"{name}: two targets have one legend"
        for target in targets:
            shown = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
            grouped = re.search(r"sum by \(([^)]*)\)", target["expr"])
            if grouped:
                labels = set(grouped[1].replace(" ", "").split(",")) - {"le"}
                assert labels == shown, f"{name}: grouped by {labels}, shown by {shown}"
    return board["panels"]


class Prometheus:
    def __init__(self, program, directory, target, token):
        self.held = held_port()
        port = self.held.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        configuration = text("prometheus", "prometheus.yml")
        for old, new in (("server:8080", target), ("/scrape/token", token), ("15s", "1s"),
                         ("/etc/prometheus/alerts.yml", os.path.realpath(os.path.join(DOCKER, "prometheus", "alerts.yml")))):
            assert old in configuration, f"prometheus.yml does not name {old}"
            configuration = configuration.replace(old, new)
        path = os.path.join(directory, "prometheus.yml")
        with open(path, "w") as file:
            file.write(configuration)
        self.log = open(os.path.join(directory, "prometheus.log"), "w")
        self.process = subprocess.Popen(
            [program, f"--config.file={path}", f"--storage.tsdb.path={directory}/series", f"--web.listen-address=127.0.0.1:{port}"],
            stdout=self.log, stderr=self.log,
        )

    def get(self, path, **parameters):
        query = urllib.parse.urlencode(parameters)
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{query}", timeout=600) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{path} {parameters}: {error.read().decode()}") from None

    def alerts(self):
        return {alert["labels"]["alertname"]: alert["state"] for alert in self.get("alerts")["alerts"]}

    def numbers(self, expression):
        """The series that have a number now."""
        result = self.get("query", query=expression)["result"]
        return [series for series in result if math.isfinite(float(series["value"][1]))]

    def end(self):
        self.process.terminate()
        self.process.wait(600)
        self.log.close()
        self.held.close()


def wait_until(claim, condition, seconds=600):
    end = time.monotonic() + seconds
    while True:
        try:
            if condition():
                return
        except (OSError, AssertionError, IndexError):
            pass
        assert time.monotonic() < end, f"after {seconds} s not: {claim}"
        time.sleep(0.2)


def work(service):
    """Something of everything that the dashboard shows."""
    service.population("keyboards")
    run = service.run(rounds=3, privacy={"mode": "central", "noise_multiplier": 20})
    clients = service.clients(3)
    service.round(clients[:2], run)
    refused = service.assignment(clients[2])
    try:
        service.deliver(clients[2], refused, values=(1, 2, 3, float("nan")))
        raise SystemExit("an update that is not finite was accepted")
    except Refused as error:
        assert error.status == 422, error
    try:
        service.call("GET", "/v1/runs", token="a-guess")
        raise SystemExit("a guessed token was taken")
    except Refused as error:
        assert error.status == 401, error
    service.round(clients[:2], run)
    # Less than a tenth is left.
    spent = service.call("GET", "/v1/populations/keyboards")["budget"]["spent_epsilon"]
    service.call("PATCH", "/v1/populations/keyboards/budget", {"epsilon": 1.05 * spent, "reason": "less is enough"})


def main(binary, program=None):
    panels = dashboard()
    print(f"dashboard: {len(panels)} panels")
    program = program or shutil.which("prometheus")
    if not program:
        print("skipped: there is no prometheus to ask the panels' expressions of (apt-get install prometheus)")
        return
    with tempfile.TemporaryDirectory() as directory:
        token = os.path.join(directory, "token")
        with Service(binary, arguments=["--set", f"viewer_token_file={token}"]) as service:
            prometheus = Prometheus(program, directory, urllib.parse.urlparse(service.address).netloc, token)
            try:
                check(service, prometheus, panels)
            except BaseException:
                with open(prometheus.log.name) as log:
                    print(log.read()[-3000:], file=sys.stderr)
                raise
            finally:
                prometheus.end()


def check(service, prometheus, panels):
    target = lambda: prometheus.get("targets")["activeTargets"][0]
    wait_until("Prometheus reads the server's metrics", lambda: target()["health"] == "up")
    # A rate needs a reading before and two after.
    wait_until("the counters' first reading", lambda: prometheus.numbers('martlet_updates_total{outcome="accepted"}'))
    work(service)

    empty = {}

    def all_numbers():
        empty.clear()
        for panel in panels:
            for letter in panel["targets"]:
                if not prometheus.numbers(letter["expr"]):
                    empty[f"{panel['title']} {letter['refId']}"] = letter["expr"]
        return not empty

    try:
        wait_until("every panel has numbers", all_numbers)
    except AssertionError as error:
        raise AssertionError(f"{error}: {empty}") from None
    expressions = sum(len(panel["targets"]) for panel in panels)

    rules = [rule for group in prometheus.get("rules")["groups"] for rule in group["rules"]]
    wrong = [(rule["name"], rule["health"], rule.get("lastError")) for rule in rules if rule["health"] != "ok"]
    assert rules and not wrong, f"rules that do not evaluate: {wrong}"
    wait_until("MartletBudgetNearlySpent fires", lambda: prometheus.alerts().get("MartletBudgetNearlySpent") == "firing")
    # What else is up is this machine's disk at the most.
    assert set(prometheus.alerts()) <= {"MartletBudgetNearlySpent", "MartletDiskFillsUp"}, prometheus.alerts()
    service.kill()
    wait_until("MartletDown is pending", lambda: prometheus.alerts().get("MartletDown") == "pending")
    print(f"prometheus: target up, {len(rules)} rules evaluate, {expressions} expressions have numbers, "
          "MartletBudgetNearlySpent fires, MartletDown is pending after the server's end")


if __name__ == "__main__":
    main(*sys.argv[1:])
