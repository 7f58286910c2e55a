"""Mock data in the layouts that the recipes document, and parts of a chain."""

import json

import numpy as np
from PIL import Image

CAPTIONS = [f"a {c} {t}" for c in ("red", "green", "blue") for t in ("fox", "pear")]


def picture(path, seed, size=(36, 32)):
    """Writes a smooth picture, as its suffix says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    small = Image.fromarray(random.integers(0, 256, (4, 4, 3), np.uint8))
    small.resize(size, Image.Resampling.BICUBIC).save(path, "PNG")


def imagenet(folder):
    """Writes ImageNet: three classes of eight and two pictures."""
    for number, name in enumerate(("n01440764", "n02123045", "n07768694")):
        for i in range(8):
            picture(folder / f"imagenet/train/{name}/{name}_{i}.JPEG", 10 * number + i)
        for i in range(2):
            path = f"imagenet/val/{name}/ILSVRC2012_val_0000000{i}.JPEG"
            picture(folder / path, 10 * number + 8 + i)
    return {}


def ffhq(folder):
    """Writes FFHQ: twenty-four pictures in folders of a thousand numbers."""
    for i in range(24):
        picture(folder / f"ffhq/{1000 * (i // 8):05d}/{1000 * (i // 8) + i:05d}.png", i)
    return {}


def coco(folder):
    """Writes MS-COCO: eight pictures a split, each with two captions."""
    for split in ("train", "val"):
        images, told = [], []
        for i in range(8):
            name = f"COCO_{split}2014_{i:012d}.jpg"
            picture(folder / f"coco/{split}2014/{name}", i + 8 * (split == "val"))
            images.append({"id": i, "file_name": name})
            for caption in (CAPTIONS[i % 6], f"{CAPTIONS[i % 6]} again"):
                told.append({"image_id": i, "caption": caption})
        path = folder / f"coco/annotations/captions_{split}2014.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"images": images, "annotations": told}))
    return {}


def parts(folder):
    """Writes an untrained tokenizer, Parti and CoCa, and a vocabulary of the captions.

    Returns:
        A dict of the names that recipes give them to their paths.
    """
    from keras_parti.models import CoCa, Parti, ViTVQGAN
    from keras_parti.text import train_vocabulary

    paths = {name: folder / name for name in ("tokenizer", "parti", "coca")}
    for model, name in ((ViTVQGAN, "vit_vqgan"), (Parti, "parti"), (CoCa, "coca")):
        path = paths["tokenizer" if model is ViTVQGAN else name]
        model.from_preset(f"{name}_tiny").save_dir(path)
    paths["vocab"] = folder / "vocabulary.model"
    train_vocabulary(CAPTIONS, paths["vocab"], 300)
    return {name: str(path) for name, path in paths.items()}
