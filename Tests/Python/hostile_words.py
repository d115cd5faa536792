#!/usr/bin/env python3
"""What every command prints when the server's words are made to act on a terminal. hostile_words.py BINARY [SEED]

A relay stands between the commands and an honest server, and puts control, format and bidirectional characters, line ends and escape
sequences into what the server says: into texts, names of fields, problem documents, plain pages and reasons, and it cuts and
breaks answers. Nothing that a command writes, to a pipe or to a terminal, may act; nor may a text of the server's look like a line of
the command's own. Every command that `martlet --experimental-dump-help` lists is tried, or named here as one that no server speaks to.
"""

import fcntl
import http.client
import http.server
import json
import os
import pty
import random
import re
import select
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
import unicodedata

from service import PATIENCE, Service
from terminal import trained

WORDS = "\x1b]0;PWNED\x07\x1b[2J\x1b[31m\u202e\u2066\u200b\u009b31m\x00\x08\r\nfake: a line\n"
KINDS = ["words", "names", "refusal", "page", "cut"]
# Speak to no server, or print nothing that one said.
ALONE = {"serve", "helper serve", "demo", "fleet", "suggest", "personalize", "clean", "completions", "backup", "restore", "config check", "trainer check",
         "privacy epsilon", "privacy delta", "privacy calibrate", "privacy check-vectors"}


