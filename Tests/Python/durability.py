"""What is on the disk before a client is told that its update was taken, before a model is published, and before a backup has its
name: by strace.

Usage: durability.py MARTLET
"""

import re, subprocess, sys, tempfile

from service import PATIENCE, Service, wait_until

SYNCS = ("fsync", "fdatasync", "syncfs")
CALLS = "fdatasync,fsync,rename,renameat,renameat2,link,linkat,write,writev,sendto,sendmsg"


def events(path):
    """The calls in order: a sync counts when it has ended, everything else when it begins."""
    begun = {}
    for line in open(path, errors="replace"):
        thread, _, call = line.partition(" ")
        call = call.strip()
        resumed = re.match(r"<\.\.\. (\w+) resumed>(.*)", call)
        if resumed:
            whole = begun.pop(thread, "") + resumed.group(2)
            if whole.startswith(SYNCS):
                yield whole
        elif call.endswith("<unfinished ...>"):
            text = call[:-len("<unfinished ...>")]
            begun[thread] = text
            if not text.startswith(SYNCS):
                yield text
        else:
            yield call


def in_order(calls, *steps):
    """Finds each step after the one before it."""
    place = 0
    for name, pattern in steps:
        found = next((i for i in range(place, len(calls)) if re.search(pattern, calls[i])), None)
        assert found is not None, f"{name} does not follow: no {pattern!r} after call {place}\n" + "\n".join(calls[place:place + 60])
        place = found + 1


def main():
    with tempfile.TemporaryDirectory() as directory:
        trace = directory + "/trace"
        # The tracer is a grandchild, so that signals go to the server.
        wrapper = ["strace", "-D", "-f", "-q", "-y", "-s", "40", "-o", trace, "-e", "trace=" + CALLS]
        with Service(sys.argv[1], wrapper=wrapper) as service:
            service.population(epsilon=None)
            service.run(rounds=1, cohort={"goal": 1, "minimum": 1, "over_selection": 1.0}, privacy={"mode": "none"})
            client = service.clients(1)[0]
            work = service.assignment(client)
            assert service.deliver(client, work)["state"] == "accepted"
            wait_until("the run is completed", lambda: service.call("GET", f"/v1/runs/{work['run']}")["state"] == "completed")
            service.process.terminate()
            service.process.wait(PATIENCE)
            copy, backup_trace = directory + "/copy", directory + "/backup-trace"
            subprocess.run(["strace", "-f", "-q", "-y", "-o", backup_trace, "-e", "trace=syncfs,fsync,rename,renameat,renameat2",
                            sys.argv[1], "backup", copy, "--data-dir", service.directory],
                           check=True, stdout=subprocess.DEVNULL)
        in_order(
            list(events(backup_trace)),
            ("the backup's files", rf"^syncfs\(\d+<{directory}/copy\.partial> *\) += 0"),
            ("the backup's name", r"^rename(at2?)?\(.*copy\.partial"),
            ("its directory", rf"^fsync\(\d+<{directory}> *\) += 0"),
        )
        calls = list(events(trace))
        update = re.escape(work["id"])
        in_order(
            calls,
            ("the update's bytes", rf"^fdatasync\(\d+<[^>]*/spool/{update}[^>]*\.part> *\) += 0"),
            ("its name", rf"^rename(at2?)?\(.*{update}[^\"]*\.part.*{update}\.update"),
            ("the name's directory", r"^fsync\(\d+<[^>]*/spool> *\) += 0"),
            ("the transaction", r"^f(data)?sync\(\d+<[^>]*martlet\.sqlite-wal> *\) += 0"),
            ("the answer", r"^(write|writev|sendto|sendmsg)\(.*HTTP/1\.1 200"),
        )
        in_order(
            calls,
            ("the model's bytes", r"^fdatasync\(\d+<[^>]*/spool/[^>]*\.result\.part-[^>]*> *\) += 0"),
            ("the result's name", r"^rename(at2?)?\(.*\.result\.part-.*\.result\""),
            ("its directory", r"^fsync\(\d+<[^>]*/spool> *\) += 0"),
            ("the manifest's bytes", r"^fsync\(\d+<[^>]*/spool/[^>]*\.result\.manifest\.part-[^>]*> *\) += 0"),
            ("the manifest's name", r"^rename(at2?)?\(.*\.manifest\.part-.*\.result\.manifest\""),
            ("its directory", r"^fsync\(\d+<[^>]*/spool> *\) += 0"),
            ("the blob's name", r"^link(at)?\(.*\.result\".*/blobs/"),
            ("its directory", r"^fsync\(\d+<[^>]*/blobs/[0-9a-f]{2}> *\) += 0"),
            ("the transaction", r"^f(data)?sync\(\d+<[^>]*martlet\.sqlite-wal> *\) += 0"),
        )


main()
