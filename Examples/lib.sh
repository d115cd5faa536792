# What the examples share: a server of their own in a temporary directory, an operator's calls, and an end that leaves nothing.
# MARTLET names the program (default: the one on the PATH); ROUNDS shortens a run,
# PATIENCE is how many seconds a run may take.
set -euo pipefail
martlet=${MARTLET:-martlet}
here=$(cd "$(dirname "${BASH_SOURCE[1]}")" && pwd)
work=$(mktemp -d)
finish() {
    local code=$?
    kill $(jobs -p) 2>/dev/null || true
    wait 2>/dev/null || true
    rm -rf "$work"
    exit $code
}
trap finish EXIT

start_server() {
    "$martlet" serve --data-dir "$work/server" --listen 127.0.0.1:0 >"$work/server.log" 2>&1 &
    for _ in $(seq 6000); do
        [ -s "$work/server/address" ] && [ -s "$work/server/admin-token" ] && break
        kill -0 $! 2>/dev/null || { cat "$work/server.log" >&2; return 1; }
        sleep 0.1
    done
    MARTLET_URL=$(cat "$work/server/address")
    MARTLET_TOKEN=$(cat "$work/server/admin-token")
    export MARTLET_URL MARTLET_TOKEN
}

# The run file, shortened where ROUNDS is set, other words replaced: run_file FILE [OLD NEW]...
run_file() {
    local file=$1 text
    shift
    text=$(cat "$here/$file")
    [ -z "${ROUNDS:-}" ] || text=$(sed -E "s/^rounds: .*/rounds: $ROUNDS/" <<<"$text")
    while [ $# -gt 0 ]; do
        text=${text//$1/$2}
        shift 2
    done
    printf '%s\n' "$text" >"$work/$file"
    echo "$work/$file"
}

start_run() { "$martlet" run create "$(run_file "$@")" --start --json | jq -r .id; }
enrollment() { "$martlet" population token "$1" --uses "$2" --json | jq -r .token; }
wait_for() {
    timeout "${PATIENCE:-900}" "$martlet" run watch "$1" >"$work/watch.log" || { tail -3 "$work/watch.log" >&2; return 1; }
    [ "$("$martlet" run show "$1" --json | jq -r .state)" = completed ]
}
weights() { curl -sSL --fail-with-body -H "Authorization: Bearer $MARTLET_TOKEN" -o "$2" "$MARTLET_URL/v1/runs/$1/models/latest/weights"; }
