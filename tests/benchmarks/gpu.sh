#!/usr/bin/env bash
# Everything that is worth measuring on a machine with a GPU, in under nine minutes:
#
#   tests/benchmarks/gpu.sh [--tiny] >gpu.jsonl
#
# One JSON object a measurement, with "part" in each (tests/benchmarks/gpu.py says what they are); talk goes to stderr.
# A part that fails or takes too long is an object with "error", and the others go on. Without a GPU, or with --tiny,
# sizes are such that all of it takes a minute: that shows that it runs, not how fast anything is.
set -uo pipefail
cd "$(dirname "$0")/../.."
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
python=${PYTHON:-python3}

part() {  # name, seconds at most, options
    local name=$1 limit=$2 status
    shift 2
    echo "gpu.sh: $name" >&2
    timeout "$limit" "$python" tests/benchmarks/gpu.py "$name" "$@"
    status=$?
    [ $status -eq 0 ] || echo "{\"part\": \"$name\", \"error\": \"status $status\"}"
}

part machine 60 "$@"
part step 180 "$@"
part convolutions 60 "$@"
part loader 60 "$@"
part extract 90 "$@"
part ranks 80 "$@"
