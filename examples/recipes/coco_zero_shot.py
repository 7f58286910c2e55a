"""A trained Parti on captions of MS-COCO that it never saw (arXiv:2206.10789).

    FOLDER/coco/train2014/*.jpg  FOLDER/coco/val2014/*.jpg
    FOLDER/coco/annotations/captions_train2014.json  captions_val2014.json
    FOLDER/pt_inception-2015-12-05-6726825d.pth   the FID's network

    python examples/recipes/coco_zero_shot.py --folder FOLDER --model EXPORTED [--print]
    python examples/recipes/coco_zero_shot.py --quick   # mock data, 30 s on two cores

The paper, figure 9: FID 14.10 (350M), 10.71 (750M), 8.10 (3B), 7.23 (20B), by its
protocol: 30,000 captions of the validation split, 16 samples of each, the best by CoCa,
guidance 1.2; real pictures cropped near their centre. For LN-COCO (15.97, 20B) put
coco_val_captions.jsonl of Localized Narratives beside the folders, with val2017: its
5,000 pictures are then gone through six times. It was not run here in full.
"""

import mock_data
import recipe

STAGES = [
    """keras-parti evaluate fid --model {model} --against {folder}/coco:validation
    --crop near-centre --count {count} --num-samples {samples} --guidance-scale 1.2
    --image-size {side} --features {features} --out {runs}/coco_zero_shot""",
]
FULL = {
    "model": None,
    "count": 30_000,
    "samples": 16,
    "side": 256,
    "features": "inception --weights {folder}/pt_inception-2015-12-05-6726825d.pth",
}
QUICK = {"count": 6, "samples": 2, "side": 12, "features": "pixels"}


def prepare(folder):
    """Writes the set and an untrained model; returns the model's path."""
    from keras_parti.models import CoCa, Parti, TextToImage, ViTVQGAN
    from keras_parti.serving.export import export
    from keras_parti.text import Vocabulary

    mock_data.coco(folder)
    paths = mock_data.parts(folder)
    parti = Parti.load_dir(paths["parti"])
    chain = TextToImage(
        ViTVQGAN.load_dir(paths["tokenizer"]),
        parti,
        Vocabulary.from_file(paths["vocab"], parti.config.text_length),
        reranker=CoCa.load_dir(paths["coca"]).reranker(),
    )
    export(chain, folder / "emoji", num_samples=2, keep=1)
    return {"model": str(folder / "emoji")}


if __name__ == "__main__":
    raise SystemExit(recipe.main(__doc__, STAGES, FULL, QUICK, prepare))
