#!/usr/bin/env bash
# Figure 5: the size of the codebook, for DCID and H-DCID with and without TOC. SIZES="..." chooses the sizes.
# examples/lib.sh says how to call it; the curves are in results/figure5.html.
source "$(dirname "$0")/lib.sh" figure5 "$@"

toc=paper
sizes=${SIZES:-200 300 400 600 800}
[ "$quick" ] && toc=32 sizes=${SIZES:-16 64 256}

for seed in $SEEDS; do
    for size in $sizes; do
        for layers in 1 2; do
            name=layers$layers-codes$size
            # After PRETRAIN, whose --codebook is not meant here.
            PRETRAIN="${PRETRAIN:-} --codebook $size" pretrain "$name" --layers $layers
            for task in $TASKS; do
                both "$task" "$name" --toc none
                both "$task" "$name" --toc $toc
            done
        done
    done
done
hdcid report "$results" -o results/figure5.html
hdcid report "$results"
