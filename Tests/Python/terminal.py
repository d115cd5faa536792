#!/usr/bin/env python3
"""What the commands print, to a pipe and to a terminal. terminal.py BINARY [SCENARIO ...]"""

import json
import os
import pty
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import fcntl
import http.server
import termios
import threading
import time
import xml.etree.ElementTree

from filled import fill
from service import PATIENCE, Refused, Service, wait_until


class Shell:
    def __init__(self, service):
        self.binary = service.binary
        self.directory = service.directory
        self.environment = dict(os.environ, MARTLET_URL=service.address, MARTLET_TOKEN=service.admin, TERM="xterm-256color")
        for name in ("NO_COLOR", "COLUMNS", "LINES"):
            self.environment.pop(name, None)

    def piped(self, *arguments, status=0):
        """Standard output of a command whose output is not a terminal."""
        answer = subprocess.run([self.binary, *arguments], env=self.environment, capture_output=True, text=True, timeout=PATIENCE)
        assert answer.returncode == status, f"{arguments}: {answer.returncode}\n{answer.stdout}{answer.stderr}"
        return answer.stdout if status == 0 else answer.stderr

    def drawn(self, *arguments, columns=80, while_running=None, **environment):
        """What a command writes to a terminal."""
        main, side = pty.openpty()
        fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 30, columns, 0, 0))
        process = subprocess.Popen(
            [self.binary, *arguments], env=dict(self.environment, **environment), stdin=side, stdout=side, stderr=side, close_fds=True
        )
        os.close(side)
        output = b""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            ready, _, _ = select.select([main], [], [], 0.1)
            if ready:
                try:
                    block = os.read(main, 1 << 16)
                except OSError:
                    break
                if not block:
                    break
                output += block
                if while_running:
                    while_running(output.decode(errors="replace"))
            elif process.poll() is not None:
                break
        assert process.wait(PATIENCE) == 0, output.decode(errors="replace")
        os.close(main)
        return output.decode()


def trained(service):
    """A finished run of three rounds, the second attempt of the second one."""
    service.population()
    clients = service.clients(3)
    # A round is given up by its time-out; where the others did not end within theirs, they get a longer one.
    for timeout in (2, 20, 200):
        run = service.run(cohort={"goal": 2, "minimum": 2, "over_selection": 1.0, "max_participations": 1000,
                                  "selection_timeout_s": timeout, "report_timeout_s": timeout})
        try:
            three_rounds(service, run, clients)
        except Refused as refused:
            print(f"once more: {refused}")
        attempts = [(item["number"], item["attempt"]) for item in service.call("GET", f"/v1/runs/{run}/rounds")["items"]]
        if attempts == [(1, 1), (2, 1), (2, 2), (3, 1)] and service.call("GET", f"/v1/runs/{run}")["state"] == "completed":
            return run
        service.call("POST", f"/v1/runs/{run}/cancel", {})
    raise AssertionError(f"a run of two clients has the attempts {attempts}")


def three_rounds(service, run, clients):
    service.measure(run, 0, accuracy=0.1, loss=3)
    service.round(clients[:2])
    service.measure(run, 1, accuracy=0.25, loss=2)
    work = service.assignment(clients[2])
    service.call("POST", f"/v1/assignments/{work['id']}/failure", {"code": "out_of_memory"}, token=clients[2])
    wait_until("the second round is given up",
               lambda: service.call("GET", f"/v1/runs/{run}/rounds")["items"][-1]["attempt"] >= 2, pause=0.05)
    service.round(clients[:2])
    service.measure(run, 2, accuracy=0.25, loss=1.5)
    service.round(clients[:2])
    service.measure(run, 3, accuracy=0.5, loss=1.25)


