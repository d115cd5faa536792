#!/usr/bin/env bash
# A keyboard's vocabulary without collecting text: noised counts over a list, and a model over the words found. See README.md.
source "$(dirname "$0")/../lib.sh"
start_server
"$martlet" population create keyboards --epsilon 8 --delta 1e-5 >/dev/null
run=$("$martlet" run create "$(run_file histogram.yaml)" --candidates "$here/candidates.txt" --start --json | jq -r .id)
"$martlet" fleet --enrollment-token "$(enrollment keyboards 300)" --clients 300 --state-dir "$work/fleet" >"$work/fleet.log" 2>&1 &
wait_for "$run"
"$martlet" run words "$run" --vocabulary "$work/vocab.txt"

run=$("$martlet" run create "$(run_file training.yaml)" --vocabulary "$work/vocab.txt" --start --json | jq -r .id)
wait_for "$run"
echo "trained: a model over $(($(wc -l <"$work/vocab.txt") - 4)) of those words"
"$martlet" population show keyboards
