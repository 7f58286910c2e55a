"""Weights of the ViT-VQGANs of the PyTorch repository thuanz123/enhancing-transformers.

Where its model differs from the paper's as we read it, our config has fields: tanh
inside blocks, a single linear layer behind each tower, norms of 1e-5. The rest is
arithmetic: pixels that go in as [0, 1], query, key and value in one kernel and without
biases, fixed positions, convolutions whose stride is their size.
"""

import collections
import math
import os
import re

import numpy as np

from keras_parti.models.vit_vqgan import ViTVQGAN, ViTVQGANConfig
from keras_parti.weight_files import read_weight_file

# PyTorch's default, which the repository keeps.
NORM_EPSILON = 1e-5
# Width of a head in all configs that the repository publishes.
HEAD_DIM = 64
# What its earlier revisions call the same.
RENAMED = (
    ("encoder.norm.", "encoder.transformer.norm."),
    ("decoder.norm.", "decoder.transformer.norm."),
    ("decoder.to_pixel.conv_out.", "decoder.to_pixel.1."),
)
POSITIONS = {
    "encoder": "encoder.en_pos_embedding",
    "decoder": "decoder.de_pos_embedding",
}
# Our words for the two arrays of a norm, and theirs.
WORDS = {"gamma": "weight", "beta": "bias"}
PATCHES = "encoder.to_patch_embedding.0.weight"
CODEBOOK = "quantizer.embedding.weight"
# The sizes of a model are those of these arrays: name and number of axes.
TELLING = {
    PATCHES: 4,
    CODEBOOK: 2,
    **dict.fromkeys(POSITIONS.values(), 3),
    **{f"{s}.transformer.layers.0.1.fn.net.0.weight": 2 for s in POSITIONS},
}


def from_enhancing_transformers(
    path: str | os.PathLike, head_dim: int = HEAD_DIM
) -> ViTVQGAN:
    """Makes a ViT-VQGAN of weights of thuanz123/enhancing-transformers.

    Its outputs are those of the file's model: the same ids, and pictures that differ by
    rounding. What a file does not tell is taken as in the repository's configs: codes
    are normalized and one a token (neither residual nor Gumbel), heads `head_dim` wide.

    Args:
        path: str or path. A `.safetensors` file, or one that `torch.save` wrote, of a
            state dict or a whole checkpoint of Lightning. What begins with "loss." is
            not read: discriminator and perceptual network.
        head_dim: int. Width of an attention head.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no file of tensors, or tensors that our architecture has no place
            for; the message lists all differences.

    References:
        - <https://github.com/thuanz123/enhancing-transformers>,
          `enhancing/modules/stage1/`
    """
    theirs = {}
    for name, array in read_weight_file(path, lambda n: n[:5] != "loss.").items():
        for old, new in RENAMED:
            name = name.replace(old, new) if name.startswith(old) else name
        theirs[name] = array
    lacking = [n for n, axes in TELLING.items() if _axes(theirs, n) != axes]
    if lacking:
        raise ValueError(
            f"{path} holds no ViT-VQGAN of enhancing-transformers, which has "
            f"{', '.join(f'{n} of {TELLING[n]} axes' for n in lacking)}. "
            f"Received: {', '.join([*theirs][:5]) or 'nothing'}, {len(theirs)} in all"
        )
    sizes = _sizes(theirs)
    wrong = [*_impossible(theirs, sizes, head_dim), *_unlike(theirs, _shapes(sizes))]
    if wrong:
        raise ValueError(
            f"{path} is no ViT-VQGAN that this library can be. {len(wrong)} "
            f"{'difference' if len(wrong) == 1 else 'differences'}: {'; '.join(wrong)}"
        )
    model = ViTVQGAN(_config(sizes, head_dim))
    arrays = _arrays(theirs, sizes)
    for variable in model.weights:
        variable.assign(arrays.pop(variable.path))
    assert not arrays, f"no variables for {list(arrays)}"
    return model