def watching(service):
    """`run watch` redraws on a terminal and prints lines to a pipe; NO_COLOR is heeded; it waits for a server that restarts."""
    shell = Shell(service)
    service.population()
    run = service.run()
    clients = service.clients(2)
    service.measure(run, 0, accuracy=0.1)
    state = {"step": 0}

    def play(output):
        if state["step"] == 0 and "round 1" in output:
            state["step"] = 1
            service.round(clients)
            service.measure(run, 1, accuracy=0.3)
        elif state["step"] == 1 and "1/3 rounds" in output:
            state["step"] = 2
            service.kill()
        elif state["step"] == 2 and "does not answer" in output:
            state["step"] = 3
            service.start()
            service.round(clients)
            service.round(clients)

    drawn = shell.drawn("run", "watch", run, while_running=play)
    assert state["step"] == 3, f"{state}\n{drawn}"
    assert re.search(r"\x1b\[\d+F", drawn), "the picture is drawn over the old one"
    assert "\x1b[32m" in drawn and "3/3 rounds" in drawn and "█" in drawn
    assert re.search("accuracy .*[▁▂▃▄▅▆▇█].* 0.100 → 0.300", drawn), drawn[-800:]
    assert drawn.count("\x1b[?25l") == drawn.count("\x1b[?25h") == 1, "the cursor comes back"
    plain = shell.drawn("run", "watch", run, NO_COLOR="1")
    assert "\x1b[32m" not in plain and "\x1b[1m" not in plain and "3/3 rounds" in plain
    narrow = shell.drawn("run", "watch", run, columns=40, NO_COLOR="1")
    lines = [re.sub(r"\x1b\[[?0-9;]*[A-Za-z]", "", line) for line in narrow.splitlines()]
    assert max(map(len, lines)) <= 40, lines
    piped = shell.piped("run", "watch", run)
    quiet(shell, service)
    assert "\x1b" not in piped and piped.startswith("completed: 3/3 rounds, accuracy 0.300, epsilon "), piped
    values = [json.loads(line) for line in shell.piped("run", "watch", run, "--json").splitlines()]
    assert values[-1]["state"] == "completed"
    assert "no run 'run_x'" in shell.piped("run", "watch", "run_x", status=1)


def quiet(shell, service):
    """Through a pipe a line is a change: the seconds that are left are none."""
    run = service.run()
    process = subprocess.Popen([shell.binary, "run", "watch", run], env=shell.environment, stdout=subprocess.PIPE, text=True)
    time.sleep(4)
    service.call("POST", f"/v1/runs/{run}/cancel", {})
    lines = process.communicate(timeout=PATIENCE)[0].splitlines()
    assert " s left" in lines[0] and len(lines) == 2, lines


def watching_a_long_run(service):
    """`run watch` asks for the latest rounds only, and keeps the curve's beginning; what it missed it reads again."""
    shell = Shell(service)
    service.population(epsilon=None)
    run = service.run(rounds=1000, privacy={"mode": "none"})
    clients = service.clients(2)
    service.round(clients)

    def stopped_at(rounds):
        service.process.terminate()
        service.process.wait()
        fill(service, run, rounds=rounds)
        service.start()

    stopped_at(120)
    state = {"step": 0}

    def play(output):
        if state["step"] == 0 and "120/1000 rounds" in output:
            state["step"] = 1
            service.round(clients)
        elif state["step"] == 1 and "121/1000 rounds" in output:
            state["step"] = 2
            stopped_at(300)
        elif state["step"] == 2 and "300/1000 rounds" in output:
            state["step"] = 3
            service.call("POST", f"/v1/runs/{run}/cancel", {})

    drawn = shell.drawn("run", "watch", run, while_running=play)
    assert state["step"] == 3, f"{state}\n{drawn[-2000:]}"
    pictures = re.split(r"\x1b\[\d+F", drawn)
    first = {re.search(r"accuracy.* (\d\.\d+) → (\d\.\d+)", picture)[1] for picture in pictures if "accuracy" in picture}
    last = re.findall(r"accuracy.* \d\.\d+ → (\d\.\d+)", drawn)[-1]
    assert first == {"0.103"} and last == "0.635", (first, last)


def explaining_and_plotting(service):
    """`run explain` tells each round with numbers and reasons, tables line up, and `run plot` draws the same run."""
    shell = Shell(service)
    run = trained(service)
    explain(shell, run)
    plot(shell, run)
    kept(shell, service)


def kept(shell, service):
    """Of an attempt whose charge stays, `run explain` does not say that it went back."""
    service.population("kept", epsilon=50)
    run = service.run(population="kept", cohort={"goal": 2, "minimum": 2, "over_selection": 1.0, "max_participations": 9},
                      privacy={"mode": "local", "noise_multiplier": 8})
    client = service.clients(1, "kept")[0]
    service.deliver(client, service.assignment(client))
    service.call("POST", f"/v1/runs/{run}/cancel")
    story = shell.piped("run", "explain", run)
    assert "but its charge stays" in story and "went back to the budget" not in story, story


