#!/bin/sh
# A trained network decomposed and fine-tuned, against the same format trained from scratch, at equal size:
#   scripts/pretrained.sh [dataset=mnist arch=lenet5 rank=16.6x epochs=8 ..]
# Every key of `tdc train` may be given. The dense network is trained first; started again,
# all goes on where it was. `tdc report` shows both, initial_test_accuracy is in the summary.json of each run.
set -eu
common="dataset=mnist arch=lenet5 optim=cosine"
dense=$(tdc train $common "$@" method=dense | tee /dev/stderr | tail -n 1)
tdc train -m $common rank=16.6x full_rank_epochs=0 "$@" method=cp,tucker,tt,tr,ht
tdc train -m $common rank=16.6x "$@" method=cp,tucker,tt,tr,ht init_from="$dense"
