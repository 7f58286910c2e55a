r"""A Parti finetuned on MS-COCO, then measured there (arXiv:2206.10789, section 5.3).

The data lie as coco_zero_shot.py says. TOKENIZER, VOCAB and PARTI are what a trained
Parti was made of, COCA ranks its pictures.

    python examples/recipes/coco_finetuned.py --folder FOLDER --tokenizer DIR \
        --vocab FILE --parti DIR --coca DIR [--print]
    python examples/recipes/coco_finetuned.py --quick   # mock data, 30 s on two cores

The paper: FID 3.22 (20B). Rate, steps and batch of this finetuning are not published:
those here are guesses, as is the size, 3B. It was not run here in full.
"""

import coco_zero_shot
import mock_data
import recipe

STAGES = [
    """keras-parti encode --tokenizer {tokenizer} --data {folder}/coco
    --crops {crops} --out {runs}/coco/tokens""",
    """keras-parti train parti --data {runs}/coco/tokens --vocab {vocab}
    --preset {preset} --tokenizer {tokenizer} --initial {parti} --optimizer adafactor
    --steps {steps} --batch-size {batch} --learning-rate 1e-5 --warmup-steps {warmup}
    --steps-per-epoch {epoch} --workdir {runs}/coco/parti""",
    """keras-parti export --tokenizer {tokenizer} --parti {runs}/coco/parti
    --vocab {vocab} --coca {coca} --num-samples {samples} --keep {keep}
    --out {model}""",
    *coco_zero_shot.STAGES,
]
FULL = coco_zero_shot.FULL | {
    "tokenizer": None,
    "vocab": None,
    "parti": None,
    "coca": None,
    "preset": "parti_3b",
    "crops": 4,
    "steps": 10_000,
    "batch": 256,
    "warmup": 500,
    "epoch": 500,
    "keep": 4,
    "model": "{runs}/coco/exported",
}
QUICK = coco_zero_shot.QUICK | {
    "preset": "parti_tiny",
    "crops": 1,
    "steps": 2,
    "batch": 4,
    "warmup": 1,
    "epoch": 2,
    "keep": 1,
}


def prepare(folder):
    """Writes the set and the untrained parts; returns their paths."""
    mock_data.coco(folder)
    return mock_data.parts(folder)


if __name__ == "__main__":
    raise SystemExit(recipe.main(__doc__, STAGES, FULL, QUICK, prepare))