def explain(shell, run):
    story = shell.piped("run", "explain", run)
    for sentence in [
        "needs 2", "Privacy is central", "Round 1 published model 1 from 2 updates", "Accuracy is 0.250, up from 0.100.",
        "Round 2 was given up after", "1 client did not deliver: 1 training_failed.", "its reservation went back to the budget",
        "Round 2, attempt 2 published model 2", "Accuracy is 0.250 as before.", "the last model is version 3.",
    ]:
        assert sentence in story, f"{sentence!r} is not in:\n{story}"
    one = shell.piped("run", "explain", run, "--round", "2")
    assert "attempt 1  abandoned: " in one and "attempt 2  committed: " in one and "Round 1" not in one
    assert "has no round 9 yet" in shell.piped("run", "explain", run, "--round", "9", status=1)
    table = shell.piped("run", "list").splitlines()
    assert table[0].split() == ["RUN", "STATE", "ROUNDS", "EPSILON", "NAME"] and any(run in row for row in table[1:])
    assert all(row.index("keyboard-en") == table[0].index("NAME") for row in table[1:]), table
    assert "\x1b" not in "".join(table)
    populations = shell.piped("population", "show").splitlines()
    assert populations[1].split()[1] == "3" and populations[1].endswith("keyboards"), populations


def plot(shell, run):
    """The picture is well-formed, complete, and the same each time."""
    os.chdir(shell.directory)
    shell.piped("run", "plot", run, "-o", "one.svg")
    shell.piped("run", "plot", run, "-o", "again.svg")
    text = open("one.svg").read()
    assert text == open("again.svg").read()
    root = xml.etree.ElementTree.fromstring(text)
    space = "{http://www.w3.org/2000/svg}"
    paths = root.findall(f".//{space}path")
    assert [path.get("d").count("L") for path in paths] == [3, 3, 2, 2], "accuracy and loss begin at round 0"
    assert root.find(f"{space}title") is not None and "href" not in text and "http" not in text.replace("http://www.w3.org/2000/svg", "")
    shell.piped("run", "plot", run, run, "--label", "a <b>", "--label", "c", "--title", "x & y", "--panel", "loss", "-o", "two.svg")
    two = open("two.svg").read()
    assert len(xml.etree.ElementTree.fromstring(two).findall(f".//{space}path")) == 2 and "a &lt;b&gt;" in two
    assert "--label for each" in shell.piped("run", "plot", run, "--label", "a", "--label", "b", "-o", "x.svg", status=64)
    assert "not one of accuracy" in shell.piped("run", "plot", run, "--panel", "speed", "-o", "x.svg", status=64)
    assert "cannot write" in shell.piped("run", "plot", run, "-o", "nowhere/x.svg", status=1)
    assert "accuracy=0.431" in shell.piped("run", "report", run, "accuracy", status=64)


def typed(shell, setup, keys, wanted, environment):
    """Whether a shell at a terminal shows `wanted` after these keys."""
    process, descriptor = pty.fork()
    if process == 0:
        os.execvpe(shell[0], [*shell, "-i"], dict(environment, TERM="dumb"))
    shown = ""

    def until(text):
        nonlocal shown
        end = time.monotonic() + PATIENCE
        while text not in shown and time.monotonic() < end:
            if select.select([descriptor], [], [], 0.1)[0]:
                try:
                    shown += os.read(descriptor, 4096).decode(errors="replace")
                except OSError:
                    return False
        return text in shown

    try:
        os.write(descriptor, (setup + "; echo rea''dy\n").encode())
        assert until("ready"), f"{shell[0]} did not get ready: {shown}"
        shown = ""
        os.write(descriptor, keys.encode())
        assert until(wanted), f"{shell[0]} shows {shown!r}"
        return True
    finally:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        os.close(descriptor)


