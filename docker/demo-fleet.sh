#!/bin/sh
# Creates a population and a run on the server, then takes part with many virtual clients.
#   DATA_DIR   the server's data directory, for the administrator's token     RUN_FILE   what is trained
#   CLIENTS    how many virtual clients
set -eu
: "${DATA_DIR:=/data}" "${RUN_FILE:=/keyboard.yaml}" "${CLIENTS:=6000}"
MARTLET_TOKEN=$(cat "$DATA_DIR/admin-token")
export MARTLET_TOKEN
martlet population show keyboards >/dev/null 2>&1 || {
    martlet population create keyboards --epsilon 8 --delta 1e-5
    martlet run create "$RUN_FILE" --start
}
token=$(martlet population token keyboards --uses "$CLIENTS" --json | sed -n 's/.*"token":"\([^"]*\)".*/\1/p')
exec martlet fleet --enrollment-token "$token" --clients "$CLIENTS" --state-dir "$(mktemp -d)"
