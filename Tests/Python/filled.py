"""Puts a long history into a stopped server's data directory: copies of the rows that a first round has left."""

import json
import sqlite3
import time


def clone(database, table, row, changes):
    """Inserts copies of a row with some columns changed; columns that this script does not know are kept."""
    columns = [item[1] for item in database.execute(f"PRAGMA table_info({table})")]
    places = ", ".join("?" * len(columns))
    database.executemany(
        f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({places})",
        ([change[name] if name in change else row[name] for name in columns] for change in changes),
    )


def fill(service, run, rounds, clients=0):
    """Adds committed rounds, versions and measurements up to a number of rounds, an open round after them, and clients."""
    database = sqlite3.connect(service.directory + "/martlet.sqlite")
    database.row_factory = sqlite3.Row

    def row(table, condition, *values):
        return dict(database.execute(f"SELECT * FROM {table} WHERE {condition}", values).fetchone())

    last = database.execute("SELECT MAX(number) FROM round WHERE run_id = ? AND phase = 'committed'", (run,)).fetchone()[0]
    done = row("round", "run_id = ? AND number = ?", run, last)
    opened = row("round", "run_id = ? AND number = ?", run, last + 1)
    version = row("model_version", "run_id = ? AND version = ?", run, last)
    client = row("client", "1")
    database.execute("DELETE FROM round WHERE run_id = ? AND number = ?", (run, last + 1))
    clone(database, "round", done, ({"number": number} for number in range(last + 1, rounds + 1)))
    clone(database, "round", opened, [{"number": rounds + 1}])
    clone(database, "model_version", version, ({"version": number} for number in range(last + 1, rounds + 1)))
    clone(
        database, "model_metrics",
        {"run_id": run, "source": "held-out", "measured_at": time.time()},
        ({"version": number, "metrics": json.dumps({"accuracy": 1 - 0.9 * 0.997 ** number, "loss": 3 * 0.998 ** number})}
         for number in range(last if last == 1 else last + 1, rounds + 1)),
    )
    clone(
        database, "client", client,
        ({"id": f"clt_{index:06}", "registration_key": None, "labels": json.dumps({"tier": str(index % 3)})} for index in range(clients)),
    )
    database.commit()
    database.close()