def first_mistakes(service):
    """What goes wrong in a new user's first ten minutes: each message says what, where, and what to do."""
    shell = Shell(service)
    os.chdir(service.directory)

    def says(*arguments, status=1, words=(), **changes):
        environment = {**shell.environment, **changes}
        environment = {name: value for name, value in environment.items() if value is not None}
        answer = subprocess.run([shell.binary, *arguments], env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE)
        text = answer.stdout + answer.stderr
        assert answer.returncode == status, f"{arguments}: status {answer.returncode}, not {status}: {text}"
        for word in words:
            assert word in text, f"{arguments}: {word!r} is not in: {text}"
        assert "NSCocoa" not in text and "Fatal" not in text and len(text.splitlines()) < 24, text

    port = socket.socket()
    port.bind(("127.0.0.1", 0))
    port.listen()
    taken = f"127.0.0.1:{port.getsockname()[1]}"
    free = socket.socket()
    free.bind(("127.0.0.1", 0))
    nowhere = f"http://127.0.0.1:{free.getsockname()[1]}"
    # The server.
    says("serve", status=64, words=["data_dir is needed", "--data-dir DIR"])
    open("a-file", "w").close()
    says("serve", "--data-dir", "a-file", words=["cannot make the data directory a-file", "a file of that name", "Give --data-dir"])
    says("serve", "--data-dir", "/proc/no/such", words=["cannot make the data directory", "Give --data-dir"])
    says("serve", "--data-dir", "other", "--listen", taken, words=["cannot listen on " + taken, "another program", "choose another port"])
    says("serve", "--data-dir", service.directory, "--listen", "127.0.0.1:0", words=["another server uses", service.address, "stop it first"])
    says("serve", "--data-dir", "other", "--listen", "8080", status=64, words=["HOST:PORT, such as 127.0.0.1:8080"])
    says("env", "--data-dir", "nowhere", "--timeout", "0", words=["no server is ready", "nowhere/address", "martlet serve --data-dir nowhere"])
    # Where, and who.
    for command in (["run", "list"], ["run", "watch", "run_x"], ["population", "create", "p"]):
        says(*command, words=["no answer from " + nowhere, "Is the server running", "MARTLET_URL"], MARTLET_URL=nowhere)
    says("run", "list", status=64, words=["must be like http://127.0.0.1:8080, not localhost"], MARTLET_URL="localhost")
    for status, told in ((302, ["a redirect (302) to https://portal.example/login"]), (504, ["read time-out is shorter"]), (407, ["name and a password"]),
                         (200, ["it is no JSON"])):
        class Between(http.server.BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def do_GET(self, status=status):
                self.send_response(status)
                self.send_header("Location", "https://portal.example/login?token=secret")
                self.send_header("Content-Length", "0")
                self.end_headers()

        between = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Between)
        threading.Thread(target=between.serve_forever, daemon=True).start()
        says("run", "list", words=told, MARTLET_URL=f"http://127.0.0.1:{between.server_address[1]}")
        between.shutdown()
        between.server_close()
    says("run", "list", words=["No token was given", "MARTLET_TOKEN", "martlet env"], MARTLET_TOKEN=None)
    says("run", "list", words=["not known, expired or revoked", "MARTLET_TOKEN holds", "martlet env"], MARTLET_TOKEN="old")
    viewer, _ = service.staff_token("viewer")
    says("population", "create", "p", words=["forbidden"], MARTLET_TOKEN=viewer)
    # The run file.
    says("run", "create", "none.yaml", words=["cannot read none.yaml: no such file"])
    for name, text, words in (
        ("open.yaml", "name: [x\n", ["not valid YAML", "line 2, column 1", "expected ',' or ']'"]),
        ("twice.json", '{"population": "p",\n "rounds": 3,\n "rounds": 40}',
         ["not valid JSON", "line 3, column 2", 'the name "rounds" comes twice']),
        ("comma.json", '{"population": "p",\n}', ["not valid JSON", "line 2, column 1", "expected a name in quotes, not '}'"]),
        ("bytes.yaml", b"population: p\nname: \xff\n", ["not valid YAML", "line 2 is not UTF-8"]),
        ("wrong.yaml", "population: p\nrounds: ten\nmodel: {architecture: gpt}\ncohort: {gaol: 3}\n",
         ["4 fields are wrong", "/rounds: must be a whole number", "'gpt' is not one of cifg-lstm", "/cohort/goal: is required", "/cohort/gaol: is not a known field"]),
        ("alone.yaml", "population: nobody\nrounds: 1\nmodel: {architecture: external}\ncohort: {goal: 2}\nprivacy: {mode: none}\n",
         ["no population 'nobody'", "martlet population create nobody"]),
    ):
        with open(name, "wb") as file:
            file.write(text if isinstance(text, bytes) else text.encode())
        says("run", "create", name, words=words)
    # Runs and clients.
    says("run", "start", "run_x", words=["no run 'run_x'", "martlet run list"])
    service.population()
    run = service.run()
    shell.piped("run", "explain", run)
    waits = service.call("GET", f"/v1/runs/{run}")["waiting_for"]
    assert "The population has only 0 clients: enroll more" in waits, waits
    says("client", "--enrollment-token", "wrong", "--data", "a-file", "--state-dir", "phone", words=["enrollment token", "not known, expired or revoked", "martlet population token"])
    says("client", "--enrollment-token", "wrong", "--data", "none.txt", "--state-dir", "phone", words=["cannot read the file none.txt: no such file"])
    says("client", "--enrollment-token", "wrong", "--data", ".", "--state-dir", "phone", words=["it is a directory"])
    says("client", "--data", "a-file", "--state-dir", "stranger", words=["not registered yet", "--enrollment-token", "martlet population token"])
    for option, more in (("--data", ["--model", "a-file"]), ("--model", ["--data", "a-file"])):
        says("trainer", "check", "--cmd", "true", option, "nofile", *more, status=64, words=[f"{option}: there is no file or directory nofile"])
    says("fleet", "--enrollment-token", "x", "--clients", "0", "--state-dir", "f", status=64, words=["--clients must be at least 1"])
    says("rum", status=64, words=["rum", "martlet --help"])
    # And what does work says what comes next.
    says("population", "create", "wards", "--epsilon", "4", status=0, words=["wards (pop_", "epsilon 4 at delta 1e-05", "martlet population token wards"])
    with open("good.yaml", "w") as file:
        file.write("name: first\npopulation: wards\nrounds: 3\nmodel: {architecture: cifg-lstm, config: {vocab_size: 52, embedding_dim: 2, hidden_dim: 2}}\n"
                   "cohort: {goal: 2, max_participations: 1}\nprivacy: {mode: central, noise_multiplier: 2}\n")
    says("run", "create", "good.yaml", "--dry-run", status=0, words=["would train:  cifg-lstm", "budget:", "of 4 spent afterwards; 3 of 3 rounds fit", "warning:"])
    says("run", "create", "good.yaml", "--start", status=0, words=["is running: first, 3 rounds of 2 updates", "waits for", "warning: ", "martlet run watch run_"])
    environment = {name: value for name, value in shell.environment.items() if not name.startswith("MARTLET_")}
    answer = subprocess.run(
        ["bash", "-c", f'eval "$({shell.binary} env --data-dir {service.directory})"; {shell.binary} run list'],
        env=environment, capture_output=True, text=True, timeout=PATIENCE,
    )
    assert answer.returncode == 0 and "first" in answer.stdout, answer.stderr
    if shutil.which("fish"):
        answer = subprocess.run(
            ["fish", "--no-config", "-c", f"{shell.binary} env --data-dir {service.directory} --fish | source; echo $MARTLET_URL"],
            env=environment, capture_output=True, text=True, timeout=PATIENCE,
        )
        assert answer.stdout.strip() == service.address, answer
    port.close()
    free.close()


