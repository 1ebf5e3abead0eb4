#!/usr/bin/env bash
# Table 2: quantizers in DCID and H-DCID, tested on the other modality and on the labelled one.
# examples/lib.sh says how to call it.
source "$(dirname "$0")/lib.sh" table2 "$@"

# labelled TASK NAME: the modality that the probe learns on, for the tasks that stay within one data set.
labelled() {
    [ "$1" = ave2avvp ] && return
    cmg "$1" v v "$2" --toc none
    cmg "$1" a a "$2" --toc none
}

for seed in $SEEDS; do
    for recipe in $(recipes table2); do
        pretrain "$recipe"
        for task in $TASKS; do
            both "$task" "$name" --toc none
            case $name in dcid_* | hdcid_vq) labelled "$task" "$name" ;; esac
        done
    done
    for task in $TASKS; do
        ceiling "$task"
    done
done
report
