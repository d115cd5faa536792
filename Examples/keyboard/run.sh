#!/usr/bin/env bash
# 400 virtual keyboards learn a character model under a privacy budget of epsilon 8. See README.md.
source "$(dirname "$0")/../lib.sh"
start_server
"$martlet" population create keyboards --epsilon 8 --delta 1e-5 >/dev/null
run=$(start_run run.yaml)
"$martlet" fleet --enrollment-token "$(enrollment keyboards 400)" --clients 400 --state-dir "$work/fleet" >"$work/fleet.log" 2>&1 &
wait_for "$run"
weights "$run" "$work/model.safetensors"
"$martlet" population show keyboards
"$martlet" suggest --model "$work/model.safetensors" --text "do you want to " -k 3
