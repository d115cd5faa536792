"""`martlet client` against a hostile server, watched by strace: what it opens, whom it connects to, how it ends.

Usage: hostile.py MARTLET [CASES] [SEED] [FIRST]

Each case is one process that meets an honest server whose answers are changed: fields, bytes, heads, lengths, endings. A case is
the same whenever it is run with its seed. Fails at the first case in which the client opens a file for writing outside its state
directory, connects to anything but the server, starts a program, is ended by a signal, takes more bytes, memory or time than it may,
or prints what acts on a terminal. The last line is JSON: cases, answers, and the most that was seen of each.
"""

import base64, copy, hashlib, json, os, random, re, shutil, socket, struct, subprocess, sys, tempfile, threading, time, unicodedata

MODEL_LIMIT = 1 << 20
MEMORY_LIMIT = 400 << 20  # The binary itself has some 60 MiB, in debug builds more; strace little.
TIME_LIMIT = 600  # Of hangs; none takes more than seconds.
# What lies in the two sockets' buffers is sent, though nobody has taken it.
BUFFERED = 8 << 20
ALPHABET = "abcdefgh "


def tensors():
    v, d, h = 4 + len(ALPHABET), 3, 4
    return {"embedding.weight": [v, d], "cell.weight_ih": [3 * h, d], "cell.weight_hh": [3 * h, d], "cell.bias": [3 * h],
            "proj.weight": [d, h], "output.bias": [v]}


def safetensors():
    chance, header, data = random.Random(3), {}, b""
    for name, shape in sorted(tensors().items()):
        count = 1
        for extent in shape:
            count *= extent
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data) + 4 * count]}
        data += struct.pack(f"<{count}f", *[chance.uniform(-0.3, 0.3) for _ in range(count)])
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


MODEL = safetensors()
HASH = hashlib.sha256(MODEL).hexdigest()
TOKENIZER = json.dumps({"type": "char", "alphabet": ALPHABET}).encode()


def assignment(chance):
    reference = {"version": 0, "url": "/v1/runs/run_1/models/0/weights", "sha256": HASH, "bytes": len(MODEL)}
    work = {
        "id": "asg_1", "run": "run_1", "round": 1, "attempt": 1, "state": "assigned", "kind": "train", "model": reference,
        "architecture": {"architecture": "cifg-lstm", "config": {
            "embedding_dim": 3, "hidden_dim": 4, "tokenizer": {"type": "char", "alphabet": ALPHABET}}},
        "training": {"local": {"optimizer": "sgd", "learning_rate": 0.1, "batch_size": 2, "epochs": 1, "clip": 1},
                     "limits": {"max_steps": 2, "max_examples": 10}, "submit": "delta", "encoding": "f32",
                     "algorithm": "fedavg", "model_encoding": "f32"},
        "privacy": {"mode": "none", "mechanism": "gaussian", "clipping": {"norm": 1, "policy": "flat"}, "noise_multiplier": 0},
        "max_participations": 1, "tensors": [{"name": name, "shape": shape} for name, shape in sorted(tensors().items())],
        "update_url": "/v1/assignments/asg_1/update", "seed": "5", "deadline": "2030-01-01T00:00:00Z", "deadline_in_s": 20,
        "lease_s": 10}
    kind = chance.randrange(7)
    if kind == 1:
        work["base"] = dict(reference)
    elif kind == 2:
        work["training"]["algorithm"] = "scaffold"
        work["control"] = dict(reference)
    elif kind == 3:
        work["architecture"]["config"]["tokenizer"] = {
            "url": "/v1/runs/run_1/tokenizer", "sha256": hashlib.sha256(TOKENIZER).hexdigest()}
    elif kind == 4:
        work["model"].update(encoding="f16", encoded_sha256=HASH, encoded_bytes=len(MODEL))
    elif kind == 5:
        work["privacy"].update(mode="local", noise_multiplier=2)
        work["training"]["encoding"] = "int8"
    elif kind == 6:
        work["kind"] = "evaluate"
    return work


