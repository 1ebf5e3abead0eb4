#!/usr/bin/env bash
# From nothing to a table of cross-modal results, on a small world that hdcid makes itself.
#
#   examples/quickstart.sh [FOLDER]      (default: ./quickstart)
#
# Installs hdcid into a virtual environment if there is none. Run it again after an
# interruption: every stage goes on where it stopped.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
venv=${HDCID_VENV:-$here/.venv}
if [ ! -x "$venv/bin/hdcid" ]; then
    [ -x "$venv/bin/python" ] || "${PYTHON:-python3}" -m venv "$venv"
    "$venv/bin/python" -m pip install --disable-pip-version-check "$here[plot]"
fi
PATH=$venv/bin:$PATH

mkdir -p "${1:-quickstart}"
cd "${1:-quickstart}"

hdcid synth .
hdcid extract --modality video --backbone hog videos/
hdcid extract --modality audio --backbone logmel videos/
hdcid extract --modality text --backbone hash data/captions.csv
hdcid pretrain --layers 2 --epochs 30

# Learn on one modality, test on the other; clips never learned on.
{
    for toc in none 128; do
        hdcid cmg ave --train v --test a --toc $toc
        hdcid cmg ave --train a --test v --toc $toc
        hdcid cmg avvp --train v --test a --toc $toc
        hdcid cmg avvp --train a --test v --toc $toc
    done
    # The ceiling: the same probe, supervised, on the raw features of one modality.
    for modality in v a; do
        hdcid cmg ave --supervised --train $modality --test $modality
        hdcid cmg avvp --supervised --train $modality --test $modality
    done
} >results.jsonl
hdcid report results.jsonl
