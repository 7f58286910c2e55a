"""ViT-VQGAN in PyTorch, as one would write it there, and its only peer to install.

    python benchmarks/parts/torch_vit_vqgan.py PEER PART DTYPE [--quick]

PEER is "plain", the same equations as ours, or "parti-pytorch", the `VitVQGanVAE` of
that package with the same widths; PART is encode, decode or train; DTYPE is float32 or
bfloat16, by autocast. Prints one line of JSON: `seconds`, the best of some rounds, and
`parameters`. Needs torch alone, or parti-pytorch too; nothing of this library.
"""

import argparse
import importlib
import importlib.util
import json
import sys
import time
import types

import torch
from torch import nn
from torch.nn import functional

SMALL = {"image_size": 256, "patch": 8, "dim": 512, "layers": 8, "heads": 8} | {
    "mlp_dim": 2048,
    "num_codes": 8192,
    "code_dim": 32,
    "batch": 4,
}
TINY = {"image_size": 32, "patch": 8, "dim": 64, "layers": 2, "heads": 2} | {
    "mlp_dim": 128,
    "num_codes": 64,
    "code_dim": 8,
    "batch": 2,
}


class Block(nn.Module):
    """A pre-norm encoder block."""

    def __init__(self, dim, heads, mlp_dim):
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(dim, eps=1e-6)
        self.query_key_value = nn.Linear(dim, 3 * dim)
        self.output_projection = nn.Linear(dim, dim)
        self.feed_forward_norm = nn.LayerNorm(dim, eps=1e-6)
        self.wide, self.narrow = nn.Linear(dim, mlp_dim), nn.Linear(mlp_dim, dim)

    def forward(self, x):
        """Maps (batch, length, dim) to the same shape."""
        qkv = self.query_key_value(self.attention_norm(x))
        q, k, v = (
            y.unflatten(-1, (self.heads, -1)).transpose(1, 2) for y in qkv.chunk(3, -1)
        )
        y = functional.scaled_dot_product_attention(q, k, v)
        x = x + self.output_projection(y.transpose(1, 2).flatten(2))
        return x + self.narrow(functional.gelu(self.wide(self.feed_forward_norm(x))))


class Tower(nn.Module):
    """Projection, positions, blocks, norm, Dense–tanh–Dense."""

    def __init__(self, size, inputs, outputs):
        super().__init__()
        dim, tokens = size["dim"], (size["image_size"] // size["patch"]) ** 2
        self.embedding = nn.Linear(inputs, dim)
        self.positions = nn.Parameter(0.02 * torch.randn(tokens, dim))
        self.blocks = nn.Sequential(
            *(Block(dim, size["heads"], size["mlp_dim"]) for _ in range(size["layers"]))
        )
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.hidden = nn.Linear(dim, size["mlp_dim"])
        self.output = nn.Linear(size["mlp_dim"], outputs)

    def forward(self, x):
        """Maps (batch, length, inputs) to (batch, length, outputs)."""
        x = self.blocks(self.embedding(x) + self.positions)
        return self.output(torch.tanh(self.hidden(self.norm(x))))


class ViTVQGAN(nn.Module):
    """Pictures (batch, 3, height, width) to ids and back."""

    def __init__(self, size):
        super().__init__()
        self.patch, self.grid = size["patch"], size["image_size"] // size["patch"]
        self.encoder = Tower(size, 3 * self.patch**2, size["code_dim"])
        self.codebook = nn.Parameter(torch.randn(size["num_codes"], size["code_dim"]))
        self.decoder = Tower(size, size["code_dim"], 6 * self.patch**2)

    def vectors(self, images):
        """What the quantizer is given."""
        x = functional.pixel_unshuffle(2 * images - 1, self.patch)
        return self.encoder(x.flatten(2).transpose(1, 2))

    def encode(self, images):
        """Ids (batch, length)."""
        vectors = functional.normalize(self.vectors(images).float(), dim=-1)
        return (vectors @ functional.normalize(self.codebook, dim=-1).T).argmax(-1)

    def pictures(self, codes):
        """The six channels of the decoder."""
        x = self.decoder(codes).transpose(1, 2).unflatten(2, (self.grid, self.grid))
        return functional.pixel_shuffle(x, self.patch).float()

    def decode(self, ids):
        """Pictures of ids."""
        codes = functional.normalize(self.codebook[ids], dim=-1)
        return ((torch.sigmoid(self.pictures(codes)[:, :3]) - 0.1) / 0.8).clip(0, 1)

    def loss(self, images):
        """The losses of VQ, ℓ2 and logit-Laplace, weighted as in the paper."""
        vectors = functional.normalize(self.vectors(images).float(), dim=-1)
        table = functional.normalize(self.codebook, dim=-1)
        codes = table[(vectors.detach() @ table.detach().T).argmax(-1)]
        vq = functional.mse_loss(codes, vectors.detach())
        vq = vq + 0.25 * functional.mse_loss(vectors, codes.detach())
        mean, scale = self.pictures(vectors + (codes - vectors).detach()).chunk(2, 1)
        l2 = functional.mse_loss((torch.sigmoid(mean) - 0.1) / 0.8, images)
        target = torch.logit(0.8 * images + 0.1)
        scale = scale.clip(min=-2.0)
        laplace = ((target - mean).abs() * torch.exp(-scale) + scale).mean()
        return vq + l2 + 0.1 * laplace


def plain(part, size, images, autocast):
    """Returns a function of no arguments to time, and the number of parameters."""
    model = ViTVQGAN(size)
    count = sum(p.numel() for p in model.parameters())
    if part == "train":
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=1e-4, betas=(0.9, 0.99), weight_decay=1e-4
        )

        def step():
            optimizer.zero_grad(set_to_none=True)
            with autocast():
                loss = model.loss(images)
            loss.backward()
            optimizer.step()

        return step, count
    ids = torch.randint(size["num_codes"], (len(images), model.grid**2))

    def run():
        with torch.inference_mode(), autocast():
            model.encode(images) if part == "encode" else model.decode(ids)

    return run, count


