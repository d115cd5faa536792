"""Every metric that a server defines must move when what it measures happens.

Usage: metrics.py MARTLET

Two servers, one with TLS, live through a private run, a refused update, slow and hostile callers and a full disk; the
metrics are read before, in between and after. Fails with the names of those that never changed, or have no value.
"""

import re
import resource
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from urllib.parse import urlparse

from service import Refused, Service, safetensors

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


def wait_until(claim, condition):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, claim
        time.sleep(0.01)


def connect(service, source="127.0.0.1"):
    address = urlparse(service.address)
    return socket.create_connection((address.hostname, address.port), timeout=20, source_address=(source, 0))


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


def a_private_run(service, meter):
    service.population("keyboards")
    run = service.run(rounds=3, privacy={"mode": "central", "noise_multiplier": 20})
    clients = service.clients(4)
    meter.take()
    work = [(client, service.assignment(client)) for client in clients[:2]]
    meter.take()
    assert meter.value("martlet_assignments_open") == 2 and meter.value("martlet_privacy_epsilon_reserved") > 0, meter.last
    # The third waits for work that does not come.
    poll = connect(service)
    poll.sendall(head("POST", "/v1/checkins", clients[2], "Prefer: wait=20\r\nContent-Length: 2\r\n") + b"{}")
    wait_until("a long poll is counted", lambda: meter.take() and meter.value("martlet_long_polls") == 1)
    poll.close()
    wait_until("a long poll that hung up is not", lambda: meter.take() and meter.value("martlet_long_polls") == 0)
    # An update on its way, as many bytes as may be: another is told to come again.
    padding = {"padding": "x" * 800}
    body = safetensors([0.1] * 4, padding)
    slow = connect(service)
    slow.sendall(head("PUT", work[0][1]["update_url"], work[0][0],
                      f"Content-Type: application/vnd.safetensors\r\nContent-Length: {len(body)}\r\n") + body[:20])
    wait_until("bytes on their way", lambda: meter.take() and meter.value("martlet_uploads_in_flight_bytes") > 0)
    try:
        service.deliver(*work[1], metadata=padding)
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


def a_long_aggregation(service, meter):
    """A million numbers with noise take long enough to be met at work."""
    model = safetensors([0.0] * 1_000_000, shape=(1_000_000,))
    service.population("elaborate")
    run = service.call("POST", "/v1/runs", {
        "population": "elaborate", "rounds": 1, "model": {"architecture": "external"},
        "cohort": {"goal": 1, "minimum": 1, "over_selection": 1.0, "report_timeout_s": 600},
        "privacy": {"mode": "central", "noise_multiplier": 20},
    })["id"]
    service.call("PUT", f"/v1/runs/{run}/model", model, kind="application/vnd.safetensors")
    service.call("POST", f"/v1/runs/{run}/start", {})
    [client] = service.clients(1, "elaborate")
    url = service.assignment(client)["update_url"]
    service.call("PUT", url, model, token=client, kind="application/vnd.safetensors")
    wait_until("an aggregation is met at work", lambda: meter.take() and meter.value("martlet_aggregations_running") == 1)
    wait_until("an aggregation ends", lambda: meter.take() and meter.value("martlet_aggregations_running") == 0)


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
    with Service(binary, arguments=arguments) as service:
        meter = Meter(lambda: metrics_of(service))
        a_private_run(service, meter)
        a_long_aggregation(service, meter)
        hostile_callers(service, meter)
        a_full_disk(service, meter)
        last = meter.take()
    with tempfile.TemporaryDirectory() as directory:
        secure = tls(binary, directory)
    moved = meter.moved | secure.moved
    # Series that are there from the start are 0 where only the other server moved them.
    both = [last, secure.last]
    samples = {name: {series: next((one[name][series] for one in both if one.get(name, {}).get(series)), 0)
                      for series in {*last.get(name, {}), *secure.last.get(name, {})}} for name in meter.defined}
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
