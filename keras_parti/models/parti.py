"""Parti: text ids to image ids, with a Transformer encoder and decoder."""

import dataclasses
import math
from typing import Any

import keras
from keras import ops

from keras_parti import layers
from keras_parti.layers.embeddings import PAD, empty_prompt, token_embedding
from keras_parti.layers.rematerialisation import recomputed
from keras_parti.layers.transformer import layer_norm
from keras_parti.layers.window import check_kernel
from keras_parti.models.base import ConfigModel, check_heads, check_positive
from keras_parti.typing import Tensor


@dataclasses.dataclass(frozen=True)
class PartiConfig:
    """Sizes of a Parti model; vocabularies and lengths default to the paper's."""

    encoder_layers: int = 12
    decoder_layers: int = 12
    dim: int = 1024
    heads: int = 16
    mlp_dim: int = 4096
    text_vocab_size: int = 16_000
    text_length: int = 128  # ids of a text: bos, pieces, eos, padding
    num_codes: int = 8192
    num_tokens: int = 1024  # ids of an image
    # Side of the window of ids that the decoder's self-attention sees, in which Parti
    # follows DALL-E. 11 is DALL-E's; Parti's own is not published. None: every id
    # before.
    attention_kernel: int | None = 11
    # Whether a window goes on at the end of the row before, as DALL-E's does.
    attention_wraparound: bool = True
    # Numbers of the decoder layers with a window, from 0. None: all. DALL-E has it in
    # its last layer; Parti names no layers.
    window_layers: tuple[int, ...] | None = None
    # "learned": a vector for each position of an image; "factorised": one for each row
    # and one for each column, added. Not published.
    image_positions: str = "learned"
    # Whether logits are products with the image embedding. Not published.
    tie_embeddings: bool = False
    # The paper says 0.1, without where; VIM's 0.1 is of all three.
    dropout_rate: float = 0.1  # of residuals
    activation_dropout_rate: float | None = None  # None: `dropout_rate`
    attention_dropout_rate: float | None = None  # None: `dropout_rate`
    # Share of training texts replaced by the empty prompt. Not published.
    condition_dropout_rate: float = 0.1
    # Share of training pictures into whose ids others are mixed. Not in the paper;
    # see `keras_parti.layers.ImageMixing`.
    image_mixing_rate: float = 0.0
    # Fingerprint of the `ViTVQGAN` whose ids were learned, which training notes here.
    # None: not known, as in folders written before it was noted.
    tokenizer: str | None = None
    # So too of the `Vocabulary` that the texts were written in.
    vocabulary: str | None = None

    def __post_init__(self):
        check_positive(self)
        check_heads(self.dim, self.heads, "")
        for name in (
            "dropout_rate",
            "activation_dropout_rate",
            "attention_dropout_rate",
            "condition_dropout_rate",
            "image_mixing_rate",
        ):
            rate = getattr(self, name)
            if rate is not None and not 0 <= rate < 1:
                raise ValueError(f"`{name}` must be in [0, 1). Received: {name}={rate}")
        if self.text_length < 2:
            raise ValueError(
                "`text_length` must be at least 2, for bos and eos. "
                f"Received: text_length={self.text_length}"
            )
        if self.image_positions not in ("learned", "factorised"):
            raise ValueError(
                "`image_positions` must be 'learned' or 'factorised'. "
                f"Received: image_positions={self.image_positions!r}"
            )
        if self.attention_kernel is not None:
            check_kernel(self.attention_kernel, "attention_kernel")
        if self.window_layers is not None:
            self._check_window_layers()
        two_dimensional = (
            self.attention_kernel is not None or self.image_positions == "factorised"
        )
        if two_dimensional and self.width**2 != self.num_tokens:
            raise ValueError(
                "`num_tokens` must be a square, as many rows as columns, where "
                "`attention_kernel` or factorised `image_positions` tell rows from "
                "columns; `attention_kernel=None` and learned positions do not. "
                f"Received: num_tokens={self.num_tokens}, "
                f"attention_kernel={self.attention_kernel}"
            )

    def _check_window_layers(self):
        # JSON knows no tuples.
        object.__setattr__(self, "window_layers", tuple(self.window_layers))
        if self.attention_kernel is None:
            raise ValueError(
                "`window_layers` names layers with a window, whose side "
                "`attention_kernel` must say. Received: attention_kernel=None"
            )
        known = range(self.decoder_layers)
        if any(layer not in known for layer in self.window_layers):
            raise ValueError(
                f"`window_layers` must be in [0, {self.decoder_layers}). "
                f"Received: window_layers={self.window_layers}"
            )

    @property
    def width(self):
        """Tokens in a row of an image, of as many rows as columns."""
        return math.isqrt(self.num_tokens)

    def kernel_of(self, layer: int) -> int | None:
        """Returns the side of a decoder layer's window, or None where it has none."""
        windowed = self.window_layers is None or layer in self.window_layers
        return self.attention_kernel if windowed else None


