"""Rounds through a helper: `martlet serve` and `martlet helper serve` as they are, with devices that are written here, or real ones.

Usage: masked_round.py MARTLET [plain | private | clients]

`plain` and `private` play the devices of a round by hand, with numpy and cryptography alone: they check the grant, mask a vector, seal
the seed, and upload one file. `clients` runs three `martlet client` on small texts, with noise, and a fourth one whose key is another
helper's. Nothing of the devices is shared with the program's code.
"""

import base64
import hashlib
import os
import secrets
import struct
import subprocess
import sys
import tempfile

import numpy as np
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from helper_session import PATIENCE, SUITE, Helper, lp, pinned_key
from service import Refused, Service, safetensors, wait_until

MASKED = "application/vnd.martlet.masked-update"


class Parties:
    """A helper with one domain, and a server that uses it."""

    def __init__(self, binary, domain, epsilon, minimum=2):
        self.binary = binary
        self.helper = Helper(binary)
        assert self.helper.start()
        token = self.helper.domain(domain, epsilon)
        self.files = tempfile.mkdtemp(prefix="martlet-parties-")
        self.key_file = self.write("helper.pub", self.public_key(self.helper))
        arguments = []
        for name, value in [("helper_url", self.helper.address.geturl()), ("helper_key", self.key_file),
                            ("helper_token_file", self.write("helper.token", token))]:
            arguments += ["--set", f"{name}={value}"]
        self.server = Service(binary, arguments=arguments)
        self.key = pinned_key(self.helper)

    def write(self, name, text):
        path = os.path.join(self.files, name)
        with open(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600), "w") as file:
            file.write(text)
        return path

    def public_key(self, helper):
        command = [self.binary, "helper", "keys", "--server", helper.address.geturl()]
        environment = {**os.environ, "MARTLET_TOKEN": helper.admin}
        return subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.__exit__()
        self.helper.stop()


class Document:
    """The fields of a session document, read in the order in which the protocol has them."""

    def __init__(self, data):
        self.session = hashlib.sha256(data).digest()
        assert data[:16] == b"martlet-helper/1"
        self.place, self.data = 16, data
        self.purpose = self.take(">B")
        self.server, self.domain, self.run = self.text(), self.text(), self.text()
        self.round, self.attempt = self.take(">I"), self.take(">I")
        self.model, self.instructions = self.bytes(32), self.bytes(32)
        self.bits, self.coordinates, self.step = self.take(">B"), self.take(">Q"), self.take(">d")
        self.bound, self.norm, self.deviation = self.take(">Q"), self.take(">Q"), self.take(">d")
        self.measure, self.noise = self.take(">B"), self.take(">B")
        self.minimum, self.maximum, self.participations = self.take(">I"), self.take(">I"), self.take(">I")
        self.public, self.expires = self.bytes(1216), self.take(">Q")
        assert self.place == len(data), "the document has bytes behind its end"

    def take(self, form):
        return struct.unpack(form, self.bytes(struct.calcsize(form)))[0]

    def bytes(self, count):
        self.place += count
        return self.data[self.place - count:self.place]

    def text(self):
        return self.bytes(self.take(">I")).decode()


def masked_file(document, values, pseudonym):
    """`pseudonym ‖ sealed ‖ safetensors` of one device's vector."""
    integers = np.rint(np.asarray(values, dtype=np.float64) / document.step).astype(np.int64)
    assert np.abs(integers).max() <= document.bound
    assert sum(int(value) ** 2 for value in integers) <= document.norm ** 2
    word = np.dtype(f"<u{document.bits // 8}")
    seed = secrets.token_bytes(32)
    stream = Cipher(algorithms.AES(seed), modes.CTR(bytes(16))).encryptor().update(bytes(word.itemsize * len(integers)))
    masked = integers.astype(np.int64).view(np.uint64).astype(word) + np.frombuffer(stream, dtype=word)
    recipient = hpke.MLKEM768X25519PublicKey(
        MLKEM768PublicKey.from_public_bytes(document.public[:1184]),
        X25519PublicKey.from_public_bytes(document.public[1184:]))
    sealed = SUITE.encrypt(seed, recipient, b"martlet-helper/1 seal" + document.session + pseudonym)
    header = (f'{{"masked":{{"dtype":"U{document.bits}","shape":[{len(integers)}],'
              f'"data_offsets":[0,{masked.nbytes}]}}}}').encode()
    header += b" " * (-len(header) % 8)
    return pseudonym + sealed + struct.pack("<Q", len(header)) + header + masked.tobytes()


def weights(server, run, version, count):
    import urllib.request
    request = urllib.request.Request(server.address + f"/v1/runs/{run}/models/{version}/weights")
    request.add_header("Authorization", "Bearer " + server.admin)
    data = urllib.request.urlopen(request, timeout=PATIENCE).read()
    return np.frombuffer(data[-4 * count:], dtype="<f4").astype(np.float64)


