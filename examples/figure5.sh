#!/usr/bin/env bash
# Figure 5: the size of the codebook, for DCID and H-DCID with and without TOC. examples/lib.sh says how to
# call it; the curves are in results/figure5.html. SIZES="200 400" chooses the sizes.
TASKS=${TASKS:-ave avvp ave2avvp}
source "$(dirname "$0")/lib.sh" figure5 "$@"

toc=paper
[ "$quick" ] && toc=32 SIZES=${SIZES:-200 800}

for seed in $SEEDS; do
    for size in ${SIZES:-200 300 400 600 800}; do
        for model in dcid hdcid; do
            SUFFIX=_$size pretrain "figure5_$model" --codebook "$size"
            for task in $TASKS; do
                both "$task" "$name" --toc none
                both "$task" "$name" --toc $toc
            done
        done
    done
done
hdcid report "$results" -o results/figure5.html
hdcid report "$results"