def peer(part, size, images, autocast):
    """The same of parti-pytorch. Its own training step needs a discriminator."""
    if part == "train":
        raise SystemExit("parti-pytorch's step is another one: use plain")
    # Of the package the tokenizer's module alone: the others want torchvision, whose
    # wheel may not load beside a CPU build of torch, and text encoders. The tokenizer
    # needs torchvision for its perceptual loss only, which is switched off.
    spec = importlib.util.find_spec("parti_pytorch")
    package = types.ModuleType("parti_pytorch")
    package.__path__ = list(spec.submodule_search_locations)
    sys.modules |= {
        "parti_pytorch": package,
        "torchvision": types.ModuleType("torchvision"),
    }
    module = importlib.import_module("parti_pytorch.vit_vqgan")
    model = module.VitVQGanVAE(
        dim=size["dim"],
        image_size=size["image_size"],
        layers=size["layers"],
        codebook_size=size["num_codes"],
        lookup_free_quantization=False,
        vq_codebook_dim=size["code_dim"],
        encdec_patch_size=size["patch"],
        encdec_heads=size["heads"],
        encdec_dim_head=size["dim"] // size["heads"],
        encdec_ff_mult=size["mlp_dim"] // size["dim"],
        use_vgg_and_gan=False,
    ).eval()
    count = sum(p.numel() for p in model.parameters())
    with torch.inference_mode(), autocast():
        features, *_ = model.encode(images)

    def run():
        with torch.inference_mode(), autocast():
            model.encode(images) if part == "encode" else model.decode(features)

    return run, count


def main(argv=None):
    """Prints the line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("peer", choices=["plain", "parti-pytorch"])
    parser.add_argument("part", choices=["encode", "decode", "train"])
    parser.add_argument("dtype", choices=["float32", "bfloat16"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args(argv)
    size = TINY if args.quick else SMALL
    torch.manual_seed(0)
    images = torch.rand(size["batch"], 3, size["image_size"], size["image_size"])

    def autocast():
        return torch.autocast(
            "cpu", dtype=torch.bfloat16, enabled=args.dtype == "bfloat16"
        )

    make = plain if args.peer == "plain" else peer
    run, count = make(args.part, size, images, autocast)
    seconds = []
    for _ in range(args.rounds + 1):  # the first one warms up
        begun = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - begun)
    print(json.dumps({"seconds": min(seconds[1:]), "parameters": count}))


if __name__ == "__main__":
    main()
