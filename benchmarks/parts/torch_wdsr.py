"""WDSR-A in PyTorch, as its authors' code has it: weights normalised at each call.

    python benchmarks/parts/torch_wdsr.py DTYPE SCALE BLOCKS FILTERS EXPANSION SIDE

DTYPE is float32 or bfloat16, by autocast; SIDE is that of the picture in pixels. Prints
one line of JSON: `seconds`, the best of some rounds, and `parameters`. Needs torch.
"""

import argparse
import json
import time

import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm


def conv(inputs, outputs, side):
    """A weight-normalised convolution with zeros around."""
    return weight_norm(nn.Conv2d(inputs, outputs, side, padding=side // 2))


class Block(nn.Module):
    """Two convolutions, wide between them, and what came in."""

    def __init__(self, filters, wide):
        super().__init__()
        self.wide, self.narrow = conv(filters, wide, 3), conv(wide, filters, 3)

    def forward(self, x):
        """Keeps the shape."""
        return x + self.narrow(torch.relu(self.wide(x)))


class Upsampler(nn.Module):
    """Head, blocks, tail, and a skip of 5×5; a pixel shuffle of their sum."""

    def __init__(self, scale, blocks, filters, expansion):
        super().__init__()
        self.head = conv(3, filters, 3)
        self.blocks = nn.Sequential(
            *(Block(filters, filters * expansion) for _ in range(blocks))
        )
        self.tail, self.skip = conv(filters, 3 * scale**2, 3), conv(3, 3 * scale**2, 5)
        self.shuffle = nn.PixelShuffle(scale)

    def forward(self, x):
        """Maps (batch, 3, height, width) to as much times the scale."""
        x = x - 0.45
        return self.shuffle(self.tail(self.blocks(self.head(x))) + self.skip(x)) + 0.45


def main():
    """Times the network."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dtype", choices=["float32", "bfloat16"])
    for name in ("scale", "blocks", "filters", "expansion", "side"):
        parser.add_argument(name, type=int)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--train", type=int, default=0, metavar="BATCH")
    args = parser.parse_args()
    model = Upsampler(args.scale, args.blocks, args.filters, args.expansion)
    # The layout that PyTorch's own documents recommend for convolutions on CPUs.
    model = model.to(memory_format=torch.channels_last)
    images = torch.rand(args.train or 1, 3, args.side, args.side)
    images = images.to(memory_format=torch.channels_last)
    targets = torch.rand(len(images), 3, args.scale * args.side, args.scale * args.side)
    optimizer = torch.optim.Adam(model.parameters(), 1e-4)

    def step():
        with torch.autocast("cpu", torch.bfloat16, enabled=args.dtype == "bfloat16"):
            if not args.train:
                with torch.inference_mode():
                    return model(images)
            loss = (model(images) - targets).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        return optimizer.step()

    seconds = []
    for _ in range(args.rounds + 1):
        begun = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - begun)
    parameters = sum(p.numel() for p in model.parameters())
    print(json.dumps({"seconds": min(seconds[1:]), "parameters": parameters}))


if __name__ == "__main__":
    main()
