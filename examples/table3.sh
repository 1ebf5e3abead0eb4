#!/usr/bin/env bash
# Table 3: ways of aligning the modalities, alone and inside DCID and H-DCID, pretrained on audio and video.
# examples/lib.sh says how to call it. SPLITS="24k.csv 40k.csv 81k.csv" pretrains on the train clips of
# each table (id,split) in turn, as the paper does on three sizes of VGGSound-AVEL.
TASKS=${TASKS:-ave avvp}
source "$(dirname "$0")/lib.sh" table3 "$@"

for seed in $SEEDS; do
    for split in ${SPLITS:-default}; do
        options=(--modalities av)
        [ "$split" != default ] && options+=(--split "$split")
        for layers in 0 1 2; do
            for align in smit mst codis turn cmcm cpc,cmcm; do
                [ "$layers-$align" = 0-cpc,cmcm ] && continue
                name=$(basename "$split" .csv)-layers$layers-${align/,/-}
                pretrain "$name" --layers "$layers" --align "$align" "${options[@]}"
                for task in $TASKS; do
                    both "$task" "$name" --toc none
                done
            done
        done
    done
    for task in $TASKS; do
        ceiling "$task"
    done
done
report
