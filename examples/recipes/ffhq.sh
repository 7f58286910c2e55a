#!/usr/bin/env bash
# FFHQ without condition at 256 x 256 (ViT-VQGAN, arXiv:2110.04627, table 5: FID 5.3).
# For CelebA-HQ (FID 7.0) put its 30,000 pictures into FOLDER/ffhq instead.
#
#   FOLDER/ffhq/00000/00000.png ... FOLDER/ffhq/69000/69999.png
#
# Which pictures the paper held out is not published; here it is one in twenty. The
# sizes of VIM for this set are not published; vim_large is that of ImageNet.
set -euo pipefail
: "${FOLDER:?the folder that holds ffhq/}"
RUNS=${RUNS:-runs/ffhq}

keras-parti train tokenizer --data "$FOLDER/ffhq" --preset vit_vqgan_small \
  --perceptual keras --discriminator discriminator_256 --no-revive-codes \
  --steps 500000 --batch-size 256 --learning-rate 1e-4 --warmup-steps 50000 \
  --steps-per-epoch 5000 --workdir "$RUNS/tokenizer"
keras-parti encode --tokenizer "$RUNS/tokenizer" --data "$FOLDER/ffhq" \
  --augment 10 --out "$RUNS/tokens"
keras-parti train vim --data "$RUNS/tokens" --preset vim_large \
  --steps 450000 --batch-size 1024 --learning-rate 4.5e-4 --warmup-steps 5000 \
  --steps-per-epoch 5000 --workdir "$RUNS/vim"
keras-parti export --tokenizer "$RUNS/tokenizer" --vim "$RUNS/vim" \
  --out "$RUNS/exported/ffhq"

# 50,000 pictures, from a server started by: keras-parti serve "$RUNS/exported/ffhq".
# A model without classes knows one label, 0.
python - "$RUNS/drawn" <<'PYTHON'
import sys
from pathlib import Path

from PIL import Image
from keras_parti.serving import Client

out = Path(sys.argv[1])
out.mkdir(parents=True, exist_ok=True)
with Client("127.0.0.1:8500", model="ffhq", timeout=600) as client:
    for start in range(0, 50_000, 50):
        if (out / f"{start + 49:05d}.png").exists():
            continue
        drawn = client.generate_class([0], num_samples=50, keep=50, seed=start)
        for number, image in enumerate(drawn["images"][0], start):
            Image.fromarray(image).save(out / f"{number:05d}.png")
PYTHON
keras-parti evaluate fid --images "$RUNS/drawn" --against "$FOLDER/ffhq" \
  --features inception \
  --weights "$FOLDER/pt_inception-2015-12-05-6726825d.pth" --out "$RUNS/fid"
