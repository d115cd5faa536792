#!/usr/bin/env bash
# 24 voice assistants learn from transcribed commands, with a rule that withstands bad ones. See README.md.
source "$(dirname "$0")/../lib.sh"
start_server
"$martlet" population create speakers >/dev/null
run=$(start_run run.yaml)
"$martlet" fleet --enrollment-token "$(enrollment speakers 24)" --clients 24 --text "$here/commands" \
    --state-dir "$work/fleet" >"$work/fleet.log" 2>&1 &
wait_for "$run"
echo "Updates of round 1, the longest first:"
curl -sS -H "Authorization: Bearer $MARTLET_TOKEN" "$MARTLET_URL/v1/runs/$run/rounds/1/updates" |
    jq -r '.items[:3][] | "  norm \(.norm * 100 | round / 100), cosine \(.cosine * 100 | round / 100), counted \(.counted)"'
weights "$run" "$work/model.safetensors"
"$martlet" suggest --model "$work/model.safetensors" --text "turn on the " -k 3
