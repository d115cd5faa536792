"""Sessions with `martlet helper serve`, driven by Python alone: numpy, cryptography 48 or newer, and http.client.

Usage: helper_session.py MARTLET [session | kills | wrong]

`session` plays server and devices of a private round and of one without noise; `kills` ends the helper at each point at which a death
would part what belongs together; `wrong` sends keys, lists and documents that are not right. Nothing here is shared with the helper's code.
"""

import base64
import hashlib
import http.client
import json
import os
import secrets
import signal
import struct
import subprocess
import sys
import tempfile
from urllib.parse import urlparse

import numpy as np
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.serialization import load_pem_public_key

PATIENCE = 600
SUITE = hpke.Suite(hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)
DEVIATION = 158_398_431_641_600**0.5


def lp(text):
    return struct.pack(">I", len(text.encode())) + text.encode()


class Helper:
    """A helper's process on a directory of its own."""

    def __init__(self, binary, directory=None):
        self.binary = binary
        self.directory = directory or tempfile.mkdtemp(prefix="martlet-helper-")
        self.process = None

    def start(self, die_at=None):
        """Starts, and says whether it came to listening."""
        environment = {name: value for name, value in os.environ.items() if name != "MARTLET_DIE_AT_POINT"}
        if die_at:
            environment["MARTLET_DIE_AT_POINT"] = str(die_at)
        self.process = subprocess.Popen(
            [self.binary, "helper", "serve", "--data-dir", self.directory, "--listen", "127.0.0.1:0"],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment, text=True)
        line = self.process.stdout.readline()
        if not line:
            self.process.wait(PATIENCE)
            return False
        self.address = urlparse(line.split()[-1])
        self.admin = open(self.directory + "/admin-token").read().strip()
        return True

    def stop(self, number=signal.SIGTERM):
        if self.process and self.process.poll() is None:
            self.process.send_signal(number)
            self.process.wait(PATIENCE)

    def ask(self, method, path, body=None, token=None, headers=None):
        """(status, headers, bytes); raises OSError or HTTPException where the helper dies."""
        connection = http.client.HTTPConnection(self.address.hostname, self.address.port, timeout=PATIENCE)
        try:
            fields = {"Authorization": "Bearer " + (token or self.admin), **(headers or {})}
            if isinstance(body, dict):
                body = json.dumps(body).encode()
                fields["Content-Type"] = "application/json"
            connection.request(method, path, body=body, headers=fields)
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def document(self, method, path, body=None, token=None):
        status, _, data = self.ask(method, path, body, token)
        assert status in (200, 201), (method, path, status, data[:500])
        return json.loads(data)

    def domain(self, name="keyboards", epsilon=100.0, server="srv_1"):
        body = {"name": name, "policy": {"minimum": 2, "maximum": 100}}
        if epsilon:
            body["budget"] = {"epsilon": epsilon, "delta": 1e-5}
        self.document("POST", "/v1/helper/domains", body)
        return self.token(name, server)

    def token(self, domain="keyboards", server="srv_1"):
        return self.document("POST", f"/v1/helper/domains/{domain}/tokens", {"server": server})["token"]


def terms(run="run_1", round=1, attempt=1, purpose="training", coordinates=1000, noise=True, **more):
    norm = int(DEVIATION) if noise else 1_000_000
    fields = {
        "purpose": purpose, "run": run, "round": round, "attempt": attempt,
        "model": hashlib.sha256(b"model").hexdigest(), "instructions": hashlib.sha256(b"instructions").hexdigest(),
        "bits": 32, "coordinates": coordinates, "step": 1.3125 * 2.0**-20, "coordinate_bound": 1_000_000, "norm": norm,
        "noise": "gaussian" if noise else "none", "noise_deviation": DEVIATION if noise else 0, "measure": "l2",
        "minimum": 2, "maximum": 100, "max_participations": 1000,
    }
    return {**fields, **more}


def compute_document(fields, view, public, server="srv_1", domain="keyboards"):
    """D as a device computes it: of what it asked for and knows itself, never of what the server says that D is."""
    purposes = {"training": 1, "evaluation": 2, "histogram": 3, "prefix_counts": 4}
    document = base64.b64decode(view["document"])
    expires = document[-8:]
    return (
        b"martlet-helper/1" + bytes([purposes[fields["purpose"]]]) + lp(server) + lp(domain) + lp(fields["run"])
        + struct.pack(">II", fields["round"], fields["attempt"])
        + bytes.fromhex(fields["model"]) + bytes.fromhex(fields["instructions"]) + bytes([fields["bits"]])
        + struct.pack(">QdQQd", fields["coordinates"], fields["step"], fields["coordinate_bound"], fields["norm"],
                      fields["noise_deviation"])
        + bytes([{"l1": 1, "l2": 2}[fields["measure"]], {"none": 0, "gaussian": 1, "laplace": 2}[fields["noise"]]])
        + struct.pack(">III", fields["minimum"], fields["maximum"], fields["max_participations"])
        + public + expires
    )


