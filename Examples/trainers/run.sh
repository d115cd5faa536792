#!/usr/bin/env bash
# Three sites train with a program of their own; the server runs FedAdam over what they send. See README.md.
source "$(dirname "$0")/../lib.sh"
"$martlet" trainer check --cmd "python3 $here/plain-python/trainer.py"
start_server
"$martlet" population create sites >/dev/null
run=$("$martlet" run create "$(run_file run.yaml)" --json | jq -r .id)
PYTHONPATH="$here/plain-python" python3 -B -c '
import sys, trainer
trainer.write_safetensors(sys.argv[1], {"weight": ([3], [0.0] * 3), "bias": ([1], [0.0])}, {"format": "pt"})' "$work/first.safetensors"
curl -sS --fail-with-body -o "$work/answer" -H "Authorization: Bearer $MARTLET_TOKEN" \
    -H 'Content-Type: application/vnd.safetensors' -T "$work/first.safetensors" "$MARTLET_URL/v1/runs/$run/model"
"$martlet" run start "$run" >"$work/answer"
token=$(enrollment sites 3)
for site in 0 1 2; do
    "$martlet" client --trainer-command "python3 $here/plain-python/trainer.py" --data "$here/plain-python/data/site-$site.csv" \
        --enrollment-token "$token" --state-dir "$work/site-$site" >"$work/site-$site.log" 2>&1 &
done
wait_for "$run"
weights "$run" "$work/model.safetensors"
echo "trained: $("$martlet" run show "$run" --json | jq -r '"\(.committed_rounds) rounds, model \(.model_sha256)"')"
