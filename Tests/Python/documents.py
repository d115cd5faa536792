#!/usr/bin/env python3
"""Runs every command of the documents, in the order in which a reader meets them. documents.py BINARY [DOCUMENT ...]

A document's ```sh blocks are one shell session in a directory of its own. A block that cannot run is marked
```sh not-run: REASON. Commands anywhere else than in sh blocks are an error, and so is a link to nothing. The form of the
documents is checked by document_rules.py.
"""

import concurrent.futures
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import document_rules

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = re.compile(r"^\s*(\$ )?(martlet(?![.\w])|curl|scripts/|docker|swift) ?")
# A session: a failing line ends it, what it started is stopped.
# What Python needs for a document's session; without it the document is skipped aloud.
MODULES = {"python.md": "martlet"}
PROLOGUE = """
set -euo pipefail
trap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT
"""


def documents():
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(text):
    """(kind, first line number, lines) of each fenced or indented block."""
    found = []
    lines = text.splitlines()
    index = 0
    while index < len(lines):
        fence = re.match(r"^(\s*)```(.*)$", lines[index])
        if fence:
            start = index + 1
            index = start
            while index < len(lines) and not lines[index].strip().startswith("```"):
                index += 1
            found.append((fence[2].strip(), start + 1, lines[start:index]))
        elif lines[index].startswith("    ") and (index == 0 or not lines[index - 1].strip()):
            start = index
            while index < len(lines) and (lines[index].startswith("    ") or not lines[index].strip()):
                index += 1
            found.append(("indented", start + 1, lines[start:index]))
            continue
        index += 1
    return found


def session(path):
    """The document's commands as one script, and how many there are."""
    script, count = [], 0
    for kind, number, lines in blocks(path.read_text()):
        if kind.startswith("sh not-run:"):
            assert len(kind) > len("sh not-run:") + 5, f"{path.name}:{number}: say why the block is not run"
            continue
        if kind != "sh":
            stray = [line for line in lines if COMMANDS.match(line)]
            assert not stray or kind in ("swift", "python", "yaml"), f"{path.name}:{number}: commands outside of a sh block: {stray}"
            continue
        script.append(f"echo '== {path.name}:{number}'")
        for line in lines:
            count += 1 if line.strip() and not line.lstrip().startswith("#") else 0
            script.append(line)
    return "\n".join(script), count


def run(path, binary):
    script, count = session(path)
    if not count:
        return 0
    python = os.environ.get("MARTLET_TEST_PYTHON", "python3")
    module = MODULES.get(path.name)
    if module and subprocess.run([python, "-c", f"import {module}"], capture_output=True).returncode:
        print(f"skipped: {path.name}, as {python} has no {module}: pip install ./python", flush=True)
        return None
    with tempfile.TemporaryDirectory(prefix="martlet-documents-") as directory:
        for name in ("Examples", "scripts", "docker"):
            os.symlink(ROOT / name, os.path.join(directory, name))
        os.makedirs(os.path.join(directory, "bin"))
        wrapper = os.path.join(directory, "bin", "martlet")
        Path(wrapper).write_text(
            "#!/bin/bash\n"
            f'case "${{1:-}} $*" in\n  *--listen*) exec {binary} "$@";;\n  serve*) exec {binary} "$@" --listen 127.0.0.1:0;;\nesac\n'
            f'exec {binary} "$@"\n'
        )
        os.chmod(wrapper, 0o755)
        environment = {
            key: value for key, value in os.environ.items() if not key.startswith("MARTLET_")
        } | {
            # `python` is the interpreter that has what the tests need, as in a virtual environment.
            "PATH": ":".join([f"{directory}/bin", *([os.path.dirname(python)] if os.path.dirname(python) else []), os.environ["PATH"]]),
            "HOME": directory, "PYTHON": python,
        }
        answer = subprocess.run(
            ["bash", "-c", PROLOGUE + script], cwd=directory, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, timeout=1500,
        )
        assert answer.returncode == 0, f"{path.name}: status {answer.returncode}\n{answer.stdout[-4000:]}"
        # The operator guide revokes a client of a fleet that may still be at work and then says so.
        printed = answer.stdout.replace("Error: this client has been revoked", "")
        for word in ("Error:", '"status":4', '"status":5'):
            assert word not in printed, f"{path.name} printed an error:\n{answer.stdout[-4000:]}"
    return count


def check_links():
    """Every relative link points to a file that is there, and to a heading that it has."""
    findings = document_rules.broken_links(ROOT)
    assert not findings, "\n".join(map(str, findings))
    print(f"passed: links of {len(document_rules.linked_documents(ROOT))} documents")


def main():
    binary, names = os.path.abspath(sys.argv[1]), sys.argv[2:]
    if names == ["links"]:
        return check_links()
    def one(path):
        start = time.monotonic()
        count = run(path, binary)
        if count is not None:
            print(f"passed: {path.relative_to(ROOT)}, {count} lines in {time.monotonic() - start:.1f} s", flush=True)

    # Documents are independent of each other.
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        list(pool.map(one, [path for path in documents() if not names or path.name in names]))


if __name__ == "__main__":
    main()
