"""An upload that is cut at chosen and random bytes, by lost connections and by kill -9 of the server, and goes on each time.

Usage: uploads.py MARTLET
"""

import base64, hashlib, http.client, json, os, random, socket, sys
from urllib.parse import urlparse

from service import PATIENCE, Service, safetensors, wait_until

chance = random.Random(5)


def request(service, method, path, token, headers=None, body=None):
    address = urlparse(service.address)
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=PATIENCE)
    connection.request(method, path, body=body, headers={"Authorization": "Bearer " + token, **(headers or {})})
    answer = connection.getresponse()
    data = answer.read()
    connection.close()
    return answer.status, {name.lower(): value for name, value in answer.getheaders()}, data


def begin(service, path, token, offset, body, sent):
    """Announces the rest of the update and sends only `sent` bytes of it; the connection stays open."""
    address = urlparse(service.address)
    link = socket.create_connection((address.hostname, address.port), timeout=PATIENCE)
    link.sendall((f"PATCH {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nUpload-Offset: {offset}\r\n"
                  f"Upload-Complete: ?1\r\nContent-Type: application/partial-upload\r\n"
                  f"Content-Length: {len(body) - offset}\r\n\r\n").encode() + body[offset:offset + sent])
    return link


def wait_for(path, size):
    """Until the server has written so many bytes."""
    wait_until(f"{path} has {size} bytes", lambda: os.path.exists(path) and os.path.getsize(path) == size)


def main():
    with Service(sys.argv[1]) as service:
        service.population("keyboards")
        run = service.run(rounds=1, cohort={"goal": 2, "minimum": 2, "over_selection": 1.0})
        client = service.clients(2)[0]
        work = service.assignment(client)
        path = work["update_url"]
        body = safetensors([0.1, 0.2, 0.3, 0.4], {"num_examples": "2", "base": work["model"]["sha256"]}, size=work.get("update_bytes", 0))
        partial = f"{service.directory}/spool/{work['id']}.partial"
        cuts = sorted({1, 8, len(body) - 1} | {chance.randrange(1, len(body)) for _ in range(5)})
        offset = 0
        for index, cut in enumerate(cuts):
            link = begin(service, path, client, offset, body, cut - offset)
            wait_for(partial, cut)
            if index % 2:
                service.kill()
                service.start()
            link.close()
            status, headers, _ = request(service, "HEAD", path, client)
            assert (status, headers["upload-offset"], headers["upload-complete"]) == (204, str(cut), "?0"), headers
            offset = cut
        digest = base64.b64encode(hashlib.sha256(body).digest()).decode()
        last = {"Upload-Offset": str(offset), "Upload-Complete": "?1", "Repr-Digest": f"sha-256=:{digest}:"}
        status, _, data = request(service, "PATCH", path, client, last, body[offset:])
        assert status == 200 and json.loads(data)["sha256"] == hashlib.sha256(body).hexdigest(), data
        assert sorted(os.listdir(service.directory + "/spool")) == [work["id"] + ".receipt", work["id"] + ".update"]
        service.kill()
        service.start()
        status, headers, _ = request(service, "HEAD", path, client)
        assert status == 204 and headers["upload-complete"] == "?1" and headers["repr-digest"] == f"sha-256=:{digest}:"
        assert service.call("GET", f"/v1/runs/{run}/rounds/1")["accepted"] == 1
        print(f"passed: {len(cuts)} cuts")


if __name__ == "__main__":
    main()
