#!/usr/bin/env bash
# Three hospitals fit one scikit-learn model without moving their tables. PYTHON names an interpreter with martlet and scikit-learn. See README.md.
source "$(dirname "$0")/../lib.sh"
python=${PYTHON:-python3}
"$python" -c 'import martlet, sklearn' || { echo "PYTHON needs the packages martlet (pip install ./python) and scikit-learn." >&2; exit 1; }
cd "$work"
"$python" "$here/make_data.py"
"$python" -c 'import numpy as np; from martlet import tensors; from pathlib import Path
Path("first.safetensors").write_bytes(tensors.encode(tensors.first_model({"coef": np.zeros((1, 4)), "intercept": np.zeros(1)})))'
"$martlet" trainer check --cmd "$python $here/trainer.py" --data data/lake.csv --model first.safetensors
start_server
cp "$here/study.py" .
run_file run.yaml >/dev/null
"$python" study.py enrollment-token &
study=$!
while [ ! -s enrollment-token ]; do
    kill -0 "$study" 2>/dev/null || { echo "The study ended early." >&2; exit 1; }
    sleep 0.2
done
for hospital in north south lake; do
    "$martlet" client --trainer-command "$python $here/trainer.py" --data "data/$hospital.csv" --evaluation-data "data/$hospital-held-out.csv" \
        --enrollment-token "$(cat enrollment-token)" --state-dir "$hospital" >"$hospital.log" 2>&1 &
done
wait "$study"
echo "trained: $("$martlet" run list | grep -c completed) run of three hospitals"
