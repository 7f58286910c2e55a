"""Parti's equations in PyTorch, as one would write them there: to compare speeds with.

The same layers with the same names, dense causal attention by PyTorch's own
`scaled_dot_product_attention`, no dropout. `load` takes the weights of our model, so
that both can be seen to compute one loss.
"""

import torch
from torch import nn
from torch.nn import functional


class Attention(nn.Module):
    """Queries of one sequence, keys and values of another."""

    def __init__(self, dim, heads):
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.output_projection = (
            nn.Linear(dim, dim) for _ in range(4)
        )

    def forward(self, x, memory, mask=None, causal=False):
        """Returns what `x`, (batch, length, dim), finds in `memory`."""
        q, k, v = (
            layer(y).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer, y in ((self.query, x), (self.key, memory), (self.value, memory))
        )
        x = functional.scaled_dot_product_attention(q, k, v, mask, is_causal=causal)
        return self.output_projection(x.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """An encoder block, or with `cross` a decoder block, both pre-norm."""

    def __init__(self, dim, heads, mlp_dim, cross):
        super().__init__()
        self.attention_norm = nn.LayerNorm(dim, eps=1e-6)
        self.attention = Attention(dim, heads)
        if cross:
            self.cross_attention_norm = nn.LayerNorm(dim, eps=1e-6)
            self.cross_attention = Attention(dim, heads)
        self.feed_forward_norm = nn.LayerNorm(dim, eps=1e-6)
        self.wide = nn.Linear(dim, mlp_dim)
        self.narrow = nn.Linear(mlp_dim, dim)

    def forward(self, x, mask=None, memory=None):
        """Returns (batch, length, dim); `mask` is of the text."""
        y = self.attention_norm(x)
        if memory is None:
            x = x + self.attention(y, y, mask)
        else:
            x = x + self.attention(y, y, causal=True)
            x = x + self.cross_attention(self.cross_attention_norm(x), memory, mask)
        return x + self.narrow(functional.relu(self.wide(self.feed_forward_norm(x))))


class TorchParti(nn.Module):
    """Logits of image ids, given a `PartiConfig`."""

    def __init__(self, config):
        super().__init__()
        dim = config.dim
        sizes = (dim, config.heads, config.mlp_dim)
        self.num_codes = config.num_codes
        self.text_embedding = nn.Embedding(config.text_vocab_size, dim)
        self.text_positions = nn.Parameter(torch.zeros(config.text_length, dim))
        self.encoder = nn.ModuleList(
            Block(*sizes, cross=False) for _ in range(config.encoder_layers)
        )
        self.encoder_norm = nn.LayerNorm(dim, eps=1e-6)
        self.image_embedding = nn.Embedding(config.num_codes + 1, dim)
        self.image_positions = nn.Parameter(torch.zeros(config.num_tokens, dim))
        self.decoder = nn.ModuleList(
            Block(*sizes, cross=True) for _ in range(config.decoder_layers)
        )
        self.decoder_norm = nn.LayerNorm(dim, eps=1e-6)
        self.logits = nn.Linear(dim, config.num_codes)

    def forward(self, text_ids, image_ids):
        """Returns (batch, num_tokens, num_codes)."""
        mask = (text_ids != 0)[:, None, None, :]
        memory = self.text_embedding(text_ids) + self.text_positions
        for block in self.encoder:
            memory = block(memory, mask)
        memory = self.encoder_norm(memory)
        ids = functional.pad(image_ids[:, :-1], (1, 0), value=self.num_codes)
        x = self.image_embedding(ids) + self.image_positions
        for block in self.decoder:
            x = block(x, mask, memory)
        return self.logits(self.decoder_norm(x))

    def load(self, model):
        """Copies the weights of a `keras_parti.models.Parti` with learned positions."""
        with torch.no_grad():
            for name in ("text_embedding", "image_embedding"):
                (table,) = getattr(model, name).get_weights()
                getattr(self, name).weight.copy_(torch.from_numpy(table))
            for name in ("text_positions", "image_positions"):
                (table,) = getattr(model, name).get_weights()
                getattr(self, name).copy_(torch.from_numpy(table))
            for name in ("encoder_norm", "decoder_norm", "logits"):
                _copy(getattr(self, name), getattr(model, name))
            for ours, theirs in zip(
                [*self.encoder, *self.decoder],
                [*model.encoder, *model.decoder],
                strict=True,
            ):
                _copy(ours.wide, theirs.feed_forward.wide)
                _copy(ours.narrow, theirs.feed_forward.narrow)
                for name, part in ours.named_children():
                    if name.endswith("norm"):
                        _copy(part, getattr(theirs, name))
                    elif isinstance(part, Attention):
                        for inner, layer in part.named_children():
                            _copy(layer, getattr(getattr(theirs, name), inner))


def _copy(ours, theirs):
    kernel, bias = (torch.from_numpy(w) for w in theirs.get_weights())
    ours.weight.copy_(kernel.T if kernel.ndim == 2 else kernel)
    ours.bias.copy_(bias)
