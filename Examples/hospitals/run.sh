#!/usr/bin/env bash
# Four hospitals fit one model of heart disease; no patient's row leaves its hospital. See README.md.
source "$(dirname "$0")/../lib.sh"
start_server
"$martlet" population create hospitals >/dev/null
token=$(enrollment hospitals 4)
for site in cleveland hungarian switzerland va; do
    "$martlet" client --data "$here/data/heart-disease.csv" --where "site=$site" --where split=train \
        --enrollment-token "$token" --state-dir "$work/$site" >"$work/$site.log" 2>&1 &
done
statistics=$(ROUNDS='' start_run statistics.yaml)
wait_for "$statistics"
run=$(start_run model.yaml STATISTICS_RUN "$statistics")
wait_for "$run"
weights "$run" "$work/model.safetensors"
echo "The federated model's weights, in the order of the features, and its bias:"
python3 - "$work/model.safetensors" <<'PY'
import json, struct, sys
content = open(sys.argv[1], "rb").read()
(length,) = struct.unpack("<Q", content[:8])
header = json.loads(content[8 : 8 + length])
for name in ("layers.0.weight", "layers.0.bias"):
    begin, end = header[name]["data_offsets"]
    block = content[8 + length + begin : 8 + length + end]
    print(name, " ".join(f"{x:.6f}" for x in struct.unpack(f"<{len(block) // 4}f", block)))
PY
