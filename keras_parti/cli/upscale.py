"""`keras-parti upscale` and `evaluate upscaling`: a trained upsampler at work."""

from tqdm import tqdm

from keras_parti.compiled import compiled
from keras_parti.data.decoding import decode_picture
from keras_parti.data.png import write_png
from keras_parti.evaluation.pictures import load_images
from keras_parti.evaluation.upscaling import evaluate_upscaling
from keras_parti.models import WDSR, ViTVQGAN, load_perceptual, upscale_bands
from keras_parti.training.upsampler import Upsampling
from keras_parti.training.workdir import model_dir

# A photograph of 100 megapixels takes 0.3 GB, and 1 GB while it is decoded; enlarged it
# is never whole in memory. Twice its own limit is where Pillow refuses whatever one
# says.
MAX_PIXELS = 178_000_000


def upscale(args):
    """Enlarges picture files."""
    model, run = _load(args.upsampler)
    targets = [args.out / f"{path.stem}.png" for path in args.pictures]
    for path, target in zip(args.pictures, targets, strict=True):
        if targets.count(target) > 1:
            raise ValueError(f"Two pictures would become {target}, one is {path}.")
        if target.exists() and target.samefile(path):
            raise ValueError(f"{target} would take the place of the picture itself.")
    args.out.mkdir(parents=True, exist_ok=True)
    for path, target in zip(args.pictures, targets, strict=True):
        try:
            image = decode_picture(path, max_pixels=MAX_PIXELS)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        bands = upscale_bands(
            model,
            image,
            args.tile,
            run,
            lambda tiles, name=path.name: tqdm(tiles, name, unit="tile", disable=None),
        )
        height, width = (model.scale * side for side in image.shape[:2])
        write_png(target, bands, height, width)
        print(f"Wrote {target}, {width} × {height} pixels.")


def evaluate(args):
    """Measures upsamplers."""
    models, upscalers = [], {}
    for path in args.upsampler:
        model, run = _load(path)
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
    perceptual = load_perceptual(args.perceptual) if args.perceptual else None
    degrade = Upsampling(models[0], size, tokenizer).degrade
    pictures = load_images(args.data, args.split, size)
    evaluate_upscaling(
        upscalers, degrade, pictures, scale, args.out, perceptual=perceptual
    )
    print((args.out / "table.md").read_text(encoding="utf-8"))
    print(f"Wrote {args.out}")


def _load(path):
    """Returns an upsampler with plain kernels, and its `upscale` as a graph."""
    model = WDSR.load_dir(model_dir(path)).fold()
    graph = compiled(lambda images: {"y": model.upscale(images)}, model)
    return model, lambda images: graph(images)["y"]