@keras.saving.register_keras_serializable("keras_parti")
class Parti(ConfigModel):
    """Predicts the ids of an image one after the other, from a text.

    Both stacks are pre-norm with a final norm and ReLU feed-forward layers that are
    not gated. The decoder's self-attention sees a convolution-shaped window of the ids
    before (`keras_parti.layers.WindowAttention`), or all of them. Positions, tying and
    biases are not published; they are fields of the config, but for biases, which all
    dense layers have.

    Args:
        config: `PartiConfig`.
        **kwargs: `name`, `dtype` and `trainable` of `keras.Model`.

    Attributes:
        rematerialise: bool, False. Set to True, a training step keeps only the inputs
            of the blocks and computes their insides again in the backward pass: less
            memory, one more forward pass, the same gradients.

    Call arguments:
        inputs: dict of `text_ids`, int32 `(batch, text_length)`, and `image_ids`,
            int32 `(batch, num_tokens)`.

    Returns:
        float32 `(batch, num_tokens, num_codes)`: position i holds the logits of
        `image_ids[:, i]`, computed from the text and the ids before i.

    Example:
        >>> import numpy as np
        >>> model = Parti.from_preset("parti_tiny")
        >>> text_ids = np.array([[2, 7, 5, 3, 0, 0, 0, 0, 0, 0, 0]], "int32")
        >>> image_ids = np.zeros((1, 9), "int32")
        >>> logits = model({"text_ids": text_ids, "image_ids": image_ids})
        >>> tuple(logits.shape)
        (1, 9, 23)

    References:
        - [Yu et al., 2022](https://arxiv.org/abs/2206.10789), section 2
    """

    config_class = PartiConfig

    def __init__(self, config: PartiConfig, **kwargs: Any) -> None:
        super().__init__(config, **kwargs)
        self.rematerialise = False
        dtype, dim = self.dtype_policy, config.dim
        arguments = {
            "num_heads": config.heads,
            "mlp_dim": config.mlp_dim,
            "dropout_rate": config.dropout_rate,
            "activation_dropout_rate": config.activation_dropout_rate,
            "attention_dropout_rate": config.attention_dropout_rate,
            "dtype": dtype,
        }
        self.condition_dropout = layers.ConditionDropout(
            config.condition_dropout_rate, name="condition_dropout"
        )
        self.text_embedding = token_embedding(
            config.text_vocab_size, dim, "text", dtype
        )
        self.text_positions = layers.PositionEmbedding(
            config.text_length, dtype=dtype, name="text_positions"
        )
        self.encoder = [
            layers.EncoderBlock(**arguments, name=f"encoder_{i}")
            for i in range(config.encoder_layers)
        ]
        self.encoder_norm = layer_norm("encoder_norm", dtype)
        # The last row begins an image: nothing comes before its first id.
        self.image_embedding = token_embedding(
            config.num_codes + 1, dim, "image", dtype
        )
        self.image_mixing = layers.ImageMixing(
            config.image_mixing_rate, name="image_mixing"
        )
        positions = {"dtype": dtype, "name": "image_positions"}
        self.image_positions = (
            layers.PositionEmbedding(config.num_tokens, **positions)
            if config.image_positions == "learned"
            else layers.GridPositionEmbedding(config.width, config.width, **positions)
        )
        self.decoder = [
            layers.DecoderBlock(
                **arguments,
                kernel_size=config.kernel_of(i),
                width=config.width,
                wraparound=config.attention_wraparound,
                name=f"decoder_{i}",
            )
            for i in range(config.decoder_layers)
        ]
        # Parti's outputs are in float32 whatever the blocks are in.
        self.decoder_norm = layer_norm("decoder_norm", "float32")
        logits = (config.num_codes, self.compute_dtype)
        self.logits = (
            _TiedDense(self.image_embedding, *logits, dtype="float32", name="logits")
            if config.tie_embeddings
            else layers.LogitsDense(*logits, dtype="float32", name="logits")
        )
        self.dropout = keras.layers.Dropout(config.dropout_rate, dtype=dtype)

        text, image = (None, config.text_length, dim), (None, config.num_tokens, dim)
        self.text_embedding.build()
        self.image_embedding.build()
        for layer in (self.text_positions, *self.encoder, self.encoder_norm):
            layer.build(text)
        for layer in (self.image_positions, self.decoder_norm, self.logits):
            layer.build(image)
        for block in self.decoder:
            block.build(image, text)
        self.built = True

    def call(self, inputs: dict[str, Tensor], training: bool | None = None) -> Tensor:
        text_ids = self.condition_dropout(inputs["text_ids"], training=training)
        memory, memory_mask = self.encode(text_ids, training=training)
        ids = ops.cast(inputs["image_ids"], "int32")
        x = ops.concatenate([self.begin(ops.shape(ids)[0]), ids[:, :-1]], axis=1)
        x = self.image_mixing(x, training=training)
        x = self.image_positions(self.image_embedding(x))
        x = self.dropout(x, training=training)  # (batch, length, embed)
        mask = causal_mask(self.config.num_tokens)
        for block in self.decoder:
            x = self._run(
                block,
                x,
                memory,
                attention_mask=mask if block.kernel_size is None else None,
                memory_mask=memory_mask,
                training=training,
            )
        return self.predict_logits(x)

    def _run(self, block, *inputs, training, **masks):
        if training and self.rematerialise:
            return recomputed(block, *inputs, training=True, **masks)
        return block(*inputs, training=training, **masks)

    def encode(
        self, text_ids: Tensor, training: bool | None = None
    ) -> tuple[Tensor, Tensor]:
        """Returns the encoder's output and where a decoder may look at it.

        Args:
            text_ids: int32 `(batch, text_length)`.
            training: bool or None. Whether dropout is on.

        Returns:
            float `(batch, memory, embed)` and bool `(batch, 1, 1, memory)`, True
            where there is no padding.
        """
        if text_ids.shape[1] != self.config.text_length:
            raise ValueError(
                f"`text_ids` must have {self.config.text_length} columns. "
                f"Received: shape {tuple(text_ids.shape)}"
            )
        mask = ops.not_equal(text_ids, PAD)[:, None, None, :]
        x = self.text_positions(self.text_embedding(text_ids))
        x = self.dropout(x, training=training)
        for block in self.encoder:
            x = self._run(block, x, attention_mask=mask, training=training)
        return self.encoder_norm(x), mask

    def decoder_parts(self) -> dict[str, Any]:
        """Returns what `keras_parti.decoding` computes a position from."""
        config = self.config
        places = ops.zeros((1, config.num_tokens, config.dim), self.compute_dtype)
        return {
            "blocks": self.decoder,
            "norm": self.decoder_norm,
            "logits": self.logits,
            "embeddings": ops.convert_to_tensor(self.image_embedding.embeddings),
            "positions": self.image_positions(places)[0],
        }

    def condition(self, text_ids: Tensor) -> dict[str, Tensor]:
        """Returns what a decoder begins with and looks at, for each text.

        Args:
            text_ids: int32 `(groups, text_length)`.

        Returns:
            A dict of `begin`, float `(groups, embed)`; `memory`, float
            `(groups, memory, embed)`; and `mask`, bool `(groups, memory)`.
        """
        memory, mask = self.encode(text_ids)
        begin = self.image_embedding(self.begin(ops.shape(text_ids)[0]))
        return {"begin": begin[:, 0], "memory": memory, "mask": mask[:, 0, 0]}

    def no_condition(self) -> Tensor:
        """Returns the text ids of no text, int32 `(1, text_length)`."""
        return empty_prompt(self.config.text_length)

    def begin(self, batch: int) -> Tensor:
        """Returns the ids that stand before an image, int32 `(batch, 1)`."""
        return ops.full((batch, 1), self.config.num_codes, dtype="int32")

    def predict_logits(self, x: Tensor) -> Tensor:
        """Returns float32 logits `(batch, length, num_codes)` of the last block."""
        # Cast first: Keras' norms round what they return to what they are given.
        return self.logits(self.decoder_norm(ops.cast(x, "float32")))


def causal_mask(length):
    """Returns bool `(length, length)`: True where key position ≤ query position."""
    positions = ops.arange(length)
    return positions[None, :] <= positions[:, None]


class _TiedDense(layers.LogitsDense):
    """`LogitsDense` whose kernel is the table of an embedding, transposed.

    Args:
        embedding: a built `keras.layers.Embedding`.
        units: int. As many rows of its table, from the first, are outputs.
        backward_dtype: str or None, as of `LogitsDense`.
        **kwargs: `name`, `dtype` and `trainable` of `keras.layers.Layer`.
    """

    def __init__(self, embedding, units, backward_dtype, **kwargs):
        super().__init__(units, backward_dtype, **kwargs)
        # In a function, so that Keras does not take the table for this layer's own.
        self._table = lambda: embedding.embeddings[:units]

    def build(self, input_shape):
        self._build_bias()

    @property
    def kernel(self):
        return ops.transpose(self._table())
