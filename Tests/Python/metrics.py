"""Every metric that a server defines must move when what it measures happens.

Usage: metrics.py MARTLET

Three servers, one with TLS, live through a private run, a refused update, slow and hostile callers and a full disk; the
metrics are read before, in between and after. Fails with the names of those that never changed, or have no value.
"""

import os
import re
import resource
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from urllib.parse import urlparse

from service import PATIENCE, Refused, Service, safetensors, wait_until

# What stays as it is while a server runs: these must have a value that can be true.
CONSTANT = {"process_max_fds", "process_start_time_seconds", "martlet_disk_size_bytes", "martlet_build_info",
            "martlet_privacy_delta", "martlet_privacy_epsilon_limit", "martlet_tls_certificate_expiry_timestamp_seconds"}
# Labels by which an operator tells things apart.
LABELLED = {
    "martlet_rounds_total": 'outcome="committed"', "martlet_updates_total": 'outcome="accepted"',
    "martlet_update_refusals_total": 'code="not_finite"', "martlet_checkins_total": 'outcome="assigned"',
    "martlet_aggregation_seconds": 'phase="fold"', "martlet_clients": 'population="keyboards"', "martlet_runs": 'state="running"',
    "martlet_privacy_epsilon_spent": 'population="keyboards"', "martlet_privacy_epsilon_remaining": 'population="keyboards"',
    "martlet_sqlite_bytes": 'file="database"', "martlet_http_requests_total": 'route="/v1/checkins"',
    "martlet_http_request_duration_seconds": 'route="/v1/checkins"', "martlet_http_connections_refused_total": 'reason="address"',
    "martlet_http_malformed_requests_total": 'status="400"', "martlet_rate_limited_total": 'scope="guesses"',
    "martlet_tls_handshakes_total": 'outcome="plain_http"', "martlet_build_info": 'version="',
}


class Meter:
    """The metrics of a server, each name with all its samples, and which names have moved between readings."""

    def __init__(self, read):
        self.read = read
        self.moved = set()
        self.last = {}
        self.defined = set()
        self.take()

    def take(self):
        text = self.read()
        self.defined |= set(re.findall(r"^# TYPE (\S+) ", text, re.M))
        samples = {}
        for line in text.splitlines():
            if line.startswith("#"):
                continue
            series, value = line.rsplit(" ", 1)
            name = series.split("{")[0]
            if name not in self.defined:
                name = re.sub("_(bucket|sum|count)$", "", name)
            samples.setdefault(name, {})[series] = float(value)
        # The first reading sees what was made at the start; what is only there since then has moved.
        for name, series in samples.items():
            if self.last and series != self.last.get(name):
                self.moved.add(name)
        self.last = samples
        return samples

    def value(self, name):
        return sum(self.last.get(name, {}).values())


def connect(service, source="127.0.0.1"):
    address = urlparse(service.address)
    return socket.create_connection((address.hostname, address.port), timeout=PATIENCE, source_address=(source, 0))


def answer(link, request):
    link.sendall(request)
    return link.recv(4000)


def head(method, path, token, more=""):
    return f"{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n{more}\r\n".encode()


def metrics_of(service):
    with connect(service) as link:
        link.sendall(head("GET", "/metrics", service.admin, "Connection: close\r\n"))
        text = b""
        while block := link.recv(1 << 16):
            text += block
    assert text.startswith(b"HTTP/1.1 200 "), text[:200]
    return text.split(b"\r\n\r\n", 1)[1].decode()


# A name that makes an update too long for two of them to be on their way.
LONG = "w" * 400


