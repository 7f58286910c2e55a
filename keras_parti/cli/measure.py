"""`keras-parti evaluate`: figures of trained models."""

import numpy as np

from keras_parti.cli.prompts import asked, scored_by
from keras_parti.cli.upscale import load
from keras_parti.compiled import compiled
from keras_parti.evaluation.matching import evaluate_matching
from keras_parti.evaluation.pictures import load_images, load_splits
from keras_parti.evaluation.reconstruction import evaluate_reconstruction
from keras_parti.evaluation.retrieval import evaluate_retrieval
from keras_parti.evaluation.upscaling import evaluate_upscaling
from keras_parti.models import CoCa, Parti, TextToImage, ViTVQGAN, load_perceptual
from keras_parti.pixels import to_floats
from keras_parti.text import Vocabulary
from keras_parti.training.upsampler import Upsampling
from keras_parti.training.workdir import model_dir

BEST_OF = (1, 4, 16)


class Compiled:
    """A tokenizer whose two directions are compiled graphs."""

    def __init__(self, tokenizer):
        self.config = tokenizer.config
        encode = compiled(lambda x: {"y": tokenizer.encode(x)}, tokenizer)
        decode = compiled(lambda x: {"y": tokenizer.decode(x)}, tokenizer)
        self.encode = lambda images: encode(images)["y"]
        self.decode = lambda ids: decode(ids)["y"]


def reconstruction(args):
    """Measures a tokenizer."""
    tokenizer = ViTVQGAN.load_dir(model_dir(args.tokenizer))
    size = tokenizer.config.image_size
    images = load_images(args.data, args.split, size)
    evaluate_reconstruction(
        Compiled(tokenizer),
        images,
        args.out,
        shown=args.show,
        perceptual=args.perceptual and load_perceptual(args.perceptual),
    )
    _tell(args.out)


def retrieval(args):
    """Measures text control."""
    with asked(args) as (client, model, _):

        def reconstruct(images):
            return to_floats(client.decode(client.encode(images)))

        # Pictures of a folder have all sizes; those of the model have one.
        white = np.full((1, 64, 64, 3), 255, np.uint8)
        splits = load_splits(args.data, reconstruct(white).shape[1])
        evaluate_retrieval(
            client.generate,
            reconstruct,
            splits,
            args.out,
            features=tuple(args.features),
            num_queries=args.count,
            num_samples=args.num_samples,
            guidance_scale=args.guidance_scale[0],
            guidance_scales=tuple(sorted(set(args.guidance_scale))),
            best_of=tuple(n for n in BEST_OF if n <= args.num_samples),
            score=client.score if scored_by(client) == "coca" else None,
            model_name=f"{args.server or args.model.resolve()}, {model}",
            seed=args.seed,
        )
    _tell(args.out)


def matching(args):
    """Measures a CoCa."""
    if (args.parti is None) != (args.tokenizer is None):
        raise ValueError(
            "--parti and --tokenizer go together. Received: "
            f"--parti {args.parti}, --tokenizer {args.tokenizer}"
        )
    coca = CoCa.load_dir(model_dir(args.coca))
    vocabulary = Vocabulary.from_file(args.vocab, coca.config.text_length)
    generate = None
    if args.parti:
        parti = Parti.load_dir(model_dir(args.parti))
        tokenizer = ViTVQGAN.load_dir(model_dir(args.tokenizer))
        reading = Vocabulary.from_file(args.vocab, parti.config.text_length)
        generate = TextToImage(tokenizer, parti, reading).generate
    evaluate_matching(
        coca,
        vocabulary,
        load_splits(args.data, coca.config.image_size),
        args.out,
        generate=generate,
        num_samples=args.num_samples,
        guidance_scale=args.guidance_scale,
        num_queries=args.count,
        model_name=parti.fingerprint() if args.parti else "",
        seed=args.seed,
    )
    _tell(args.out)


def upscaling(args):
    """Measures upsamplers."""
    models, upscalers = [], {}
    for path in args.upsampler:
        model, run = load(path)
        models.append(model)
        folder = path.resolve()
        name = folder.parent.name if folder.name == "model" else folder.name
        upscalers[f"WDSR {name}" if len(args.upsampler) > 1 else "WDSR"] = run
    if len(upscalers) < len(models):
        raise ValueError(
            "Folders of --upsampler must differ in their names. Received: "
            + " ".join(map(str, args.upsampler))
        )
    scale = models[0].scale
    if any(model.scale != scale for model in models):
        scales = ", ".join(str(model.scale) for model in models)
        raise ValueError(
            f"Models of --upsampler must be of one scale. Received: {scales}"
        )
    tokenizer, size = None, args.image_size or 256
    if args.tokenizer:
        tokenizer = ViTVQGAN.load_dir(model_dir(args.tokenizer))
        size = args.image_size or scale * tokenizer.config.image_size
    size -= size % scale
    degrade = Upsampling(models[0], size, tokenizer).degrade
    pictures = load_images(args.data, args.split, size)
    evaluate_upscaling(
        upscalers,
        degrade,
        pictures,
        scale,
        args.out,
        perceptual=args.perceptual and load_perceptual(args.perceptual),
    )
    _tell(args.out)


def _tell(out):
    print((out / "table.md").read_text(encoding="utf-8"))
    print(f"Wrote {out}")
