#!/usr/bin/env bash
# Creates a population and a run on the server, then takes part with 6,000 virtual clients.
set -euo pipefail
MARTLET_TOKEN=$(cat /data/admin-token)
export MARTLET_TOKEN
martlet population show keyboards >/dev/null 2>&1 || {
    martlet population create keyboards --epsilon 8 --delta 1e-5
    martlet run create /keyboard.yaml --start
}
token=$(martlet population token keyboards --uses 6000 --json | sed 's/.*"token":"\([^"]*\)".*/\1/')
exec martlet fleet --enrollment-token "$token" --clients 6000 --state-dir /tmp/fleet