def a_private_run(service, meter):
    service.tensor = LONG
    service.population("keyboards")
    run = service.run(rounds=3, privacy={"mode": "central", "noise_multiplier": 20})
    clients = service.clients(4)
    meter.take()
    work = [(client, service.assignment(client)) for client in clients[:2]]
    meter.take()
    assert meter.value("martlet_assignments_open") == 2 and meter.value("martlet_privacy_epsilon_reserved") > 0, meter.last
    # The third waits for work that does not come.
    poll = connect(service)
    poll.sendall(head("POST", "/v1/checkins", clients[2], "Prefer: wait=60\r\nContent-Length: 2\r\n") + b"{}")
    wait_until("a long poll is counted", lambda: meter.take() and meter.value("martlet_long_polls") == 1)
    poll.close()
    wait_until("a long poll that hung up is not", lambda: meter.take() and meter.value("martlet_long_polls") == 0)
    # An update on its way, as many bytes as may be: another is told to come again.
    body = safetensors([0.1] * 4, {"base": work[0][1]["model"]["sha256"]}, service.tensor, size=work[0][1]["update_bytes"])
    slow = connect(service)
    slow.sendall(head("PUT", work[0][1]["update_url"], work[0][0],
                      f"Content-Type: application/vnd.safetensors\r\nContent-Length: {len(body)}\r\n") + body[:20])
    wait_until("bytes on their way", lambda: meter.take() and meter.value("martlet_uploads_in_flight_bytes") > 0)
    try:
        service.deliver(*work[1])
        raise AssertionError("an upload beyond limits.upload_bytes was taken")
    except Refused as refused:
        assert refused.status == 503 and "uploads_full" in refused.body, refused
    slow.sendall(body[20:])
    slow.recv(4000)
    wait_until("no bytes on their way", lambda: meter.take() and meter.value("martlet_uploads_in_flight_bytes") == 0)
    assert meter.value("martlet_spool_files") > 0 and meter.value("martlet_spool_bytes") > 0, "one update waits in the spool"
    service.deliver(*work[1])
    wait_until("a round", lambda: meter.take() and meter.last["martlet_rounds_total"]['martlet_rounds_total{outcome="committed"}'])
    assert meter.value("martlet_aggregations_running") == 0
    # A bad update.
    client, assignment = clients[3], service.assignment(clients[3])
    try:
        service.deliver(client, assignment, values=(float("nan"), 0, 0, 0))
        raise AssertionError("NaN was taken")
    except Refused as refused:
        assert refused.status == 422, refused
    return run


def a_client_that_is_held(service, meter):
    """Of two updates one is a hundred times as long and as heavy as the other."""
    service.population("plain", epsilon=None)
    service.run({
        "population": "plain", "rounds": 1, "model": {"architecture": "external"},
        "cohort": {"goal": 2, "minimum": 2, "over_selection": 1.0},
    })
    for client, value, examples in zip(service.clients(2, "plain"), (0.01, 1.0), (1, 100)):
        service.deliver(client, service.assignment(client), [value] * 4, {"num_examples": str(examples)})
    wait_until("a client is held", lambda: meter.take() and meter.value("martlet_updates_capped_total") == 2)


def a_long_aggregation(service, meter):
    """A million numbers with noise take long enough to be met at work, if not in one round then in another."""
    model = safetensors([0.0] * 1_000_000, shape=(1_000_000,))
    service.population("elaborate")
    run = service.call("POST", "/v1/runs", {
        "population": "elaborate", "rounds": 20, "model": {"architecture": "external"},
        "cohort": {"goal": 1, "minimum": 1, "over_selection": 1.0, "report_timeout_s": 600, "max_participations": 20},
        "privacy": {"mode": "central", "noise_multiplier": 200},
    })["id"]
    service.call("PUT", f"/v1/runs/{run}/model", model, kind="application/vnd.safetensors")
    service.call("POST", f"/v1/runs/{run}/start", {})
    [client] = service.clients(1, "elaborate")
    is_met, committed = False, 0
    while not is_met:
        work = service.assignment(client)
        update = safetensors([0.0] * 1_000_000, {"base": work["model"]["sha256"]}, shape=(1_000_000,), size=work["update_bytes"])
        service.call("PUT", work["update_url"], update, token=client, kind="application/vnd.safetensors")
        committed += 1
        assert committed <= 20, "no aggregation was met at work"
        while not is_met and service.call("GET", f"/v1/runs/{run}")["committed_rounds"] < committed:
            is_met = bool(meter.take()) and meter.value("martlet_aggregations_running") == 1
    wait_until("an aggregation ends", lambda: meter.take() and meter.value("martlet_aggregations_running") == 0)
    service.call("POST", f"/v1/runs/{run}/cancel", {})