def _axes(arrays, name):
    return arrays[name].ndim if name in arrays else None


def _sizes(theirs):
    """Returns what the shapes tell, by the names that a config has for it."""
    sizes = {
        "num_tokens": theirs[POSITIONS["encoder"]].shape[1],
        "patch_size": theirs[PATCHES].shape[2],
        "num_codes": theirs[CODEBOOK].shape[0],
        "code_dim": theirs[CODEBOOK].shape[1],
    }
    for side, name in POSITIONS.items():
        block = re.compile(rf"{side}\.transformer\.layers\.(\d{{1,4}})\.")
        found = [int(match[1]) for match in map(block.match, theirs) if match]
        wide = f"{side}.transformer.layers.0.1.fn.net.0.weight"
        sizes[f"{side}_layers"] = len(set(found))
        sizes[f"{side}_dim"] = theirs[name].shape[2]
        sizes[f"{side}_mlp_dim"] = theirs[wide].shape[0]
    return sizes


def _shapes(sizes):
    """Returns the shape of every array of a model of such sizes, by its name there."""
    patch, codes = sizes["patch_size"], sizes["code_dim"]
    ends = sizes["encoder_dim"], sizes["decoder_dim"]
    shapes = {
        PATCHES: (ends[0], 3, patch, patch),
        PATCHES.replace("weight", "bias"): (ends[0],),
        CODEBOOK: (sizes["num_codes"], codes),
        "pre_quant.weight": (codes, ends[0]),
        "pre_quant.bias": (codes,),
        "post_quant.weight": (ends[1], codes),
        "post_quant.bias": (ends[1],),
        "decoder.to_pixel.1.weight": (ends[1], 3, patch, patch),
        "decoder.to_pixel.1.bias": (3,),
    }
    for side, positions in POSITIONS.items():
        dim, mlp_dim = sizes[f"{side}_dim"], sizes[f"{side}_mlp_dim"]
        shapes[positions] = (1, sizes["num_tokens"], dim)
        norms = ["norm"]
        for i in range(sizes[f"{side}_layers"]):
            norms += [f"layers.{i}.0.norm", f"layers.{i}.1.norm"]
            block = f"{side}.transformer.layers.{i}"
            shapes[f"{block}.0.fn.to_qkv.weight"] = (3 * dim, dim)
            shapes[f"{block}.0.fn.to_out.weight"] = (dim, dim)
            shapes[f"{block}.0.fn.to_out.bias"] = (dim,)
            shapes[f"{block}.1.fn.net.0.weight"] = (mlp_dim, dim)
            shapes[f"{block}.1.fn.net.0.bias"] = (mlp_dim,)
            shapes[f"{block}.1.fn.net.2.weight"] = (dim, mlp_dim)
            shapes[f"{block}.1.fn.net.2.bias"] = (dim,)
        for norm in norms:
            shapes |= {f"{side}.transformer.{norm}.{w}": (dim,) for w in WORDS.values()}
    return shapes


def _impossible(theirs, sizes, head_dim):
    """Says what of the sizes no config of ours can express."""
    if math.isqrt(sizes["num_tokens"]) ** 2 != sizes["num_tokens"]:
        yield f"{sizes['num_tokens']} tokens are no square, and pictures here are"
    for side in POSITIONS:
        dim = sizes[f"{side}_dim"]
        if dim % head_dim:
            yield (
                f"{side}: heads of a width of {head_dim}, `head_dim`, do not divide "
                f"its own, {dim}"
            )
        inner = theirs.get(f"{side}.transformer.layers.0.0.fn.to_qkv.weight")
        if inner is not None and inner.ndim and inner.shape[0] != 3 * dim:
            yield (
                f"{side}: its heads are {inner.shape[0] / 3:g} wide together, and here "
                f"as wide as the tower, {dim}"
            )


