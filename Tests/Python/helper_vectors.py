"""Known answers for sums with a helper, made by a second implementation (cryptography 48 or newer).

    helper_vectors.py OUTPUT.json

Everything is fixed but the sealed seed, whose sender draws a key: it is made once and opened by the tests.
"""

import hashlib
import json
import struct
import sys

from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat


def lp(text):
    data = text.encode()
    return struct.pack(">I", len(data)) + data


def key_of(seed):
    """X-Wing: SHAKE-256 of the seed is the seed of ML-KEM-768 (64 bytes) and the scalar of X25519."""
    expanded = hashlib.shake_256(seed).digest(96)
    mlkem = MLKEM768PrivateKey.from_seed_bytes(expanded[:64])
    x25519 = X25519PrivateKey.from_private_bytes(expanded[64:])
    public = mlkem.public_key().public_bytes_raw() + x25519.public_key().public_bytes_raw()
    return hpke.MLKEM768X25519PrivateKey(mlkem, x25519), public


def document(fields, public):
    return (
        b"martlet-helper/1"
        + bytes([fields["purpose"]])
        + lp(fields["server"])
        + lp(fields["domain"])
        + lp(fields["run"])
        + struct.pack(">II", fields["round"], fields["attempt"])
        + bytes.fromhex(fields["model"])
        + bytes.fromhex(fields["instructions"])
        + bytes([fields["bits"]])
        + struct.pack(">QdQQd", fields["coordinates"], fields["step"], fields["bound"], fields["norm"], fields["deviation"])
        + bytes([fields["measure"], fields["noise"]])
        + struct.pack(">III", fields["minimum"], fields["maximum"], fields["participations"])
        + public
        + struct.pack(">Q", fields["expires"])
    )


def stream(seed, offset, count):
    """Bytes of AES-256-CTR with counter block 0, from an offset on."""
    counter = (offset // 16).to_bytes(16, "big")
    data = Cipher(algorithms.AES(seed), modes.CTR(counter)).encryptor().update(bytes(offset % 16 + count))
    return data[offset % 16 :]


def words(seed, bits, first, count):
    size = bits // 8
    data = stream(seed, first * size, count * size)
    return [int.from_bytes(data[place : place + size], "little") for place in range(0, len(data), size)]


def main():
    secret = hashlib.sha256(b"session key").digest()
    private, public = key_of(secret)
    fields = {
        "purpose": 1,
        "server": "srv_1",
        "domain": "keyboard-de",
        "run": "run_0123456789abcdef0123",
        "round": 7,
        "attempt": 2,
        "model": hashlib.sha256(b"model").hexdigest(),
        "instructions": hashlib.sha256(b"instructions").hexdigest(),
        "bits": 32,
        "coordinates": 9,
        "step": 1.3125 * 2.0**-20,
        "bound": 2_046_000,
        "norm": 12_585_643,
        "deviation": 158_398_431_641_600**0.5,
        "measure": 2,
        "noise": 1,
        "minimum": 2,
        "maximum": 1000,
        "participations": 16,
        "expires": 1_790_000_000,
    }
    data = document(fields, public)
    session = hashlib.sha256(data).digest()
    signer = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(b"helper").digest())
    grant = signer.sign(lp("martlet-helper/1 grant") + session)

    suite = hpke.Suite(hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)
    clients = []
    for index in range(3):
        seed = hashlib.sha256(b"seed %d" % index).digest()
        pseudonym = hashlib.sha256(b"pseudonym %d" % index).digest()
        info = b"martlet-helper/1 seal" + session + pseudonym
        recipient = private.public_key()
        contribution = [((place * 7919 + index * 104729) % 2001) - 1000 for place in range(fields["coordinates"])]
        masked = [(x + m) % 2**32 for x, m in zip(contribution, words(seed, 32, 0, fields["coordinates"]))]
        clients.append(
            {
                "seed": seed.hex(),
                "pseudonym": pseudonym.hex(),
                "info": info.hex(),
                "sealed": suite.encrypt(seed, recipient, info).hex(),
                "contribution": contribution,
                "masked": masked,
            }
        )
    noise = [5, -3, 0, 12_000_000, -12_000_000, 1, -1, 2, 7]
    helper = [
        (sum(column) - n) % 2**32
        for column, n in zip(zip(*(words(bytes.fromhex(c["seed"]), 32, 0, fields["coordinates"]) for c in clients)), noise)
    ]
    seed = bytes.fromhex(clients[0]["seed"])
    masks = [
        {"bits": bits, "first": first, "words": [str(word) for word in words(seed, bits, first, 6)]}
        for bits in (16, 32, 64)
        # Also where a counter of 32 bits would be over.
        for first in (0, 5, 4097, (2**32 * 16) // (bits // 8) - 3, (2**36 * 16) // (bits // 8) + 1)
    ]
    json.dump(
        {
            "source": "Tests/Python/helper_vectors.py",
            "secret": secret.hex(),
            "public": public.hex(),
            "signer": signer.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex(),
            "fields": fields,
            "document": data.hex(),
            "session": session.hex(),
            "grant": grant.hex(),
            "clients": clients,
            "noise": noise,
            "helper": helper,
            "sum": [sum(column) + n for column, n in zip(zip(*(c["contribution"] for c in clients)), noise)],
            "masks": masks,
        },
        open(sys.argv[1], "w"),
        indent=1,
    )


main()
