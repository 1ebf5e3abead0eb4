#!/usr/bin/env bash
# Table 2: quantizers in DCID and H-DCID, tested on the other modality and on the labelled one.
# examples/lib.sh says how to call it.
source "$(dirname "$0")/lib.sh" table2 "$@"

# labelled NAME: the modality that the probe learns on, for the tasks that stay within one data set.
labelled() {
    for task in $TASKS; do
        [ "$task" = ave2avvp ] && continue
        cmg "$task" v v "$1" --toc none
        cmg "$task" a a "$1" --toc none
    done
}

for seed in $SEEDS; do
    for model in 1:vq 1:fsq 1:rvq:4 2:vq 2:rvq:2 2:rvq:3 2:rvq:4; do
        name=layers${model//:/-}
        pretrain "$name" --layers "${model%%:*}" --quantizer "${model#*:}"
        for task in $TASKS; do
            both "$task" "$name" --toc none
        done
    done
    for name in layers1-vq layers1-fsq layers1-rvq-4 layers2-vq; do
        labelled $name
    done
done
report
