# What the table scripts share; sourced by them with the table's name and their arguments.
#
# Usage of every script: examples/tableN.sh [--quick], in a working directory that holds
#
#   features/      feature files (`hdcid extract`); where the data sets have files of their own,
#                  features/pretrain/, features/ave/, features/avvp/, features/ucf2vgg/
#   data/          annotations
#
# It trains into checkpoints/TABLE/, measures into results/TABLE.jsonl and reports into results/TABLE.{html,tex}.
# Run again after an interruption, it goes on with the training and measures anew. Each stage is announced, with how
# many there are and how long the rest will take, judged by those of its kind that are done.
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

# The script is read twice. The first time it only counts its stages: nothing is run and nothing written.
if [ -z "${COUNTING:-}" ]; then
    stages=$(COUNTING=yes bash "$0" "$@")
else
    hdcid() { :; }
    mkdir() { :; }
fi
number=0 kind= since=0 pretrain_done=0 pretrain_seconds=0 measure_done=0 measure_seconds=0

# stage KIND WORDS...: say what comes now, how far this is and how long the rest will take. KIND is pretrain or measure.
stage() {
    if [ "${COUNTING:-}" ]; then
        echo "$1"
        return
    fi
    local each name seconds left=0 more= words=
    if [ "$kind" ]; then
        name=${kind}_done seconds=${kind}_seconds
        printf -v "$name" %s $((${!name} + 1))
        printf -v "$seconds" %s $((${!seconds} + SECONDS - since))
    fi
    for each in pretrain measure; do
        name=${each}_done seconds=${each}_seconds
        local rest=$(($(grep -c "^$each" <<<"$stages" || true) - ${!name}))
        if [ "${!name}" -gt 0 ]; then
            left=$((left + rest * ${!seconds} / ${!name}))
        elif [ "$rest" -gt 0 ]; then
            more=yes
        fi
    done
    number=$((number + 1)) kind=$1 since=$SECONDS
    [ "$number" = 1 ] || words=", $((SECONDS / 60)) min so far, ${more:+more than }$((left / 60 + 1)) min to go"
    echo "== $table, $number of $(wc -l <<<"$stages" | tr -d ' ')$words: ${*:2}" >&2
}

if [ "$quick" ]; then
    PRETRAIN="--dim 64 --batch-size 20 --epochs 20 ${PRETRAIN:-}"
    CMG="--epochs 100 ${CMG:-}"
    mkdir -p hdcid-quick
    [ "${COUNTING:-}" ] || cd hdcid-quick
    hdcid synth . --clips 120 --classes 5
    hdcid extract --modality audio --backbone logmel videos
    hdcid extract --modality video --backbone hog --fps 4 videos
    hdcid extract --modality text --backbone hash
fi
mkdir -p results
results=results/$table.jsonl
[ -z "${COUNTING:-}" ] || results=/dev/null
: >"$results"

# folder NAME: the feature files of a data set, or those of all.
folder() {
    if [ -d "features/$1" ]; then echo "features/$1"; else echo features; fi
}

# pretrain RECIPE [OPTIONS...]: train checkpoints/TABLE/NAME-SEED as a recipe says, or go on with it. NAME, the
# recipe's without the table's, is how a result names its model; PREFIX stands before it, SUFFIX behind.
pretrain() {
    name=${PREFIX:-}${1#*_}${SUFFIX:-}
    stage pretrain "pretrain $name, seed $seed"
    hdcid pretrain --recipe "$1" --features "$(folder pretrain)" --seed "$seed" \
        -o "checkpoints/$table/$name-$seed" "${@:2}" ${PRETRAIN:-} >/dev/null
}

# recipes PREFIX: the names of all recipes of a table.
recipes() {
    command hdcid recipe ls --json | sed -n "s/.*\"recipe\": \"\($1_[^\"]*\)\".*/\1/p"
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
    stage measure "$1 $2->$3 ${*:4}, seed $seed"
    hdcid cmg "$1" --train "$2" --test "$3" --features "$features" --test-features "$test_features" --seed "$seed" "${@:4}" ${CMG:-} >>"$results" ||
        echo "== $table: no result for $1 $2->$3 ${*:4}" >&2
}

# report OPTIONS...: the table in the terminal, and for papers and browsers.
report() {
    hdcid report "$results" --layout "$table" -o "results/$table.tex"
    hdcid report "$results" --layout "$table" -o "results/$table.html" "$@"
    hdcid report "$results" --layout "$table"
}
