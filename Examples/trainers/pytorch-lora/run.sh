#!/usr/bin/env bash
# Three sites fine-tune a frozen causal model with LoRA in PyTorch; only adapters travel. See ../README.md.
# PYTHON names an interpreter that has torch and safetensors.
source "$(dirname "$0")/../../lib.sh"
trainer="${PYTHON:-python3} -B $here/trainer.py --base $work/base"
texts=$here/../../voice-commands/commands
# In a project of yours the base is a model that exists; here, a tiny one that has read this project's documents.
$trainer --make-base "$here"/../../../docs/{concepts,faq,privacy}.md
$trainer --make-adapters "$work/first.safetensors"
"$martlet" trainer check --cmd "$trainer" --model "$work/first.safetensors" --data "$texts/speaker-00.txt"
start_server
"$martlet" population create speakers >/dev/null
run=$("$martlet" run create "$(run_file run.yaml)" --json | jq -r .id)
curl -sS --fail-with-body -o "$work/answer" -H "Authorization: Bearer $MARTLET_TOKEN" \
    -H 'Content-Type: application/vnd.safetensors' -T "$work/first.safetensors" "$MARTLET_URL/v1/runs/$run/model"
"$martlet" run start "$run" >"$work/answer"
token=$(enrollment speakers 3)
for site in 00 01 02; do
    "$martlet" client --trainer-command "$trainer" --data "$texts/speaker-$site.txt" --trainer-threads 1 \
        --enrollment-token "$token" --state-dir "$work/site-$site" >"$work/site-$site.log" 2>&1 &
done
wait_for "$run"
weights "$run" "$work/adapters.safetensors"
echo "trained: $("$martlet" run show "$run" --json | jq -r '"\(.committed_rounds) rounds, model \(.model_sha256)"')"
echo "bits a byte on speakers who trained nobody: $($trainer --judge "$texts"/speaker-0[3-5].txt) before," \
    "$($trainer --judge "$texts"/speaker-0[3-5].txt --adapters "$work/adapters.safetensors") after"
