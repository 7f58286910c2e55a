#!/usr/bin/env bash
# A trained Parti on captions of MS-COCO that it never saw (Parti, arXiv:2206.10789,
# section 5.3). Zero-shot FID: 14.10 (350M), 10.71 (750M), 8.10 (3B), 7.23 (20B).
#
#   FOLDER/coco/train2014/*.jpg  FOLDER/coco/val2014/*.jpg
#   FOLDER/coco/annotations/captions_train2014.json  captions_val2014.json
#
# The paper's protocol: 30,000 captions of the validation split, 16 samples of each, the
# best by CoCa, guidance 1.2; real pictures cropped near their centre. For LN-COCO
# (15.97) put coco_val_captions.jsonl of Localized Narratives beside the folders, with
# val2017: its 5,000 pictures are then gone through six times.
set -euo pipefail
: "${FOLDER:?the folder that holds coco/}"
: "${MODEL:?an exported Parti with a CoCa, of 256 x 256 pictures}"
OUT=${OUT:-results/coco_zero_shot}

keras-parti evaluate fid --model "$MODEL" --against "$FOLDER/coco:validation" \
  --crop near-centre --count 30000 --num-samples 16 --guidance-scale 1.2 \
  --features inception \
  --weights "$FOLDER/pt_inception-2015-12-05-6726825d.pth" --out "$OUT"
