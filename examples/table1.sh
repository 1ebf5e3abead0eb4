#!/usr/bin/env bash
# Table 1: DCID and H-DCID on the tasks, with all channels of the codebook and with those that TOC keeps.
# examples/lib.sh says how to call it.
source "$(dirname "$0")/lib.sh" table1 "$@"

toc=paper
[ "$quick" ] && toc=32

for seed in $SEEDS; do
    pretrain table1_dcid
    pretrain table1_hdcid
    for task in $TASKS; do
        both "$task" dcid --toc none
        both "$task" dcid --toc $toc
        both "$task" hdcid --toc none --layers-used 1
        both "$task" hdcid --toc none
        both "$task" hdcid --toc $toc
        ceiling "$task"
    done
done
report --checkpoint "checkpoints/$table/hdcid-$seed"