class Relay:
    """Passes requests on and spoils the answers."""

    def __init__(self, service, chance):
        self.kind, self.chance, relay = "words", chance, self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def pass_on(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                link = http.client.HTTPConnection(service.address.split("//")[1], timeout=PATIENCE)
                fields = {name: value for name, value in self.headers.items() if name.lower() not in ("host", "connection")}
                link.request(self.command, self.path, body, fields)
                answer = link.getresponse()
                status, kind, data = answer.status, answer.getheader("Content-Type", ""), answer.read()
                link.close()
                status, kind, data = relay.spoil(status, kind, data)
                self.send_response(status, WORDS.replace("\r", "").replace("\n", "") if relay.kind == "page" else None)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(data)))
                if relay.kind == "page":
                    self.send_header("Retry-After", "\x1b[2J")
                    self.send_header("Location", "http://x/\x1b[2J")
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = pass_on

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_):
                pass  # A command that has hung up.

        self.server = Server(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.address = f"http://127.0.0.1:{self.server.server_address[1]}"

    def spoil(self, status, kind, data):
        if self.kind == "refusal":
            problem = {"type": "about:blank", "title": WORDS, "status": 409, "code": "conflict" + WORDS, "detail": "no run 'x" + WORDS,
                       "errors": [{"pointer": "/x" + WORDS, "message": WORDS}]}
            return 409, "application/problem+json", json.dumps(problem, ensure_ascii=False).encode()
        if self.kind == "page":
            status = self.chance.choice([200, 302, 403, 502, 504])
            return status, self.chance.choice(["text/plain", "text/html" + "\x1b[2J"]), ("<h1>" + WORDS).encode()
        if "json" not in kind:
            return status, kind, (data.decode("utf-8", "replace").replace("e", "e" + WORDS)).encode() if "text" in kind else data
        if self.kind == "cut":
            place = self.chance.randrange(len(data) + 1)
            return status, kind, data[:place] + WORDS.encode()
        return status, kind, json.dumps(self.poisoned(json.loads(data)), ensure_ascii=self.chance.random() < 0.5).encode()

    def poisoned(self, value):
        chance = self.chance
        if isinstance(value, dict):
            added = lambda name: name + WORDS if self.kind == "names" and chance.random() < 0.3 else name  # noqa: E731
            return {added(name): self.poisoned(item) for name, item in value.items()}
        if isinstance(value, list):
            return [self.poisoned(item) for item in value]
        if isinstance(value, str) and self.kind == "words" and chance.random() < 0.4:
            return value + WORDS if chance.random() < 0.7 else WORDS
        return value


def faults(text, at_terminal):
    """What of a command's output acts."""
    if at_terminal:
        text = text.replace("\r\n", "\n")
        # Colours, and what redraws a picture: written by the commands themselves, and with nothing else's in it.
        text = re.sub(r"\x1b\[(\d+(;\d+)*)?m|\x1b\[\d*[FJK]|\x1b\[\?25[lh]", "", text)
    found = [f"{character!r}" for character in text
             if unicodedata.category(character) in ("Cc", "Cf", "Zl", "Zp") and character not in "\n\t"]
    found += [f"a line {line!r}" for line in text.splitlines() if line.startswith("fake: a line")]
    return found


def piped(command, environment):
    process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        output, _ = process.communicate(timeout=8)
    except subprocess.TimeoutExpired:
        process.kill()
        output, _ = process.communicate()
    return process.returncode, output.decode("utf-8", "replace")


def drawn(command, environment):
    main, side = pty.openpty()
    fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
    process = subprocess.Popen(command, env=environment, stdin=side, stdout=side, stderr=side, close_fds=True)
    os.close(side)
    output, end = b"", time.monotonic() + 8
    while time.monotonic() < end:
        if select.select([main], [], [], 0.1)[0]:
            try:
                block = os.read(main, 1 << 16)
            except OSError:
                break
            if not block:
                break
            output += block
        elif process.poll() is not None:
            break
    process.kill()
    process.wait()
    os.close(main)
    return process.returncode, output.decode("utf-8", "replace")


def leaves(command, path=()):
    path += (command["commandName"],)
    parts = [part for part in command.get("subcommands", []) if part["commandName"] != "help"]
    return [" ".join(path[1:])] if not parts else [leaf for part in parts for leaf in leaves(part, path)]


def main():
    binary, seed = os.path.abspath(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1
    with Service(binary) as service:
        run = trained(service)
        relay = Relay(service, random.Random(seed))
        os.chdir(service.directory)
        with open("run.yaml", "w") as file:
            file.write('name: "a\\e[2J\\u202e"\npopulation: keyboards\nrounds: 1\nmodel: {architecture: external}\ncohort: {goal: 2}\n'
                       'privacy: {mode: central, noise_multiplier: 200}\n"b\\e[2J\\nfake: a line": 1\n')
        with open("text.txt", "w") as file:
            file.write("some words\n")
        ledger = subprocess.run([binary, "population", "ledger", "keyboards", "--json"], check=True, stdout=subprocess.PIPE, text=True,
                                env=dict(os.environ, MARTLET_URL=service.address, MARTLET_TOKEN=service.admin)).stdout
        relay.kind = "words"
        with open("ledger.json", "w") as file:
            file.writelines(json.dumps(relay.poisoned(json.loads(line)), ensure_ascii=False) + "\n" for line in ledger.splitlines())
        table = {
            "run create": ["run.yaml"], "run list": [], "run report": [run, "accuracy=0.5"], "run plot": [run, "-o", "x.svg"],
            "population create": ["wards"], "population show": [], "population ledger": ["keyboards"], "population token": ["keyboards"],
            "population budget": ["keyboards", "--epsilon", "9", "--reason", "x"], "token create": ["viewer", "--name", "v"],
            "token list": [], "token rotate": ["tok_x"], "token revoke": ["tok_x"], "audit": [], "health": ["--ready"],
            "privacy plan": ["run.yaml"], "privacy verify-ledger": ["ledger.json"], "doctor": ["--data-dir", service.directory],
            "env": ["--data-dir", service.directory], "export": ["--run", run, "--output", "out"],
            "client": ["--once", "--enrollment-token", "x", "--data", "text.txt", "--state-dir", "phone"],
            # A helper is another program's server; what a stranger answers in its place is refused, and printed.
            "helper keys": [], "helper status": [], "helper domain create": ["wards"], "helper domain show": [],
            "helper domain change": ["wards", "--minimum", "3"], "helper domain token": ["wards", "--server-id", "srv_1"],
            "helper domain revoke": ["tok_x"], "helper ledger export": ["wards"], "helper ledger acknowledge": ["--reason", "x"],
            **{f"run {name}": [run] for name in ["start", "pause", "resume", "cancel", "show", "watch", "explain", "words"]},
        }
        dump = subprocess.run([binary, "--experimental-dump-help"], capture_output=True, text=True, check=True).stdout
        known = set(leaves(json.loads(dump)["command"]))
        assert known == set(table) | ALONE, f"not tried: {known - set(table) - ALONE}; gone: {(set(table) | ALONE) - known}"
        environment = dict(os.environ, MARTLET_URL=relay.address, MARTLET_TOKEN=service.admin, TERM="xterm-256color")
        environment.pop("NO_COLOR", None)
        count, failed, spoken = 0, [], set()
        for command, arguments in table.items():
            # Those that ask a server see all that may be wrong with it; the others their one file.
            for kind in KINDS if command not in ("privacy verify-ledger", "doctor", "env") else KINDS[:1]:
                ways = [(piped, [])] + ([(piped, ["--json"])] if command not in ("env", "run plot") else []) + [(drawn, [])] * (kind == "words")
                for way, more in ways:
                    relay.kind = kind
                    if command == "client":
                        subprocess.run(["rm", "-rf", "phone"], check=True)
                    status, output = way([binary, *command.split(), *arguments, *more], environment)
                    count += 1
                    assert status is not None and (status >= 0 or status == -9), f"{command}: ended by signal {-status}: {output[-500:]}"
                    if "PWNED" in output:
                        spoken.add(command)
                    if wrong := faults(output, way is drawn):
                        failed.append(f"{command} {more} ({kind}, {way.__name__}): {sorted(set(wrong))[:5]} in {output[:300]!r}")
        # What a server at start and at work logs for people, with what a caller has made up.
        assert len(spoken) > 12, f"the words reached only {spoken}"
        assert not failed, "\n".join(failed)
    logged(binary)
    print(json.dumps({"commands": len(table), "outputs": count, "spoke": len(spoken)}))


def logged(binary):
    """The server's log as text and as JSON: what callers make up is in it, and acts on nothing."""
    for form in ("text", "json"):
        with tempfile.TemporaryFile("w+") as log:
            with Service(binary, arguments=["--log-format", form, "--log-level", "debug"], log=log) as service:
                port = int(service.address.rsplit(":")[-1])
                for target in ("/v1/runs/%1b%5b2J%e2%80%ae", "/v1/\x1b[2J\xe2\x80\xae", "/v1/clients?limit=%1b[2J"):
                    link = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
                    link.putrequest("GET", "/", skip_host=True)
                    link._buffer[0] = f"GET {target} HTTP/1.1".encode("latin-1")
                    for name, value in [("Host", "x\x1b[2J"), ("User-Agent", "\x1b[2J\xe2\x80\xae"), ("X-Request-Id", "\x1b[31m")]:
                        link._buffer.append(f"{name}: {value}".encode("latin-1"))
                    try:
                        link.endheaders()
                        link.getresponse().read()
                    except (OSError, http.client.HTTPException):
                        pass
                    link.close()
            log.seek(0)
            text = log.read()
        assert text and not faults(text, False), f"{form}: {faults(text, False)[:5]} in {text[:2000]!r}"


main()
