"""`keras-parti upscale`: a trained upsampler at work."""

from tqdm import tqdm

from keras_parti.compiled import compiled
from keras_parti.data.decoding import decode_picture
from keras_parti.data.png import write_png
from keras_parti.models import WDSR, upscale_bands
from keras_parti.training.workdir import model_dir

# A photograph of 100 megapixels takes 0.3 GB, and 1 GB while it is decoded; enlarged it
# is never whole in memory. Twice its own limit is where Pillow refuses whatever one
# says.
MAX_PIXELS = 178_000_000


def upscale(args):
    """Enlarges picture files."""
    model, run = load(args.upsampler)
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


def load(path):
    """Returns an upsampler with plain kernels, and its `upscale` as a graph."""
    model = WDSR.load_dir(model_dir(path)).fold()
    graph = compiled(lambda images: {"y": model.upscale(images)}, model)
    return model, lambda images: graph(images)["y"]
