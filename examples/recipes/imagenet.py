"""Class-conditional ImageNet at 256 × 256: ViT-VQGAN and VIM (arXiv:2110.04627).

    FOLDER/imagenet/train/n01440764/*.JPEG        1.28 million pictures, 1,000 folders
    FOLDER/imagenet/val/n01440764/*.JPEG          50,000, sorted into the same folders
    FOLDER/pt_inception-2015-12-05-6726825d.pth   the FID's network

    python examples/recipes/imagenet.py --folder FOLDER [--print]
    python examples/recipes/imagenet.py --quick       # mock data, 30 s on two cores

The paper, table 6: FID 4.17 and Inception score 175.1, without rejection. Batches,
rates, steps and sizes are its own. It crops at random before the encoder, each time
anew; ten crops of each picture, encoded once, are ours. It was not run here in full.
"""

import mock_data
import recipe

STAGES = [
    """keras-parti train tokenizer --data {folder}/imagenet --preset {vit} {losses}
    --steps {tokenizer_steps} --batch-size {tokenizer_batch} --learning-rate 1e-4
    --warmup-steps {tokenizer_warmup} --final-share 0.5 --steps-per-epoch {epoch}
    --workdir {runs}/imagenet/tokenizer""",
    """keras-parti encode --tokenizer {runs}/imagenet/tokenizer
    --data {folder}/imagenet --crops {crops} --out {runs}/imagenet/tokens""",
    """keras-parti train vim --data {runs}/imagenet/tokens --preset {vim}
    --label category --steps {vim_steps} --batch-size {vim_batch}
    --learning-rate 4.5e-4 --warmup-steps {vim_warmup} --steps-per-epoch {epoch}
    --workdir {runs}/imagenet/vim""",
    """keras-parti export --tokenizer {runs}/imagenet/tokenizer
    --vim {runs}/imagenet/vim --out {exported}""",
    recipe.draw_classes,
    """keras-parti evaluate fid --images {drawn} --against {folder}/imagenet:validation
    --image-size {side} --features {features} --out {runs}/imagenet/fid""",
]
FULL = {
    "vit": "vit_vqgan_small",
    # With neither a floor of the log scale nor codes placed anew, as published.
    "losses": "--perceptual keras --discriminator discriminator_256 "
    "--log-scale-floor=-inf --no-revive-codes",
    "tokenizer_steps": 500_000,
    "tokenizer_batch": 256,
    "tokenizer_warmup": 50_000,
    "epoch": 5000,
    "crops": 10,
    "vim": "vim_large",
    "vim_steps": 450_000,
    "vim_batch": 1024,
    "vim_warmup": 5000,
    "classes": 1000,
    "per_class": 50,
    "side": 256,
    "features": "inception --weights {folder}/pt_inception-2015-12-05-6726825d.pth",
    "exported": "{runs}/imagenet/exported",
    "drawn": "{runs}/imagenet/drawn",
}
QUICK = {
    "vit": "vit_vqgan_tiny",
    "losses": "",
    "tokenizer_steps": 2,
    "tokenizer_batch": 4,
    "tokenizer_warmup": 1,
    "epoch": 2,
    "crops": 1,
    "vim": "vim_tiny",
    "vim_steps": 2,
    "vim_batch": 4,
    "vim_warmup": 1,
    "classes": 3,
    "per_class": 2,
    "side": 12,
    "features": "pixels",
}

if __name__ == "__main__":
    raise SystemExit(recipe.main(__doc__, STAGES, FULL, QUICK, mock_data.imagenet))
