#!/usr/bin/env bash
# From your own videos, a folder for each class, to a table for a paper.
#
#   examples/own_videos.sh VIDEOS [FOLDER]      (default: ./own)
#
# VIDEOS holds VIDEOS/CLASS/*.mp4. All that is made goes into FOLDER. Run it again after an interruption: every
# stage goes on where it stopped. Without downloaded weights:
#
#   VIDEO="--backbone hog" AUDIO="--backbone logmel" examples/own_videos.sh VIDEOS
#
# PRETRAIN="--epochs 50" adds options to `hdcid pretrain`, CMG="--seeds 5" to every `hdcid cmg`.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
PATH=${HDCID_VENV:-$here/../.venv}/bin:$PATH # where quickstart.sh installs

videos=$(cd "${1:?usage: $0 VIDEOS [FOLDER]}" && pwd)
mkdir -p "${2:-own}"
cd "${2:-own}"

# Classes, and which clips are to learn from and which to test: look at the table, and change it if you know better.
[ -f data/classify.csv ] || hdcid convert annotations "$videos"
media=$videos
[ ! -f data/clips.csv ] || media=data/clips.csv # where several files have one name

hdcid extract --modality video ${VIDEO:-} "$media"
hdcid extract --modality audio ${AUDIO:-} "$media"
hdcid info data/

# Without labels, and without the clips that are to test or to choose by.
hdcid pretrain ${PRETRAIN:-}
hdcid toc

# Learn on one modality, test on the other; then the ceiling, the same probe on the raw features of one modality.
{
    hdcid cmg classify --train v --test a ${CMG:-}
    hdcid cmg classify --train a --test v ${CMG:-}
    hdcid cmg classify --train v --test v --supervised ${CMG:-}
    hdcid cmg classify --train a --test a --supervised ${CMG:-}
} >results.jsonl

hdcid report results.jsonl -o table.tex
hdcid report results.jsonl --checkpoint checkpoints/latest -o report.html
hdcid report results.jsonl
