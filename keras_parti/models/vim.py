"""VIM: image ids one after the other, of any picture or of a class."""

import dataclasses
import itertools
import math
from collections.abc import Iterator
from typing import Any

import keras
from keras import ops

from keras_parti import layers
from keras_parti.layers.embeddings import token_embedding
from keras_parti.layers.transformer import layer_norm
from keras_parti.models.base import ConfigModel, check_heads, check_positive
from keras_parti.models.parti import causal_mask
from keras_parti.typing import Tensor


@dataclasses.dataclass(frozen=True)
class VIMConfig:
    """Sizes of a VIM; the defaults are those of the paper's base model."""

    layers: int = 24
    dim: int = 1536
    heads: int = 16
    mlp_dim: int = 6144
    num_codes: int = 8192
    num_tokens: int = 1024  # ids of a picture, of as many rows as columns
    num_classes: int | None = None  # None: pictures have no classes
    dropout_rate: float = 0.1  # of residuals, activations and attention weights
    # Share of training pictures whose class is hidden, so that classes can be guided.
    # The paper hides none, and guides nothing.
    class_dropout_rate: float = 0.0
    tokenizer: str | None = None  # as in `PartiConfig`

    def __post_init__(self):
        check_positive(self)
        check_heads(self.dim, self.heads, "")
        if math.isqrt(self.num_tokens) ** 2 != self.num_tokens:
            raise ValueError(
                "`num_tokens` must be a square: as many rows as columns. "
                f"Received: num_tokens={self.num_tokens}"
            )
        classes = self.num_classes
        if classes is not None and (not isinstance(classes, int) or classes < 1):
            raise ValueError(
                "`num_classes` must be a positive integer, or None for no classes. "
                f"Received: num_classes={classes!r}"
            )
        for name in ("dropout_rate", "class_dropout_rate"):
            rate = getattr(self, name)
            if not 0 <= rate < 1:
                raise ValueError(f"`{name}` must be in [0, 1). Received: {name}={rate}")

    @property
    def no_class(self):
        """The label of a picture of no class, the one after those of the classes."""
        return self.num_classes or 0

    @property
    def middle_block(self):
        """The block that tells most: 10 of 24, 15 of 36 in table 7, and in proportion.

        The paper's counting, from 0 or from 1, is not published; here it is from 0.
        """
        return self.layers * 5 // 12