class Session:
    def __init__(self, helper, token, fields, server="srv_1", domain="keyboards"):
        self.helper, self.token, self.fields = helper, token, fields
        self.view = helper.document("POST", "/v1/helper/sessions", fields, token)
        raw = base64.b64decode(self.view["document"])
        self.public = raw[-8 - 1216:-8]
        self.document = compute_document(fields, self.view, self.public, server, domain)
        assert self.document == raw, "the document is not what was asked for"
        self.id = hashlib.sha256(raw).digest()
        assert self.id.hex() == self.view["session"]
        self.path = "/v1/helper/sessions/" + self.view["session"]

    def verify(self, pinned):
        pinned.verify(base64.b64decode(self.view["grant"]), lp("martlet-helper/1 grant") + self.id)

    def seal(self, seed, pseudonym, session=None):
        recipient = hpke.MLKEM768X25519PublicKey(
            MLKEM768PublicKey.from_public_bytes(self.public[:1184]), X25519PublicKey.from_public_bytes(self.public[1184:]))
        return SUITE.encrypt(seed, recipient, b"martlet-helper/1 seal" + (session or self.id) + pseudonym)

    def sum(self, entries):
        return self.helper.ask("POST", self.path + "/sum", b"".join(sorted(entries)), self.token)


def stream(seed, count):
    data = Cipher(algorithms.AES(seed), modes.CTR(bytes(16))).encryptor().update(bytes(4 * count))
    return np.frombuffer(data, dtype="<u4")


class Device:
    def __init__(self, session, values, pseudonym=None):
        self.pseudonym = pseudonym or secrets.token_bytes(32)
        self.seed = secrets.token_bytes(32)
        self.values = np.asarray(values, dtype=np.int64)
        self.masked = (self.values.astype(np.uint32) + stream(self.seed, len(self.values))).astype(np.uint32)
        self.entry = self.pseudonym + session.seal(self.seed, self.pseudonym)
        assert len(self.entry) == 1200


def devices(session, count, generator):
    d = session.fields["coordinates"]
    return [Device(session, generator.integers(-1000, 1001, d)) for _ in range(count)]


