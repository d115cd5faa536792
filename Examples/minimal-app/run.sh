#!/usr/bin/env bash
# A run with two devices of an app that links nothing but Foundation. APP names the built program:
# swift build --package-path Examples/minimal-app
source "$(dirname "$0")/../lib.sh"
app=${APP:-$here/.build/debug/URLSessionApp}
start_server
"$martlet" population create shops >/dev/null
run=$("$martlet" run create "$(run_file run.yaml)" --json | jq -r .id)
"$app" first-model "$work/first.safetensors"
curl -sS --fail-with-body -o "$work/answer" -H "Authorization: Bearer $MARTLET_TOKEN" \
    -H 'Content-Type: application/vnd.safetensors' -T "$work/first.safetensors" "$MARTLET_URL/v1/runs/$run/model"
"$martlet" run start "$run" >"$work/answer"
timeout "${PATIENCE:-120}" "$app" "$MARTLET_URL" "$(enrollment shops 2)" "$work/app" | tee "$work/app.log"
wait_for "$run"
[ "$(grep -c accepted "$work/app.log")" = 10 ] || { echo "not every update was accepted" >&2; exit 1; }
echo "$(basename "$app"): $("$martlet" run show "$run" --json | jq -r '"\(.committed_rounds) rounds, model \(.model_sha256)"')"