@keras.saving.register_keras_serializable("keras_parti")
class VIM(ConfigModel):
    """Predicts the ids of a picture one after the other, with a decoder-only stack.

    A token stands before the ids, of the picture's class or of no class, with an
    embedding table of its own. The ids' embeddings carry learned 2-D positions; the
    stack of pre-norm blocks is causal over the whole sequence and ends with a norm;
    embeddings and softmax are not tied. The blocks' activation is not published: ReLU,
    as in Parti. Nor is what an unconditional model begins with: here the token of no
    class.

    Args:
        config: `VIMConfig`.
        **kwargs: `name`, `dtype` and `trainable` of `keras.Model`.

    Call arguments:
        inputs: dict of `image_ids`, int32 `(batch, num_tokens)`, and, where the
            model has classes, `labels`, int32 `(batch,)` in `[0, num_classes]`, of
            which the last is no class.

    Returns:
        float32 `(batch, num_tokens, num_codes)`: position i holds the logits of
        `image_ids[:, i]`, computed from the class and the ids before i.

    Example:
        >>> import numpy as np
        >>> model = VIM.from_preset("vim_tiny")
        >>> ids = np.zeros((1, 9), "int32")
        >>> tuple(model({"image_ids": ids, "labels": np.array([2])}).shape)
        (1, 9, 23)
        >>> tuple(model.features(ids).shape)
        (1, 16)

    References:
        - [Yu et al., 2022](https://arxiv.org/abs/2110.04627), section 4, eq. 2
    """

    config_class = VIMConfig

    def __init__(self, config: VIMConfig, **kwargs: Any) -> None:
        super().__init__(config, **kwargs)
        dtype, dim = self.dtype_policy, config.dim
        side = math.isqrt(config.num_tokens)
        self.seed_generator = keras.random.SeedGenerator()
        self.class_embedding = token_embedding(config.no_class + 1, dim, "class", dtype)
        self.image_embedding = token_embedding(config.num_codes, dim, "image", dtype)
        self.positions = layers.GridPositionEmbedding(
            side, side, dtype=dtype, name="positions"
        )
        self.dropout = keras.layers.Dropout(config.dropout_rate, dtype=dtype)
        self.blocks = [
            layers.EncoderBlock(
                config.heads,
                config.mlp_dim,
                dropout_rate=config.dropout_rate,
                dtype=dtype,
                name=f"block_{i}",
            )
            for i in range(config.layers)
        ]
        # In float32 as Parti's; the paper trains all of VIM so.
        self.norm = layer_norm("norm", "float32")
        self.logits = layers.LogitsDense(
            config.num_codes, self.compute_dtype, dtype="float32", name="logits"
        )
        self.class_embedding.build()
        self.image_embedding.build()
        for layer in (self.positions, *self.blocks, self.norm, self.logits):
            layer.build((None, config.num_tokens, dim))
        self.built = True

    def call(self, inputs: dict[str, Tensor], training: bool | None = None) -> Tensor:
        labels, ids = self._labels(inputs), self._ids(inputs["image_ids"])
        rate = self.config.class_dropout_rate
        if training and rate:
            draws = keras.random.uniform(ops.shape(labels), seed=self.seed_generator)
            labels = ops.where(draws < rate, self.config.no_class, labels)
        # The last id is what the last position predicts: nothing looks at it.
        *_, x = self._outputs(labels, ids[:, :-1], training)
        return self.predict_logits(x)

    def features(self, ids: Tensor, block: int | None = None) -> Tensor:
        """Returns the features of pictures that a linear classifier is given.

        Args:
            ids: int32 `(batch, num_tokens)`.
            block: int in `[0, layers)`, or None for `config.middle_block`.

        Returns:
            float32 `(batch, dim)`: the mean over the ids' positions of the block's
            output, the token of no class before them. A model trained with classes
            alone has not learned that token.

        Raises:
            ValueError: where there is no such block.

        References:
            - [Yu et al., 2022](https://arxiv.org/abs/2110.04627), section 4.2
        """
        block = self.config.middle_block if block is None else block
        if not 0 <= block < self.config.layers:
            raise ValueError(
                f"`block` must be in [0, {self.config.layers}). Received: block={block}"
            )
        return next(itertools.islice(self.features_by_block(ids), block, None))

    def features_by_block(self, ids: Tensor) -> Iterator[Tensor]:
        """Yields `features` of block 0, 1, ..., computing no block before it is asked.

        Args:
            ids: int32 `(batch, num_tokens)`.
        """
        ids = self._ids(ids)
        for x in self._outputs(self._no_class(ids), ids, training=False):
            yield ops.mean(ops.cast(x[:, 1:], "float32"), axis=1)

    def decoder_parts(self) -> dict[str, Any]:
        """Returns what `keras_parti.decoding` computes a position from."""
        # The id before a position stands one place before it; the class has no place.
        places = self.positions.vectors()[:-1]
        start = ops.zeros((1, self.config.dim), places.dtype)
        return {
            "blocks": self.blocks,
            "norm": self.norm,
            "logits": self.logits,
            "embeddings": ops.convert_to_tensor(self.image_embedding.embeddings),
            "positions": ops.concatenate([start, places]),
        }

    def condition(self, ids: Tensor) -> dict[str, Any]:
        """Returns what pictures begin with, for `keras_parti.decoding`.

        Args:
            ids: int32 `(groups, 1)`, labels in `[0, no_class]`.
        """
        begin = self.class_embedding(ids[:, 0])
        return {"begin": begin, "memory": None, "mask": None}

    def no_condition(self) -> Tensor:
        """Returns the label of no class, int32 `(1, 1)`."""
        return ops.full((1, 1), self.config.no_class, dtype="int32")

    def predict_logits(self, x: Tensor) -> Tensor:
        """Returns float32 logits `(batch, length, num_codes)` of the last block."""
        return self.logits(self.norm(ops.cast(x, "float32")))

    def _outputs(self, labels, ids, training):
        """Yields each block's output, `(batch, 1 + length, embed)`."""
        first = self.class_embedding(labels[:, None])
        x = self.positions(self.image_embedding(ids))
        x = self.dropout(ops.concatenate([first, x], axis=1), training=training)
        mask = causal_mask(1 + ids.shape[1])
        for block in self.blocks:
            x = block(x, attention_mask=mask, training=training)
            yield x

    def _ids(self, ids):
        if ids.shape[1] != self.config.num_tokens:
            raise ValueError(
                f"`image_ids` must have {self.config.num_tokens} columns. "
                f"Received: shape {tuple(ids.shape)}"
            )
        return ops.cast(ids, "int32")

    def _labels(self, inputs):
        if self.config.num_classes is None:
            return self._no_class(inputs["image_ids"])
        if "labels" not in inputs:
            raise ValueError(
                "A VIM with classes takes `labels` and `image_ids`. "
                f"Received: {', '.join(inputs)}"
            )
        return ops.cast(inputs["labels"], "int32")

    def _no_class(self, ids):
        return ops.full((ops.shape(ids)[0],), self.config.no_class, dtype="int32")