def unmask(members, data):
    total = np.zeros(len(data) // 4, dtype=np.uint32)
    for member in members:
        total += member.masked
    return (total - np.frombuffer(data, dtype="<u4")).astype(np.int32).astype(np.int64)


def code(answer):
    return answer[0], json.loads(answer[2])["code"]


def pinned_key(helper):
    """As a device's operator takes it from the helper's."""
    command = [helper.binary, "helper", "keys", "--server", helper.address.geturl()]
    pem = subprocess.run(command, check=True, capture_output=True, env={**os.environ, "MARTLET_TOKEN": helper.admin}).stdout
    key = load_pem_public_key(pem)
    assert isinstance(key, Ed25519PublicKey)
    return key


# MARK: - What goes well


def session(binary):
    generator = np.random.default_rng(20)
    helper = Helper(binary)
    assert helper.start()
    token, plain_token = helper.domain(), helper.domain("plain", None)
    key = pinned_key(helper)

    # Without noise: the sum of the integers, to the bit.
    plain = Session(helper, plain_token, terms(noise=False), domain="plain")
    plain.verify(key)
    members = devices(plain, 5, generator)
    status, headers, data = plain.sum([member.entry for member in members])
    assert status == 200 and int(headers["content-length"]) == 4000
    assert headers["repr-digest"] == f"sha-256=:{base64.b64encode(hashlib.sha256(data).digest()).decode()}:"
    assert (unmask(members, data) == sum(member.values for member in members)).all()

    # With noise: two of a hundred devices, noise of the full size. 8 deviations of the estimate: false alarm under 1e-14.
    count = 40_000
    private = Session(helper, token, terms(coordinates=count))
    private.verify(key)
    members = devices(private, 2, generator)
    status, _, data = private.sum([member.entry for member in members])
    assert status == 200
    noise = unmask(members, data) - sum(member.values for member in members)
    assert abs(noise.std() / DEVIATION - 1) < 8 / (2 * count) ** 0.5, noise.std()
    assert abs(noise.mean()) < 8 * DEVIATION / count**0.5

    # The same list has the same bytes, also in parts; another list has none; then it is deleted.
    again = private.sum([member.entry for member in members])
    assert again[0] == 200 and again[2] == data
    status, headers, part = helper.ask("GET", private.path + "/sum", None, token, {"Range": "bytes=100-199"})
    assert status == 206 and part == data[100:200] and headers["content-range"] == f"bytes 100-199/{4 * count}"
    assert code(private.sum([member.entry for member in devices(private, 2, generator)])) == (409, "session_spent")
    assert helper.ask("DELETE", private.path + "/sum", None, token)[0] == 204
    assert code(helper.ask("GET", private.path + "/sum", None, token)) == (410, "session_expired")

    # The ledger's export holds, and says Σ*/K.
    environment = {**os.environ, "MARTLET_TOKEN": helper.admin, "MARTLET_URL": helper.address.geturl()}
    exported = subprocess.run([binary, "helper", "ledger", "export", "keyboards"], check=True, capture_output=True, env=environment)
    rows = json.loads(exported.stdout)["rows"]
    charge = json.loads(rows[-1]["event"])
    assert rows[-1]["state"] == "committed" and charge["noiseMultiplier"] == DEVIATION / private.fields["norm"], charge
    verified = subprocess.run([binary, "privacy", "verify-ledger", "-"], input=exported.stdout, capture_output=True)
    assert verified.returncode == 0, verified.stdout
    status = subprocess.run([binary, "helper", "status"], check=True, capture_output=True, text=True, env=environment).stdout
    assert "keyboards: epsilon 100" in status and "plain: no noise" in status, status
    assert subprocess.run([binary, "health", "--data-dir", helper.directory], capture_output=True).returncode == 0
    assert b"martlet_helper_sessions_total" in helper.ask("GET", "/metrics")[2]
    helper.stop()
    assert helper.process.returncode == 0


# MARK: - What is wrong


def wrong(binary):
    generator = np.random.default_rng(21)
    helper = Helper(binary)
    assert helper.start()
    token = helper.domain()
    stranger = helper.token(server="srv_2")
    other_domain = helper.domain("voices")
    key = pinned_key(helper)
    first = Session(helper, token, terms())
    second = Session(helper, token, terms(round=2))
    measured = Session(helper, token, terms(purpose="evaluation"))
    foreign = Session(helper, other_domain, terms(), domain="voices")
    members = devices(first, 4, generator)

    # Every bit of a grant, and every byte of the document, counts.
    raw = base64.b64decode(first.view["document"])
    grant = base64.b64decode(first.view["grant"])
    for place in [*range(250), *range(250, len(raw), 37), len(raw) - 1]:
        changed = raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1:]
        try:
            key.verify(grant, lp("martlet-helper/1 grant") + hashlib.sha256(changed).digest())
            raise AssertionError(f"byte {place} of the document does not count")
        except InvalidSignature:
            pass
    other = Helper(binary)
    assert other.start()
    try:
        pinned_key(other).verify(grant, lp("martlet-helper/1 grant") + first.id)
        raise AssertionError("another helper's key verifies the grant")
    except InvalidSignature:
        pass
    other.stop()

    # Seeds of another session, round, purpose and domain; swapped, flipped and truncated ones: all are named in one answer.
    bad = [device.entry for one in (second, measured, foreign) for device in devices(one, 1, generator)]
    swapped = [members[0].pseudonym + members[1].entry[32:], members[1].pseudonym + members[0].entry[32:]]
    flipped = bytearray(members[2].entry)
    flipped[1199] ^= 128
    broken_key = bytearray(devices(first, 1, generator)[0].entry)
    broken_key[40] ^= 1
    entries = sorted([*bad, *swapped, bytes(flipped), bytes(broken_key), members[3].entry])
    status, _, data = first.sum(entries)
    answer = json.loads(data)
    assert (status, answer["code"]) == (422, "seeds_unopened"), answer
    assert answer["entries"] == [place for place, entry in enumerate(entries) if entry != members[3].entry], answer

    # Lists of another form.
    good = sorted(member.entry for member in members)
    for body, expected in [
        (b"", "cohort_too_small"), (good[0], "cohort_too_small"), (b"".join(good)[:-1], "invalid_list"),
        (b"".join(good) + b"\x01", "invalid_list"), (b"".join(reversed(good)), "invalid_list"),
        (good[0] * 2, "duplicate_pseudonym"), (b"".join(sorted(secrets.token_bytes(1200) for _ in range(101))), "cohort_too_large"),
        # The attack on weights: an entry with one more field, for weights 1 and 256, is no list.
        (b"".join(entry + struct.pack("<I", 256) for entry in good), "invalid_list"),
    ]:
        answer = helper.ask("POST", first.path + "/sum", body, token)
        assert code(answer) == (422, expected), (expected, answer)

    # Others' sessions, unknown ones, and a session asked twice with other members.
    for path in (first.path, "/v1/helper/sessions/" + "0" * 64):
        for asking in (stranger, other_domain):
            assert code(helper.ask("GET", path, None, asking)) == (404, "session_unknown")
            assert code(helper.ask("POST", path + "/sum", b"".join(good), asking)) == (404, "session_unknown")
            assert code(helper.ask("DELETE", path, None, asking)) == (404, "session_unknown")
    assert helper.ask("GET", first.path, None, "wrong")[0] == 401
    assert first.sum(good)[0] == 200
    assert code(first.sum(good[:3])) == (409, "session_spent")
    assert code(helper.ask("POST", "/v1/helper/sessions", terms(), token)) == (409, "attempt_conflict")
    assert code(helper.ask("POST", "/v1/helper/sessions", terms(attempt=2), token)) == (409, "attempt_conflict")

    # A stale session: given up, and then asked for.
    assert helper.ask("DELETE", second.path, None, token)[0] == 204
    late = devices(second, 2, generator)
    assert code(second.sum([member.entry for member in late])) == (410, "session_expired")

    # Cohorts beyond what the helper's policy admits, and noise under its least.
    for change in ({"minimum": 1}, {"maximum": 101}, {"norm": 3 * int(DEVIATION)}, {"noise": False}):
        assert code(helper.ask("POST", "/v1/helper/sessions", terms(round=9, **change), token)) == (403, "policy_refused"), change
    helper.stop()


