"""FFHQ without condition at 256 × 256: ViT-VQGAN and VIM (arXiv:2110.04627, table 5).

    FOLDER/ffhq/00000/00000.png ... FOLDER/ffhq/69000/69999.png
    FOLDER/pt_inception-2015-12-05-6726825d.pth   the FID's network

    python examples/recipes/ffhq.py --folder FOLDER [--print]
    python examples/recipes/ffhq.py --quick           # mock data, 30 s on two cores

The paper: FID 5.3. For CelebA-HQ, 7.0, put its 30,000 pictures into FOLDER/ffhq
instead. Which pictures it held out is not published; here it is one in twenty. Neither
are the sizes of VIM for this set; vim_large is that of ImageNet. It was not run here in
full.
"""

import imagenet
import mock_data
import recipe

STAGES = [
    """keras-parti train tokenizer --data {folder}/ffhq --preset {vit} {losses}
    --steps {tokenizer_steps} --batch-size {tokenizer_batch} --learning-rate 1e-4
    --warmup-steps {tokenizer_warmup} --final-share 0.5 --steps-per-epoch {epoch}
    --workdir {runs}/ffhq/tokenizer""",
    """keras-parti encode --tokenizer {runs}/ffhq/tokenizer --data {folder}/ffhq
    --crops {crops} --out {runs}/ffhq/tokens""",
    """keras-parti train vim --data {runs}/ffhq/tokens --preset {vim}
    --steps {vim_steps} --batch-size {vim_batch} --learning-rate 4.5e-4
    --warmup-steps {vim_warmup} --steps-per-epoch {epoch} --workdir {runs}/ffhq/vim""",
    """keras-parti export --tokenizer {runs}/ffhq/tokenizer --vim {runs}/ffhq/vim
    --out {exported}""",
    recipe.draw_classes,  # a model without classes knows one label, 0
    """keras-parti evaluate fid --images {drawn} --against {folder}/ffhq
    --image-size {side} --features {features} --out {runs}/ffhq/fid""",
]
OWN = {
    "classes": 1,
    "exported": "{runs}/ffhq/exported",
    "drawn": "{runs}/ffhq/drawn",
}
FULL = imagenet.FULL | OWN | {"per_class": 50_000}
QUICK = imagenet.QUICK | OWN | {"per_class": 6}

if __name__ == "__main__":
    raise SystemExit(recipe.main(__doc__, STAGES, FULL, QUICK, mock_data.ffhq))
