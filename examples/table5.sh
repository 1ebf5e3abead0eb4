#!/usr/bin/env bash
# Table 5: what TOC selects by, on DCID. examples/lib.sh says how to call it.
source "$(dirname "$0")/lib.sh" table5 "$@"

# channels TASK TRAIN: how many the paper keeps of 256, and the shares of best and worst ones.
channels() {
    [ "$quick" ] && echo 32 1:0 && return
    case $1-$2 in
    ave-*) echo 224 1:1 ;;
    avvp-*) echo 128 3:1 ;;
    ave2avvp-v) echo 224 1:0 ;;
    ave2avvp-a) echo 196 1:0 ;;
    ucf2vgg-v) echo 128 1:0 ;;
    *) echo 224 1:0 ;;
    esac
}

for seed in $SEEDS; do
    pretrain table5_dcid
    for task in $TASKS; do
        both "$task" dcid --toc none
        ceiling "$task"
        for criterion in similarity variance both; do
            for direction in "v a" "a v"; do
                read -r train test <<<"$direction"
                read -r keep mix <<<"$(channels "$task" "$train")"
                hdcid toc "checkpoints/$table/dcid-$seed" --keep "$keep" --mix "$mix" --criterion $criterion >/dev/null
                cmg "$task" "$train" "$test" dcid --toc stored
            done
        done
    done
done
report --checkpoint "checkpoints/$table/dcid-$seed"