def hostile_values(port, trap):
    return [None, True, 0, -1, 1, 65536, 2**31, 2**53, 2**62, 1e300, -1e300, 0.5, 5e-324, "", "../../pwn", "../../../../../tmp/pwn",
            "/tmp/martlet-pwn", "..%2f..%2fpwn", "a\0b", f"@127.0.0.1:{trap}/steal", f"//127.0.0.1:{trap}/x", ":1/x",
            f"http://127.0.0.1:{trap}/", "/a/../../b", "/%2e%2e/x", "/a\r\nX: y", "x/../../../evil?a=b#", "\x1b]0;PWNED\x07\x1b[2J",
            "\u202e\x9b31m", "f16", "int8", "topk", "local", "central", "adaptive", "evaluate", "scaffold", "triehh", "external",
            "0" * 64, "../" * 20 + "x" * 4, "a" * 70000, [], {}, [2**62, 4], [[[[]]]], {"url": f"//127.0.0.1:{trap}/", "sha256": "../x"},
            "participation_limit", {"min_s": 1e300, "max_s": 1e300}]


def places(value, path=()):
    """The paths to everything in a document."""
    found = [path] if path else []
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else []
    for key, item in list(pairs):
        found += places(item, path + (key,))
    return found


def change(document, chance, values):
    document = copy.deepcopy(document)
    for _ in range(chance.choice([1, 1, 1, 2, 3])):
        found = places(document)
        if not found:
            return chance.choice(values)
        path = chance.choice(found)
        target = document
        for key in path[:-1]:
            target = target[key]
        action = chance.randrange(8)
        if action == 0:
            del target[path[-1]]
        elif action == 1 and isinstance(target[path[-1]], str):
            target[path[-1]] += chance.choice(["/../x", "\0", "#", "%2e%2e", "\x1b[2J"])
        else:
            target[path[-1]] = chance.choice(values)
    return document


def damage(data, chance):
    data = bytearray(data)
    for _ in range(chance.randrange(1, 5)):
        if not data:
            break
        place = chance.randrange(len(data))
        action = chance.randrange(4)
        if action == 0:
            data[place] = chance.randrange(256)
        elif action == 1:
            del data[place:place + chance.randrange(1, 9)]
        elif action == 2:
            data[place:place] = chance.choice([b'"', b"{", b"]", b"\0", b"\x1b[2J", b"null", b"1e999"])
        else:
            del data[place:]
    return bytes(data)