def completing(service):
    """Completions load in each shell that is here, and complete."""
    shell = Shell(service)
    os.chdir(service.directory)
    for name in ("bash", "zsh", "fish"):
        with open(f"martlet.{name}", "w") as file:
            file.write(shell.piped("completions", name))
    environment = dict(shell.environment, PATH=os.path.dirname(shell.binary) + ":" + os.environ["PATH"])

    def run(*command):
        answer = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE)
        assert answer.returncode == 0, f"{command}: {answer.stderr}"
        return answer.stdout

    answer = run(
        "bash", "--norc", "-c",
        "source martlet.bash; COMP_WORDS=(martlet run wa); COMP_CWORD=2; COMP_LINE='martlet run wa'; COMP_POINT=14;"
        "$(complete -p martlet | sed 's/.*-F \\([^ ]*\\).*/\\1/') martlet wa run; printf '%s\\n' \"${COMPREPLY[@]}\"",
    )
    assert answer.split() == ["watch"], answer
    # As people meet them: typed at a prompt, completed by the Tab key.
    setup = "source ./martlet.bash; PS1='> '"
    assert typed(["bash", "--norc", "--noprofile"], setup, "martlet run ex\t", "martlet run explain", environment)
    if shutil.which("zsh"):
        run("zsh", "-n", "martlet.zsh")
        assert open("martlet.zsh").read().startswith("#compdef martlet")
        os.makedirs("functions", exist_ok=True)
        shutil.copy("martlet.zsh", "functions/_martlet")
        setup = "PS1='> '; fpath=($PWD/functions $fpath); autoload -Uz compinit; compinit -u -D"
        assert typed(["zsh", "-f"], setup, "martlet run ex\t", "martlet run explain", environment)
    if shutil.which("fish"):
        answer = run("fish", "--no-config", "-c", "source martlet.fish; complete -C 'martlet run ex'")
        assert answer.startswith("explain"), answer
    assert "not for tcsh" in shell.piped("completions", "tcsh", status=64)
    overview = shell.piped("--help")
    for example in ("martlet demo --keep", "martlet run create Examples/keyboard/run.yaml --start", "martlet run plot RUN -o curve.svg"):
        assert example in overview
    assert max(map(len, overview.splitlines())) <= 80


SCENARIOS = [watching, watching_a_long_run, explaining_and_plotting, first_mistakes, completing]


def main():
    binary, names = os.path.abspath(sys.argv[1]), sys.argv[2:]
    known = {scenario.__name__: scenario for scenario in SCENARIOS}
    for name in names or known:
        start = time.monotonic()
        with Service(binary) as service:
            known[name](service)
        print(f"passed: {name} in {time.monotonic() - start:.1f} s", flush=True)


if __name__ == "__main__":
    main()