# MARK: - Deaths


def kills(binary):
    """The helper dies at each of its points in turn. At most one sum is ever seen, repeats are equal to the byte, no charge is lost,
    and the session's key is gone before a sum is seen."""
    generator = np.random.default_rng(22)
    point, deaths = 0, 0
    while True:
        point += 1
        helper = Helper(binary)
        assert helper.start()
        token = helper.domain()
        helper.stop()
        died = not helper.start(die_at=point)
        if died:
            assert helper.start()
        fields, sums, members, asked = terms(coordinates=64), set(), None, None
        for _ in range(6):
            try:
                asked = asked or Session(helper, token, fields)
                members = members or devices(asked, 2, generator)
                status, _, data = asked.sum([member.entry for member in members])
                if status == 200:
                    assert not os.path.exists(f"{helper.directory}/keys/{asked.view['session']}.key"), point
                    sums.add(data)
                    helper.stop(signal.SIGKILL)
                    assert helper.start()
                    continue
                raise AssertionError((point, status, data))
            except (OSError, http.client.HTTPException):
                died = True
                helper.process.wait(PATIENCE)
                assert helper.process.returncode == -signal.SIGKILL, helper.process.returncode
                assert helper.start()
        assert len(sums) == 1, (point, len(sums))
        noise = unmask(members, sums.pop()) - sum(member.values for member in members)
        assert 0 < abs(noise).max() < 10 * DEVIATION
        assert code(asked.sum([member.entry for member in devices(asked, 3, generator)])) == (409, "session_spent")
        ledger = helper.document("GET", "/v1/helper/domains/keyboards/ledger")
        states = [row["state"] for row in ledger["rows"]]
        # The budget, one reservation, one commit.
        assert states == ["committed", "reserved", "committed"], (point, states)
        assert ledger["spent_epsilon"] > 1
        assert os.listdir(helper.directory + "/keys") == [] and len(os.listdir(helper.directory + "/sums")) == 1
        helper.stop()
        deaths += died
        if not died:
            break
    # Around the grant's and the sum's transactions, the record's file, the sum's file and the key's.
    assert deaths >= 10, deaths
    print(f"{deaths} deaths")


if __name__ == "__main__":
    {"session": session, "wrong": wrong, "kills": kills}[sys.argv[2] if len(sys.argv) > 2 else "session"](sys.argv[1])
