#!/usr/bin/env bash
# Table 3: ways of aligning the modalities, alone and inside DCID and H-DCID, pretrained on audio and video.
# examples/lib.sh says how to call it. SPLITS="24k.csv 40k.csv 81k.csv" pretrains on the train clips of
# each table (id,split) in turn, as the paper does on three sizes of VGGSound-AVEL.
TASKS=${TASKS:-ave avvp}
source "$(dirname "$0")/lib.sh" table3 "$@"

for seed in $SEEDS; do
    for split in ${SPLITS:-all}; do
        options=()
        [ "$split" = all ] || options=(--split "$split")
        for recipe in $(recipes table3); do
            PREFIX=$(basename "$split" .csv)- pretrain "$recipe" "${options[@]}"
            for task in $TASKS; do
                both "$task" "$name" --toc none
            done
        done
    done
    for task in $TASKS; do
        ceiling "$task"
    done
done
report