class HostileServer:
    """One client's server: honest but for the requests whose number is in `changed`."""

    def __init__(self, seed):
        self.chance = random.Random(seed)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.trap = socket.create_server(("127.0.0.1", 0))
        self.port, self.trap_port = self.listener.getsockname()[1], self.trap.getsockname()[1]
        self.values = hostile_values(self.port, self.trap_port)
        self.changed = {self.chance.randrange(6) for _ in range(self.chance.choice([1, 1, 2]))}
        self.work = assignment(self.chance)
        self.requests, self.answers, self.check_ins, self.most_sent, self.trapped = 0, 0, 0, 0, []
        self.problems, self.lock, self.is_over = [], threading.Lock(), False
        for target, socket_ in [(self.take, self.listener), (self.fall, self.trap)]:
            threading.Thread(target=self.accept, args=(socket_, target), daemon=True).start()

    def close(self):
        self.is_over = True
        for listener in (self.listener, self.trap):
            listener.close()

    def accept(self, listener, target):
        while not self.is_over:
            try:
                link, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=target, args=(link,), daemon=True).start()

    def fall(self, link):
        self.trapped.append(link.recv(1000))
        link.close()

    def take(self, link):
        link.settimeout(TIME_LIMIT)
        try:
            while self.serve(link):
                pass
        except (OSError, ValueError):
            pass
        link.close()

    def serve(self, link):
        head = b""
        while b"\r\n\r\n" not in head:
            piece = link.recv(65536)
            if not piece:
                return False
            head += piece
        head, body = head.split(b"\r\n\r\n", 1)
        lines = head.decode("latin-1").split("\r\n")
        method, path, _ = lines[0].split(" ", 2)
        fields = {line.split(":", 1)[0].lower(): line.split(":", 1)[1].strip() for line in lines[1:]}
        if "expect" in fields:
            link.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        length = int(fields.get("content-length", 0))
        while len(body) < length:
            piece = link.recv(65536)
            if not piece:
                return False
            body += piece
        with self.lock:
            number = self.requests
            self.requests += 1
            status, answer = self.honest(method, path, body)
            is_changed = number in self.changed
            self.answers += 1
        if "martlet" not in fields.get("user-agent", "") or any(name in fields for name in ["x", "x-admin"]):
            self.problems.append(f"odd request: {head!r}")
        if fields.get("host") != f"127.0.0.1:{self.port}":
            self.problems.append(f"another host: {fields.get('host')}")
        if is_changed:
            return self.spoil(link, status, answer)
        self.send(link, status, answer)
        return True

    def honest(self, method, path, body):
        if path == "/v1/clients":
            return 201, json.dumps({"client_id": "clt_1", "token": "mlt_secret"}).encode()
        if path == "/v1/checkins":
            self.check_ins += 1
            if self.check_ins == 1:
                return 201, json.dumps({"assignment": self.work}).encode()
            return 200, json.dumps({"reason": "no_run", "retry_window": {"min_s": 1, "max_s": 2}}).encode()
        if path == "/v1/runs/run_1/tokenizer":
            return 200, TOKENIZER
        if path.endswith("/failure"):
            return 204, b""
        if path.endswith("/heartbeat"):
            return 200, json.dumps({"state": "training", "lease_s": 10, "deadline_in_s": 20}).encode()
        if path.endswith("/update"):
            return 200, json.dumps({"assignment": "asg_1", "state": "accepted", "sha256": hashlib.sha256(body).hexdigest(),
                                    "bytes": len(body)}).encode()
        if method == "GET" and path.startswith("/v1/runs/"):
            return 200, MODEL
        return 404, json.dumps({"code": "not_found", "detail": "x", "title": "x", "status": 404, "type": "about:blank"}).encode()

    def file_name(self, body):
        """The field that names a file by its hash, without which a client takes none; empty for other answers."""
        if body not in (MODEL, TOKENIZER):
            return []
        return ["Repr-Digest: sha-256=:" + base64.b64encode(hashlib.sha256(body).digest()).decode() + ":"]

    def send(self, link, status, body, extra=None, length=None):
        if extra is None:
            extra = self.file_name(body)
        lines = [f"HTTP/1.1 {status} OK"] + list(extra)
        if status != 204:
            lines.append(f"Content-Length: {len(body) if length is None else length}")
        link.sendall(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body)

    def spoil(self, link, status, body):
        chance = self.chance
        # What is spoiled mostly claims to be the file that was asked for.
        extra = self.file_name(body) if chance.randrange(8) else []
        for _ in range(chance.randrange(3)):
            extra.append(chance.choice([
                f"Location: http://127.0.0.1:{self.trap_port}/", f"Location: //127.0.0.1:{self.trap_port}/", "Retry-After: 1",
                "Retry-After: 1e300", "Retry-After: nan", "Set-Cookie: a=b", f'Alt-Svc: h2="127.0.0.1:{self.trap_port}"; ma=99999',
                "Strict-Transport-Security: max-age=99999", "Content-Digest: sha-256=:AAAA:", "Content-Range: bytes 0-1/99999999999999",
                "Content-Encoding: gzip", "Refresh: 0; url=http://127.0.0.1:1/", "X: \x1b[2J", "Upload-Offset: 99999999999999"]))
        name = "".join(field + "\r\n" for field in self.file_name(body))
        action = chance.randrange(20)
        if action < 8:
            try:
                body = json.dumps(change(json.loads(body), chance, self.values)).encode()
            except (ValueError, RecursionError):
                # Not JSON any more, or nested by both changes more deeply than Python goes.
                body = damage(body, chance)
            self.send(link, status, body, extra)
        elif action < 10:
            self.send(link, status, damage(body, chance), extra)
        elif action == 10:
            self.send(link, chance.choice([204, 206, 301, 302, 307, 308, 401, 403, 404, 407, 410, 413, 416, 422]), body, extra)
        elif action == 11:
            self.flood(link, f"HTTP/1.1 {status} OK\r\n{name}Content-Length: 99999999999999\r\n\r\n".encode() + body, b" " * 65536)
            return False
        elif action == 12:
            self.flood(link, f"HTTP/1.1 {status} OK\r\n{name}Transfer-Encoding: chunked\r\n\r\n".encode(), b"10000\r\n" + b"a" * 65536 + b"\r\n")
            return False
        elif action == 13:
            self.flood(link, b"HTTP/1.1 200 OK\r\n", b"".join(b"X-%d: %s\r\n" % (n, b"y" * 1000) for n in range(60)))
            return False
        elif action == 14:
            self.flood(link, b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 2000)
            return False
        elif action == 15:
            self.send(link, status, body[:chance.randrange(len(body) + 1)], extra, length=len(body) + 10)
            return False
        elif action == 16:
            link.sendall(bytes(chance.randrange(256) for _ in range(300)))
            return False
        elif action == 17:
            self.send(link, status, body + b" " * chance.choice([1, 70000, 5 << 20]), extra)
        elif action == 18:
            self.send(link, status, body, ["Content-Length: 5"] + extra)
            return False
        else:
            problem = {"code": chance.choice(["gone", "\x1b[2J", "a" * 9999]), "detail": "\x1b]0;PWNED\x07\x1b[2J\u202e\n" * 50,
                       "title": "x", "status": 410, "type": "about:blank"}
            self.send(link, chance.choice([400, 410, 422]), json.dumps(problem).encode(), extra)
        return True

    def flood(self, link, head, piece):
        """Sends for as long as somebody takes it."""
        sent = 0
        link.settimeout(5)
        try:
            link.sendall(head)
            while sent < 256 << 20:
                link.sendall(piece)
                sent += len(piece)
        except OSError:
            pass
        self.most_sent = max(self.most_sent, sent)