def by_hand(binary, private):
    generator = np.random.default_rng(20)
    with Parties(binary, "keyboards", 900 if private else None) as parties:
        server = parties.server
        server.population("keyboards", 900 if private else None)
        privacy = {"mode": "central", "noise_multiplier": 1.0, "clipping": {"norm": 1.0}} if private else {"mode": "none"}
        run = server.run({
            "name": "masked", "population": "keyboards", "rounds": 2, "model": {"architecture": "external"},
            "cohort": {"goal": 3, "minimum": 2, "over_selection": 1.0, "max_participations": 5, "selection_timeout_s": 600,
                       "report_timeout_s": 600},
            "aggregation": {"weighting": "uniform"}, "privacy": privacy,
            "protection": {"kind": "helper", "domain": "keyboards"},
        })
        clients = server.clients(3)
        pseudonyms = [secrets.token_bytes(32) for _ in clients]
        expected = np.zeros(4)
        for number in (1, 2):
            updates = generator.uniform(-0.4, 0.4, (3, 4))
            for client, pseudonym, values in zip(clients, pseudonyms, updates):
                work = server.assignment(client)
                protection = work["protection"]
                data = base64.b64decode(protection["document"])
                document = Document(data)
                parties.key.verify(base64.b64decode(protection["grant"]), lp("martlet-helper/1 grant") + document.session)
                assert (document.purpose, document.domain, document.run) == (1, "keyboards", run)
                assert (document.round, document.attempt) == (number, 1)
                assert document.model.hex() == work["model"]["sha256"]
                assert (document.coordinates, document.minimum, document.maximum) == (4, 2, 3)
                assert (document.noise == 1) == private and document.bits == (64 if private else 32)
                file = masked_file(document, values, pseudonym)
                for body, kind, code in [
                    (safetensors(values, {"base": work["model"]["sha256"]}), "application/vnd.safetensors", None),
                    (file + b" ", MASKED, "length_mismatch"),
                ][:1 if number == 2 else 0]:
                    try:
                        server.call("PUT", work["update_url"], body, client, kind)
                        raise AssertionError("an update that is not masked was taken")
                    except Refused as refusal:
                        assert refusal.status in (415, 422), refusal
                        break
                else:
                    receipt = server.call("PUT", work["update_url"], file, client, MASKED)
                    assert receipt["sha256"] == hashlib.sha256(file).hexdigest()
                    again = server.call("PUT", work["update_url"], file, client, MASKED)
                    assert again["sha256"] == receipt["sha256"]
            if number == 1:
                path = f"/v1/runs/{run}/rounds/{number}"
                wait_until("the round is committed", lambda: server.call("GET", path)["state"] == "committed", pause=0.05)
                expected += updates.mean(axis=0)
                found = weights(server, run, 1, 4)
                if private:
                    # √2·z·C/goal of noise a coordinate: eight deviations, a false alarm in 10¹⁴.
                    limit, least = 8 * 2**0.5 / 3, 1e-9
                    assert np.abs(found - expected).max() < limit, (found, expected)
                    assert np.abs(found - expected).max() > least, "there is no noise"
                else:
                    assert np.abs(found - expected).max() < 1e-6, (found, expected)
        spool = [name for name in os.listdir(server.directory + "/spool") if ".update" in name]
        assert not [name for name in spool if name.startswith("run_")], spool
        if private:
            ledger = server.call("GET", "/v1/populations/keyboards/ledger")
            assert "committed" in str(ledger), ledger
    print("passed:", "private" if private else "plain")


def real_clients(binary):
    with Parties(binary, "keyboards", 900) as parties:
        server = parties.server
        server.population("keyboards", 900)
        other = Helper(binary)
        assert other.start()
        wrong_key = parties.write("other.pub", parties.public_key(other))
        other.stop()
        body = {
            "name": "masked", "population": "keyboards", "rounds": 2,
            "model": {"architecture": "cifg-lstm", "config": {"embedding_dim": 8, "hidden_dim": 8}},
            "cohort": {"goal": 3, "minimum": 2, "over_selection": 1.0, "max_participations": 5, "selection_timeout_s": 600,
                       "report_timeout_s": 600},
            "aggregation": {"weighting": "uniform"},
            "privacy": {"mode": "central", "noise_multiplier": 0.5, "clipping": {"norm": 1.0}},
            "protection": {"kind": "helper", "domain": "keyboards"},
        }
        run = server.call("POST", "/v1/runs", body)["id"]
        server.call("POST", f"/v1/runs/{run}/start", {})
        token = server.call("POST", "/v1/populations/keyboards/enrollment-tokens", {"max_uses": 10})["token"]

        def client(number, key):
            text = parties.write(f"text-{number}.txt", f"the bird {number} sings in the tree\n" * 40)
            return subprocess.Popen(
                [binary, "client", "--server", server.address, "--enrollment-token", token, "--data", text, "--once", "--json",
                 "--state-dir", os.path.join(parties.files, f"state-{number}"), *(["--helper-key", key] if key else [])],
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

        stranger = client(9, wrong_key)
        said, _ = stranger.communicate(timeout=PATIENCE)
        assert "privacy_refused" in said, said[-2000:]
        without = client(8, None)
        said, _ = without.communicate(timeout=PATIENCE)
        assert "privacy_refused" in said or "helper" in said, said[-2000:]
        path = f"/v1/runs/{run}/rounds"
        for number in (1, 2):
            # The second time in the same state directories: a device keeps its pseudonym.
            wait_until("the round is open", lambda: any(
                entry["number"] == number for entry in server.call("GET", path)["items"]), pause=0.1)
            members = [client(place, parties.key_file) for place in range(3)]
            for member in members:
                said, _ = member.communicate(timeout=PATIENCE)
                assert member.returncode == 0 and "accepted" in said, said[-2000:]
        wait_until("the run is over", lambda: server.call("GET", f"/v1/runs/{run}")["state"] == "completed", pause=0.2)
        rounds = server.call("GET", f"/v1/runs/{run}/rounds")["items"]
        assert [entry["accepted"] for entry in rounds if entry["state"] == "committed"] == [3, 3], rounds
    print("passed: clients")


if __name__ == "__main__":
    parts = {"plain": lambda binary: by_hand(binary, False), "private": lambda binary: by_hand(binary, True), "clients": real_clients}
    binary, names = sys.argv[1], sys.argv[2:] or list(parts)
    for name in names:
        parts[name](binary)