def hostile_callers(service, meter):
    # Guesses from an address that has one free.
    for expected in (b"401", b"429"):
        with connect(service, "127.0.0.2") as link:
            text = answer(link, head("GET", "/v1/runs", "guess"))
            assert text[9:12] == expected, text
    with connect(service, "127.0.0.2") as link:
        assert answer(link, b"GET / HTTP/1.1\nHost: x\r\n\r\n")[9:12] == b"400"
    with connect(service, "127.0.0.2") as link:
        assert answer(link, b"GET / HTTP/1.1\r\nX")[9:12] == b"408"
    crowd = []
    for _ in range(8):
        crowd.append(connect(service, "127.0.0.3"))
        answer(crowd[-1], b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    with connect(service, "127.0.0.3") as link:
        try:
            assert answer(link, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n") == b""
        except ConnectionResetError:
            pass
    meter.take()
    assert meter.value("martlet_http_connections") >= 9, "the open connections are counted"
    for link in crowd:
        link.close()
    wait_until("closed connections are counted out", lambda: meter.take() and meter.value("martlet_http_connections") <= 2)


def a_full_disk(service, meter):
    hard = resource.prlimit(service.process.pid, resource.RLIMIT_FSIZE)[1]
    resource.prlimit(service.process.pid, resource.RLIMIT_FSIZE, (1, hard))
    try:
        service.population("elsewhere", epsilon=0)
        raise AssertionError("nothing can be written, and a population was made")
    except Refused as refused:
        assert refused.status == 503 and "storage_failed" in refused.body, refused
    meter.take()
    resource.prlimit(service.process.pid, resource.RLIMIT_FSIZE, (hard, hard))
    service.population("elsewhere", epsilon=0)
    meter.take()


def a_disk_that_refuses(service, meter):
    """Directories in the places of files: what should be written there cannot be."""
    service.population("patient")
    run = service.run(population="patient", rounds=3)
    clients = service.clients(2, "patient")
    work = [(client, service.assignment(client)) for client in clients]
    record = os.path.join(service.directory, "ledger.head")
    os.rename(record, record + ".away")
    os.mkdir(record)
    service.call("PATCH", "/v1/populations/patient/budget", {"epsilon": 7})
    wait_until("the second record is behind", lambda: meter.take() and meter.value("martlet_ledger_record_behind") == 1)
    os.rmdir(record)
    os.rename(record + ".away", record)
    wait_until("the second record is kept", lambda: meter.take() and meter.value("martlet_ledger_record_behind") == 0)
    obstacle = os.path.join(service.directory, "spool", f"{run}-1-1.result")
    os.makedirs(obstacle + "/x")
    for client, assignment in work:
        service.deliver(client, assignment)
    wait_until("a round waits for the disk", lambda: meter.take() and meter.value("martlet_rounds_stalled") == 1)
    shutil.rmtree(obstacle)
    wait_until("the round goes on", lambda: meter.take() and meter.value("martlet_rounds_stalled") == 0)
    with open(record) as file:
        text = file.read()
    with open(record, "w") as file:
        file.write(re.sub(r'"sequence":\d+', '"sequence":9999', text))
    service.call("PATCH", "/v1/populations/patient/budget", {"epsilon": 6})
    wait_until("the ledger's alarm", lambda: meter.take() and meter.value("martlet_ledger_alarm") == 1)
    service.call("POST", "/v1/ledger/acknowledgement", {"reason": "a test"})
    wait_until("the alarm is over", lambda: meter.take() and meter.value("martlet_ledger_alarm") == 0)


class SlowUpload:
    """An upload that takes all the room of a server and stands still: once it has had it for 30 s, another's turn comes."""

    def __init__(self, binary):
        # With a shorter time-out the upload would be ended for its silence alone.
        settings = ("limits.upload_bytes=1KiB", "rate.exempt=127.0.0.1", "limits.transfer_timeout_s=3600")
        self.service = Service(binary, arguments=[word for setting in settings for word in ("--set", setting)])
        self.service.tensor = LONG
        self.service.population("keyboards")
        self.service.run()
        self.work = [(client, self.service.assignment(client)) for client in self.service.clients(2)]
        self.meter = Meter(lambda: metrics_of(self.service))
        client, assignment = self.work[0]
        body = safetensors([0.1] * 4, {"base": assignment["model"]["sha256"]}, self.service.tensor, size=assignment["update_bytes"])
        self.link = connect(self.service)
        self.link.sendall(head("PUT", assignment["update_url"], client,
                               f"Content-Type: application/vnd.safetensors\r\nContent-Length: {len(body)}\r\n") + body[:1])
        wait_until("a slow upload begins",
                   lambda: self.meter.take() and self.meter.value("martlet_uploads_in_flight_bytes") > 0)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.link.close()
        self.service.__exit__()

    def another_comes(self):
        try:
            self.service.deliver(*self.work[1])
            return True
        except Refused as refused:
            assert refused.status == 503 and "uploads_full" in refused.body, refused
        time.sleep(0.5)
        return False

    def give_way(self):
        wait_until("the slow upload gives way", self.another_comes)
        self.meter.take()
        assert self.meter.value("martlet_uploads_given_way_total") == 1
        return self.meter


def tls(binary, directory):
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout",
         directory + "/key.pem", "-out", directory + "/tls.pem", "-subj", "/CN=localhost", "-addext",
         "subjectAltName=IP:127.0.0.1", "-days", "5"], check=True, stderr=subprocess.DEVNULL)
    trust = ssl.create_default_context(cafile=directory + "/tls.pem")
    with Service(binary, arguments=["--tls-certificate", directory + "/tls.pem", "--tls-key", directory + "/key.pem"]) as service:
        def read():
            with trust.wrap_socket(connect(service), server_hostname="127.0.0.1") as link:
                link.sendall(head("GET", "/metrics", service.admin, "Connection: close\r\n"))
                text = b""
                while block := link.recv(1 << 16):
                    text += block
            return text.split(b"\r\n\r\n", 1)[1].decode()

        meter = Meter(read)
        with connect(service) as link:
            assert b"HTTPS" in answer(link, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        meter.take()
        expiry = meter.value("martlet_tls_certificate_expiry_timestamp_seconds")
        assert 4 * 86400 < expiry - time.time() < 6 * 86400, expiry
        return meter


def main(binary):
    arguments = []
    for setting in ("limits.head_timeout_s=0.5", "limits.upload_bytes=1KiB", "limits.connections_per_address=8",
                    "rate.exempt=127.0.0.1", "rate.guesses_burst=1", "rate.guesses_per_s=0.01"):
        arguments += ["--set", setting]
    with SlowUpload(binary) as slow, Service(binary, arguments=arguments) as service:
        meter = Meter(lambda: metrics_of(service))
        a_private_run(service, meter)
        a_long_aggregation(service, meter)
        a_client_that_is_held(service, meter)
        hostile_callers(service, meter)
        a_full_disk(service, meter)
        a_disk_that_refuses(service, meter)
        last = meter.take()
        crowded = slow.give_way()
    with tempfile.TemporaryDirectory() as directory:
        secure = tls(binary, directory)
    moved = meter.moved | crowded.moved | secure.moved
    # Series that are there from the start are 0 where only another server moved them.
    readings = [last, crowded.last, secure.last]
    samples = {name: {series: next((one[name][series] for one in readings if one.get(name, {}).get(series)), 0)
                      for series in set().union(*(one.get(name, {}) for one in readings))} for name in meter.defined}
    wrong = sorted(name for name in meter.defined if not samples[name])
    assert not wrong, f"defined and without a value: {wrong}"
    still = sorted(meter.defined - moved - CONSTANT)
    assert not still, f"never moved: {still}"
    zero = sorted(name for name in CONSTANT if not all(value > 0 for value in samples[name].values()))
    assert not zero, f"must be above zero: {zero}"
    unlabelled = sorted(name for name, label in LABELLED.items()
                        if not any(label in series and value for series, value in samples[name].items()))
    assert not unlabelled, f"without the label that tells things apart: {unlabelled}"
    left = {series: value for name in ("limit", "spent", "reserved", "remaining")
            for series, value in samples["martlet_privacy_epsilon_" + name].items() if "keyboards" in series}
    values = {re.search("epsilon_([a-z]+)", series)[1]: value for series, value in left.items()}
    assert 0 < values["spent"] < values["limit"] and values["remaining"] <= values["limit"] - values["spent"] + 1e-9, values
    print(f"{len(meter.defined)} metrics, {len(moved)} moved")


if __name__ == "__main__":
    main(sys.argv[1])
