"""Trains a Parti split over a mesh of four devices, and exports it to be served.

Quickly, with a tiny untrained tokenizer and the pictures of the tests, in two minutes
on two cores, the four devices being virtual ones of the CPU:

    python examples/train_on_mesh.py --quick

In full, after examples/train_tokenizer.py:

    python examples/train_on_mesh.py --tokenizer runs/tokenizer --workdir runs/mesh

On a machine with GPUs these are the devices. Another mesh, such as `--mesh "data:4"
--layout data_parallel`, goes on with the same run. What larger models and meshes would
take tells `keras-parti plan`.
"""

import argparse
import logging
from pathlib import Path

import keras
from train_parti import fixture_set

from keras_parti.data.token_cache import read_manifest
from keras_parti.mesh import Layout
from keras_parti.mesh.training import train_on_mesh
from keras_parti.models import Parti, TextToImage, ViTVQGAN
from keras_parti.serving.export import export
from keras_parti.text import Vocabulary
from keras_parti.training.preparation import encode_set, train_set_vocabulary
from keras_parti.training.workdir import model_dir


def main(argv=None):
    """Runs the example; returns the folder of the exported model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="emoji_captions/small", help="picture set")
    parser.add_argument("--tokenizer", default="runs/tokenizer", help="its folder")
    parser.add_argument("--preset", default="parti_emoji", help="size of the model")
    parser.add_argument("--workdir", default="runs/mesh", help="folder of the run")
    parser.add_argument("--mesh", default="data:2;model:2", help="four devices")
    parser.add_argument("--layout", default="two_d", help="what is split over them")
    parser.add_argument("--steps", type=int, default=3000, help="batches")
    parser.add_argument("--batch-size", type=int, default=32, help="pictures")
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="its peak")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="tiny, in two minutes")
    args = parser.parse_args(argv)
    logging.basicConfig(format="%(message)s")
    logging.getLogger("keras_parti").setLevel(logging.INFO)
    keras.utils.set_random_seed(args.seed)
    if args.quick:
        args.workdir, args.tokenizer = "runs/quick/mesh", "runs/quick/untrained"
        args.data = fixture_set("runs/quick/data")
        args.preset, args.steps, args.batch_size = "parti_tiny", 20, 8
        ViTVQGAN.from_preset("vit_vqgan_tiny").save_dir(args.tokenizer)

    workdir = Path(args.workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    tokenizer = ViTVQGAN.load_dir(model_dir(args.tokenizer))
    encode_set(tokenizer, args.data, workdir / "tokens")
    manifest = read_manifest(workdir / "tokens")
    config = Parti.preset_config(
        args.preset,
        num_codes=manifest["num_codes"],
        num_tokens=manifest["num_tokens"],
    )
    path = workdir / "vocabulary.model"
    train_set_vocabulary(args.data, path, config.text_vocab_size)
    vocabulary = Vocabulary.from_file(path, config.text_length)

    model = train_on_mesh(
        config,
        Layout(args.mesh, args.layout),
        workdir / "tokens",
        vocabulary,
        workdir,
        steps=args.steps,
        batch_size=args.batch_size,
        learning_rate=args.learning_rate,
        warmup_steps=args.steps // 20,
        steps_per_epoch=min(100, args.steps // 2),
        seed=args.seed,
    )
    chain = TextToImage(tokenizer, model, vocabulary)
    folder = export(chain, workdir / "exported", num_samples=4, keep=2)
    print(
        'Next: keras-parti generate "red apple in google style" '
        f"--model {folder.parent} --out {workdir}/apples.png"
    )
    return folder


if __name__ == "__main__":
    main()