CALLS = "openat,open,creat,rename,renameat,renameat2,link,linkat,symlink,symlinkat,mkdir,mkdirat,truncate,unlink,unlinkat,connect,execve"
QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')


def judge(line, base, state, port):
    """What is wrong with one system call."""
    call = line.split("(", 1)[0].split()[-1] if "(" in line else ""
    if "+++ killed by" in line:
        return "ended by a signal"
    if call == "connect":
        if "AF_UNIX" in line or "AF_UNSPEC" in line:
            return None
        return None if f"htons({port})" in line and '"127.0.0.1"' in line else "connects elsewhere"
    if call == "execve":
        return "starts a program"
    names = [bytes(name, "latin-1").decode("unicode_escape") for name in QUOTED.findall(line)]
    if call in ("open", "openat") and not re.search(r"O_WRONLY|O_RDWR|O_CREAT|O_TRUNC", line):
        return None
    if call == "mkdir" and line.rstrip().endswith("EEXIST (File exists)"):
        return None  # Nothing was made: the way to the state directory was there.
    folder = re.search(r"\((?:AT_FDCWD|\d+)<([^>]*)>", line)
    for name in names:
        path = os.path.normpath(os.path.join(folder.group(1) if folder else base, name))
        if not (path == state or path.startswith(state + "/") or path in ("/dev/null", "/dev/tty")):
            return f"touches {path}"
    return None


PLANTED = "/tmp/martlet-pwn"