def _unlike(theirs, shapes):
    """Says what is missing, unknown, of another shape, or no finite numbers.

    What is so in many blocks is said once.
    """
    found = collections.Counter()
    for name in (*shapes, *(n for n in theirs if n not in shapes)):
        short = re.sub(r"\.layers\.\d+\.", ".layers.*.", name)
        array = theirs.get(name)
        if array is None:
            found[f"{short} is missing"] += 1
        elif name not in shapes:
            found[f"{short} {array.shape} has no place"] += 1
        elif array.shape != shapes[name]:
            found[f"{short} is {array.shape}, here {shapes[name]}"] += 1
        elif array.dtype.kind != "f":
            found[f"{short} is {array.dtype}, not of floats"] += 1
        elif not np.isfinite(array).all():
            found[f"{short} is not finite"] += 1
    return [text + (f" ({n} blocks)" if n > 1 else "") for text, n in found.items()]


def _config(sizes, head_dim):
    sizes = dict(sizes)
    grid = math.isqrt(sizes.pop("num_tokens"))
    heads = {f"{side}_heads": sizes[f"{side}_dim"] // head_dim for side in POSITIONS}
    return ViTVQGANConfig(
        image_size=grid * sizes["patch_size"],
        output="rgb",
        activation="tanh",
        head="linear",
        norm_epsilon=NORM_EPSILON,
        **heads,
        **sizes,
    )


def _arrays(theirs, sizes):
    """Returns the arrays by the paths of our variables."""
    theirs = {name: np.asarray(array, "float32") for name, array in theirs.items()}
    patch = sizes["patch_size"]
    arrays = {"quantizer/codebook": theirs[CODEBOOK]}

    def dense(path, name):
        arrays[f"{path}/kernel"] = theirs[f"{name}.weight"].T
        arrays[f"{path}/bias"] = theirs[f"{name}.bias"]

    def norm(path, name):
        for ours, word in WORDS.items():
            arrays[f"{path}/{ours}"] = theirs[f"{name}.{word}"]

    for side, positions in POSITIONS.items():
        arrays[f"{side}/positions/positions"] = theirs[positions][0]
        norm(f"{side}/norm", f"{side}.transformer.norm")
        for i in range(sizes[f"{side}_layers"]):
            path, name = f"{side}/block_{i}", f"{side}.transformer.layers.{i}"
            kernels = np.split(theirs[f"{name}.0.fn.to_qkv.weight"].T, 3, axis=1)
            parts = zip(("query", "key", "value"), kernels, strict=True)
            for part, kernel in parts:
                arrays[f"{path}/attention/{part}/kernel"] = kernel
                arrays[f"{path}/attention/{part}/bias"] = np.zeros(kernel.shape[1:])
            norm(f"{path}/attention_norm", f"{name}.0.norm")
            dense(f"{path}/attention/output_projection", f"{name}.0.fn.to_out")
            norm(f"{path}/feed_forward_norm", f"{name}.1.norm")
            dense(f"{path}/feed_forward/wide", f"{name}.1.fn.net.0")
            dense(f"{path}/feed_forward/narrow", f"{name}.1.fn.net.2")

    # (width, channel, row, column) to (row, column, channel) and width. Our encoder
    # maps pixels x to 2x - 1 first: Wx + b = (W/2)(2x - 1) + b + W/2 · 1.
    half = theirs[PATCHES].transpose(2, 3, 1, 0).reshape(-1, sizes["encoder_dim"]) / 2
    bias = theirs[PATCHES.replace("weight", "bias")] + half.sum(axis=0)
    arrays["encoder/patches/projection/kernel"] = half
    arrays["encoder/patches/projection/bias"] = bias
    dense("encoder/head", "pre_quant")
    dense("decoder/codes", "post_quant")
    pixels = theirs["decoder.to_pixel.1.weight"].transpose(0, 2, 3, 1)
    arrays["decoder/head/kernel"] = pixels.reshape(sizes["decoder_dim"], -1)
    arrays["decoder/head/bias"] = np.tile(theirs["decoder.to_pixel.1.bias"], patch**2)
    return arrays
