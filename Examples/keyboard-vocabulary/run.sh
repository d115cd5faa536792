#!/usr/bin/env bash
# A keyboard's vocabulary without collecting text: counts over a list, words that nobody listed, and a model that uses them.
source "$(dirname "$0")/../lib.sh"
start_server
# The keyboards ask again within seconds, so that the example is over soon.
"$martlet" population create keyboards --epsilon 8 --delta 1e-5 >/dev/null
run=$("$martlet" run create "$(run_file histogram.yaml)" --candidates "$here/candidates.txt" --start --json | jq -r .id)
"$martlet" fleet --enrollment-token "$(enrollment keyboards 300)" --clients 300 --state-dir "$work/fleet" >"$work/fleet.log" 2>&1 &
wait_for "$run"
"$martlet" run words "$run" --vocabulary "$work/vocab.txt"

run=$("$martlet" run create "$(run_file training.yaml)" --vocabulary "$work/vocab.txt" --start --json | jq -r .id)
wait_for "$run"
echo "trained: a model over $(($(wc -l <"$work/vocab.txt") - 4)) of those words"
"$martlet" population show keyboards

# Discovery needs everyone enrolled before the draw: the voters of each round are drawn from those.
"$martlet" population create explorers --epsilon 16 --delta 1e-4 >/dev/null
"$martlet" fleet --enrollment-token "$(enrollment explorers 500)" --clients 500 --state-dir "$work/explorers" --width 50 \
    >"$work/explorers.log" 2>&1 &
until [ "$("$martlet" population show explorers --json | jq '[.clients[]] | add // 0')" -ge 500 ]; do sleep 0.2; done
run=$(start_run discovery.yaml)
wait_for "$run"
"$martlet" run words "$run"
