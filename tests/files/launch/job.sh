#!/bin/bash
# Run by Hugging Face Jobs over the carried folder, which it finds in /carried.
set -euo pipefail
cp -r /carried /tmp/work
cd /tmp/work
python -m pip install --quiet -r requirements.txt
push() { hf buckets sync --quiet runs/dpo-on-12-preferences hf://buckets/me/dpo-run/runs/dpo-on-12-preferences; }
(while sleep 300; do push || true; done) &
code=0
accelerate launch --config_file training/launch_presets/ddp.yaml --num_processes 4 --num_machines 1 --main_process_port 0 --module training.dpo runs/dpo-on-12-preferences || code=$?
push
exit "$code"
