#!/usr/bin/env bash
# A Parti finetuned on MS-COCO, then measured there (Parti, arXiv:2206.10789, section
# 5.3): FID 3.22 (20B). The data lie as coco_zero_shot.sh says.
#
# Rate, steps and batch of this finetuning are not published: those here are guesses.
set -euo pipefail
: "${FOLDER:?the folder that holds coco/}"
: "${TOKENIZER:?the ViT-VQGAN that the Parti was trained with}"
: "${VOCAB:?its vocabulary.model}"
: "${PARTI:?the trained Parti}"
: "${COCA:?a CoCa that ranks pictures}"
RUNS=${RUNS:-runs/coco}
PRESET=${PRESET:-parti_3b}

keras-parti encode --tokenizer "$TOKENIZER" --data "$FOLDER/coco" --augment 4 \
  --out "$RUNS/tokens"
keras-parti train parti --data "$RUNS/tokens" --vocab "$VOCAB" --preset "$PRESET" \
  --tokenizer "$TOKENIZER" --initial "$PARTI" --optimizer adafactor \
  --steps 10000 --batch-size 256 --learning-rate 1e-5 --warmup-steps 500 \
  --steps-per-epoch 500 --workdir "$RUNS/parti"
keras-parti export --tokenizer "$TOKENIZER" --parti "$RUNS/parti" --vocab "$VOCAB" \
  --coca "$COCA" --out "$RUNS/exported/coco"
FOLDER=$FOLDER MODEL=$RUNS/exported/coco OUT=results/coco_finetuned \
  bash "$(dirname "$0")/coco_zero_shot.sh"