def run(martlet, seed, number):
    base = tempfile.mkdtemp(prefix="martlet-hostile-")
    state = base + "/state"
    server = HostileServer(seed * 1_000_003 + number)
    with open(base + "/data.txt", "w") as file:
        file.write("bad cab\nface a cafe\na decade had a cab\ndad fed a bee\n")
    trace = base + "/trace"
    command = ["strace", "-f", "-qq", "-y", "-s", "4096", "-o", trace, "-e", "trace=" + CALLS, martlet, "client", "--server",
               f"http://127.0.0.1:{server.port}", "--enrollment-token", "mlt_enroll", "--data", base + "/data.txt", "--state-dir",
               state, "--max-model-bytes", str(MODEL_LIMIT), "--once"]
    environment = {name: value for name, value in os.environ.items() if "proxy" not in name.lower() and not name.startswith("MARTLET_")}
    was_there = os.path.lexists(PLANTED)
    start = time.time()
    with open(base + "/out", "wb") as out:
        process = subprocess.Popen(command, cwd=base, stdout=out, stderr=out, stdin=subprocess.DEVNULL, env=environment)
        watch = threading.Timer(TIME_LIMIT, process.kill)
        watch.start()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        watch.cancel()
    seconds = time.time() - start
    server.close()
    problems = list(server.problems)
    with open(trace, errors="replace") as file:
        # The first call is strace's own start of the client.
        for index, line in enumerate(file):
            if index > 0 and (problem := judge(line, base, state, server.port)):
                problems.append(f"{problem}: {line.strip()[:500]}")
    with open(base + "/out", "rb") as file:
        output = file.read()
    if process.returncode < 0 or process.returncode > 127:
        problems.append(f"ended with {process.returncode} after {seconds:.1f} s")
    if server.trapped:
        problems.append(f"asked another server: {server.trapped[0]!r}")
    if server.most_sent > BUFFERED + (32 << 20):  # A tokenizer may have 32 MiB.
        problems.append(f"took {server.most_sent} bytes of an answer without an end")
    memory = usage.ru_maxrss * 1024
    if memory > MEMORY_LIMIT and not os.environ.get("MARTLET_TEST_SANITIZER"):
        problems.append(f"needed {memory >> 20} MiB")
    shown = output.decode("utf-8", "replace").replace("\n", "")
    if any(unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp") for c in shown) or len(output) > 20000:
        problems.append(f"printed {output[:500]!r}")
    kept = [(os.path.join(folder, name), os.path.getsize(os.path.join(folder, name)))
            for folder, _, names in os.walk(state) for name in names]
    if sum(size for _, size in kept) > 4 * MODEL_LIMIT or len(kept) > 40:
        problems.append(f"keeps {kept}")
    if sorted(os.listdir(base)) != ["data.txt", "out", "state", "trace"] or os.path.lexists(PLANTED) and not was_there:
        problems.append(f"left {os.listdir(base)}")
    if problems:
        raise SystemExit(f"case {number} of seed {seed} ({base}):\n" + "\n".join(problems[:10]) + f"\nit printed {output[-1500:]!r}")
    shutil.rmtree(base)
    return server.answers, seconds, memory, server.most_sent, b"accepted" in output


def main():
    martlet = sys.argv[1]
    cases, seed, first = (int(sys.argv[index]) if len(sys.argv) > index else default for index, default in [(2, 200), (3, 1), (4, 0)])
    answers, accepted, most = 0, 0, [0, 0, 0]
    for number in range(first, first + cases):
        count, *seen, is_accepted = run(martlet, seed, number)
        answers, accepted = answers + count, accepted + is_accepted
        most = [max(pair) for pair in zip(most, seen)]
    print(json.dumps({"cases": cases, "answers": answers, "accepted": accepted, "longest_s": round(most[0], 1),
                      "most_memory_mib": most[1] >> 20, "most_bytes_sent": most[2]}))


main()
