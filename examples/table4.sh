#!/usr/bin/env bash
# Table 4: segmentation on AVSBench-S4, learned from sounds and asked with sentences, and the other way round.
# examples/lib.sh says how to call it; features/avs_s4/ holds the clips' sounds and the categories' prompts.
# SEGMENT="--precision bf16" adds options to every `hdcid segment`.
source "$(dirname "$0")/lib.sh" table4 "$@"

if [ "$quick" ]; then
    # Two minutes from nothing show that it runs; a fair result on such a world takes --epochs 60.
    SEGMENT="--backbone resnet10 --random-weights --size 64 --width 32 --lr 1e-3 --schedule cosine --augment --epochs 20 ${SEGMENT:-}"
    mkdir -p features/avs_s4
    hdcid extract --modality audio --backbone logmel --features features/avs_s4 data/avs_s4/s4_data/audio_wav
    hdcid extract --modality text --backbone hash --features features/avs_s4 data/avs_s4/AVSBenchCategories2Prompts.csv
fi

for seed in $SEEDS; do
    for recipe in table1_dcid table1_hdcid; do
        pretrain $recipe
        for train in a t; do
            stage measure "segment, learned from $train, $name, seed $seed"
            hdcid segment --train $train --test both --features "$(folder avs_s4)" --seed "$seed" \
                --checkpoint "checkpoints/$table/$name-$seed" -o "checkpoints/$table/segment-$name-$train-$seed" \
                --overlay "results/$table/$name-$train-$seed" ${SEGMENT:-} >>"$results"
        done
    done
done
report --overlay "results/$table/$name-a-$seed"
