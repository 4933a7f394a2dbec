#!/bin/bash
# A trained network compressed: its accuracy at once and after a few epochs of fine-tuning.
#   scripts/pretrained.sh [dataset=mnist arch=lenet5 epochs=8 rank=16.6x batches=20 tuned=5 ..]
# Fits of the weights, fits by the inputs of so many training batches, tensorly's algorithms at the same ranks, and
# Tucker layers of VBMF ranks by those (Kim et al. 2016). rank: one or several; tuned: epochs of fine-tuning; every other
# word is for all trainings, the dense one's included. Started again, all goes on where it was. Each run's summary.json
# has initial_test_accuracy; `tdc report` shows the rest. Where tensorly-torch is installed, its own layers, fitted to
# the same weights at the same ranks, are trained beside ours.
set -euo pipefail
ranks=16.6x batches=20 tuned=5
for word in "$@"; do
    shift
    case $word in
    rank=*) ranks=${word#*=} ;;
    batches=*) batches=${word#*=} ;;
    tuned=*) tuned=${word#*=} ;;
    *) set -- "$@" "$word" ;;
    esac
done
set -- dataset=mnist arch=lenet5 optim=cosine "$@"
methods=cp,tucker,tt,tr,ht
dense=$(tdc train "$@" method=dense | tee /dev/stderr | tail -n 1)
set -- "$@" lr=0.01 epochs="$tuned"
tdc train -m "$@" method="$methods" rank="$ranks" init_from="$dense"
for method in $(echo "$methods" | tr , ' '); do
    for rank in $(echo "$ranks" | tr , ' '); do
        file=$(tdc compress "$@" checkpoint="$dense" method="$method" rank="$rank" data="$batches" | tail -n 1)
        tdc train "$@" method="$method" rank="$rank" init_from="$file"
    done
done
tdc train -m "$@" method=cp,tucker,tt,tr method.fit=tensorly rank="$ranks" init_from="$dense"
tdc train "$@" method=tucker method.fit=tensorly rank=vbmf init_from="$dense"
if ! python -c 'import tltorch' 2>/dev/null; then
    echo "tensorly-torch is not installed (pip install -e '.[peers]'): its layers are left out"
    exit
fi
here=$(dirname "$0")
for method in cp tucker tt; do
    for rank in $(echo "$ranks" | tr , ' '); do
        fitted=$(python "$here/peer_network.py" "$@" init_from="$dense" method="$method" rank="$rank") || {
            [ $? = 4 ] && continue # it has said which layer of theirs fails
            exit 1
        }
        file=$(echo "$fitted" | tail -n 1)
        PYTHONPATH="$here:${PYTHONPATH:-}" tdc train "$@" method=dense init_from="$file" \
            "arch.target={_target_: peer_network.network, file: $file}"
    done
done
