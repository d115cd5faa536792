"""The operator's side: makes the run, waits for its end, and shows what came of it. study.py [ENROLLMENT_TOKEN_FILE]

Writes the enrollment token to a file, so that the hospitals can start.
"""

import pathlib
import sys

import numpy as np

import martlet

HERE = pathlib.Path(__file__).parent
TOKEN_FILE = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "enrollment-token")

server = martlet.Server()
hospitals = server.create_population("hospitals")
run = martlet.Run.create(HERE / "run.yaml", model={"coef": np.zeros((1, 4)), "intercept": np.zeros(1)}, server=server)
run.start()
TOKEN_FILE.touch(mode=0o600)
TOKEN_FILE.write_text(hospitals.enrollment_token(uses=3))
run.watch()

for row in run.evaluations():
    measured = row["metrics"]["federated"]
    print(f"version {row['number']}: loss {measured['loss']:.3f}, AUC {measured['auc']:.3f}")
for name, array in run.weights().items():
    print(name, array.ravel().round(2))
