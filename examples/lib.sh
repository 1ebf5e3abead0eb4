# What the table scripts share; sourced by them with the table's name and their arguments.
#
# Usage of every script: examples/tableN.sh [--quick], in a working directory that holds
#
#   features/      feature files (`hdcid extract`); where the data sets have files of their own,
#                  features/pretrain/, features/ave/, features/avvp/, features/ucf2vgg/
#   data/          annotations
#
# It trains into checkpoints/TABLE/, measures into results/TABLE.jsonl and reports into results/TABLE.{html,tex}.
# Run again after an interruption, it goes on with the training and measures anew.
# --quick does all this in hdcid-quick/, on a small synthetic world and with small models: minutes, to see that it runs.
#
# Variables: SEEDS="0 1 2" repeats everything; TASKS="ave avvp" chooses tasks; PRETRAIN="--epochs 5" adds
# options to every `hdcid pretrain`, CMG="--protocol published" to every `hdcid cmg`.
set -euo pipefail

table=$1
shift
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
PATH=${HDCID_VENV:-$here/../.venv}/bin:$PATH # where quickstart.sh installs
quick=
for argument in "$@"; do
    case $argument in
    --quick) quick=yes ;;
    *)
        echo "usage: $0 [--quick]" >&2
        exit 2
        ;;
    esac
done

SEEDS=${SEEDS:-0}
TASKS=${TASKS:-ave avvp ave2avvp ucf2vgg}
if [ "$quick" ]; then
    PRETRAIN="--dim 64 --batch-size 20 --epochs 20 ${PRETRAIN:-}"
    CMG="--epochs 100 ${CMG:-}"
    mkdir -p hdcid-quick
    cd hdcid-quick
    hdcid synth . --clips 120 --classes 5
    hdcid extract --modality audio --backbone logmel videos
    hdcid extract --modality video --backbone hog --fps 4 videos
    hdcid extract --modality text --backbone hash
fi
mkdir -p results
results=results/$table.jsonl
: >"$results"

# folder NAME: the feature files of a data set, or those of all.
folder() {
    if [ -d "features/$1" ]; then echo "features/$1"; else echo features; fi
}

# pretrain RECIPE [OPTIONS...]: train checkpoints/TABLE/NAME-SEED as a recipe says, or go on with it. NAME, the
# recipe's without the table's, is how a result names its model; PREFIX stands before it.
pretrain() {
    name=${PREFIX:-}${1#*_}
    echo "== $table: pretrain $name, seed $seed" >&2
    hdcid pretrain --config "$here/recipes/$1.yaml" --features "$(folder pretrain)" --seed "$seed" \
        -o "checkpoints/$table/$name-$seed" "${@:2}" ${PRETRAIN:-} >/dev/null
}

# recipes PREFIX: the names of all recipes of a table.
recipes() {
    (cd "$here/recipes" && ls "$1"_*.yaml) | sed 's/\.yaml$//'
}

# cmg TASK TRAIN TEST NAME OPTIONS...: one result of a checkpoint. What cannot be measured leaves its cell empty.
cmg() {
    measure "$1" "$2" "$3" --checkpoint "checkpoints/$table/$4-$seed" "${@:5}"
}

# both TASK NAME OPTIONS...: from video to audio and from audio to video.
both() {
    cmg "$1" v a "${@:2}"
    cmg "$1" a v "${@:2}"
}

# ceiling TASK: what a probe on the raw features of one modality reaches.
ceiling() {
    measure "$1" v v --supervised
    measure "$1" a a --supervised
}

measure() {
    local features test_features
    features=$(folder "$1") test_features=$(folder "$1")
    if [ "$1" = ave2avvp ]; then features=$(folder ave) test_features=$(folder avvp); fi
    hdcid cmg "$1" --train "$2" --test "$3" --features "$features" --test-features "$test_features" --seed "$seed" "${@:4}" ${CMG:-} >>"$results" ||
        echo "== $table: no result for $1 $2->$3 ${*:4}" >&2
}

# report OPTIONS...: the table in the terminal, and for papers and browsers.
report() {
    hdcid report "$results" --layout "$table" -o "results/$table.tex"
    hdcid report "$results" --layout "$table" -o "results/$table.html" "$@"
    hdcid report "$results" --layout "$table"
}
