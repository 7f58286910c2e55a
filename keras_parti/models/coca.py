"""CoCa: how well a picture and a text fit, and a caption of a picture."""

import dataclasses
from typing import Any, Self

import keras
from keras import ops

from keras_parti import layers
from keras_parti.layers.embeddings import BOS, EOS, PAD, token_embedding
from keras_parti.layers.logits import largest
from keras_parti.layers.transformer import layer_norm
from keras_parti.losses import add_log_scale, contrastive_vectors
from keras_parti.models.base import ConfigModel, check_heads, check_positive
from keras_parti.models.parti import causal_mask
from keras_parti.typing import Tensor


@dataclasses.dataclass(frozen=True)
class CoCaConfig:
    """Sizes of a CoCa; the defaults are those of the paper's base model."""

    image_size: int = 288  # pixels, along each side
    patch_size: int = 18  # pixels, along each side
    dim: int = 768  # of both towers, and of the vectors that are compared
    heads: int = 12
    image_layers: int = 12
    image_mlp_dim: int = 3072
    text_mlp_dim: int = 3072
    unimodal_layers: int = 12
    # None: a reranker, which compares and writes no captions.
    multimodal_layers: int | None = 12
    num_queries: int = 256  # vectors of a picture that captions are written from
    text_vocab_size: int = 64_000
    text_length: int = 64  # ids of a text: bos, pieces, eos, padding. Not published
    # Of residuals, activations and attention weights. Not published.
    dropout_rate: float = 0.0

    def __post_init__(self):
        check_positive(self)
        check_heads(self.dim, self.heads, "")
        if self.multimodal_layers is not None and self.multimodal_layers < 1:
            raise ValueError(
                "`multimodal_layers` must be positive, or None for a reranker. "
                f"Received: multimodal_layers={self.multimodal_layers}"
            )
        if self.image_size % self.patch_size:
            raise ValueError(
                f"`image_size` must be a multiple of `patch_size`, {self.patch_size}. "
                f"Received: image_size={self.image_size}"
            )
        if not 0 <= self.dropout_rate < 1:
            raise ValueError(
                "`dropout_rate` must be in [0, 1). "
                f"Received: dropout_rate={self.dropout_rate}"
            )

    @property
    def num_patches(self):
        """Number of patches of an image."""
        return (self.image_size // self.patch_size) ** 2


@keras.saving.register_keras_serializable("keras_parti")
class CoCa(ConfigModel):
    """Compares pictures with texts, and writes captions: a contrastive captioner.

    A ViT sees the picture. A pooler of `num_queries` queries makes of its patches what
    captions are written from, and a second one, of one query, makes of that the
    picture's vector (the cascade). The lower half of the text decoder reads the text
    alone; its output at [CLS], which stands behind the text, is the text's vector. The
    upper half looks at the picture as well and predicts the next token. All blocks are
    pre-norm with GELU, and norms follow both towers and both poolers; the paper does
    not say.

    Parti ranks its samples by `score`, for which `reranker()` is enough.

    Args:
        config: `CoCaConfig`.
        **kwargs: `name`, `dtype` and `trainable` of `keras.Model`.

    Call arguments:
        inputs: dict of `images`, float `(batch, image_size, image_size, 3)`, RGB in
            `[0, 1]`, and `text_ids`, int32 `(batch, text_length)`.

    Returns:
        A dict of `embeddings`, float32 `(batch, 2, dim)`, as
        `keras_parti.losses.contrastive_vectors`; and, unless it is a reranker,
        `tokens`, float32 logits `(batch, text_length - 1, text_vocab_size)`: position i
        holds those of `text_ids[:, i + 1]`.

    Example:
        >>> import numpy as np
        >>> model = CoCa.from_preset("coca_tiny")
        >>> images = np.zeros((1, 12, 12, 3), "float32")
        >>> text_ids = np.array([[2, 7, 5, 3, 0, 0, 0, 0, 0, 0, 0]], "int32")
        >>> tuple(model.reranker().score(images, text_ids).shape)
        (1,)

    References:
        - [Yu et al., 2022](https://arxiv.org/abs/2205.01917), section 3.2, table 1
        - [Yu et al., 2022](https://arxiv.org/abs/2206.10789), section 2.4: reranking
    """

    config_class = CoCaConfig

    def __init__(self, config: CoCaConfig, **kwargs: Any) -> None:
        super().__init__(config, **kwargs)
        dtype, dim = self.dtype_policy, config.dim
        self.patches = layers.PatchEmbedding(
            config.patch_size, dim, dtype=dtype, name="patches"
        )
        grid = 2 * (config.image_size // config.patch_size,)
        self.image_positions = layers.PositionEmbedding(
            config.num_patches, grid, dtype=dtype, name="image_positions"
        )
        self.image_tower = self._blocks(
            layers.EncoderBlock, config.image_layers, config.image_mlp_dim, "image"
        )
        self.image_norm = layer_norm("image_norm", dtype)
        self.generative_pooler, self.contrastive_pooler = (
            layers.AttentionalPooler(
                queries, config.heads, config.dropout_rate, dtype=dtype, name=name
            )
            for queries, name in (
                (config.num_queries, "generative_pooler"),
                (1, "contrastive_pooler"),
            )
        )
        self.generative_norm = layer_norm("generative_norm", dtype)
        self.contrastive_norm = layer_norm("contrastive_norm", dtype)
        # The last row is [CLS].
        self.text_embedding_table = token_embedding(
            config.text_vocab_size + 1, dim, "text", dtype
        )
        self.text_positions = layers.PositionEmbedding(
            config.text_length + 1, dtype=dtype, name="text_positions"
        )
        self.unimodal = self._blocks(
            layers.EncoderBlock, config.unimodal_layers, config.text_mlp_dim, "unimodal"
        )
        self.unimodal_norm = layer_norm("unimodal_norm", dtype)
        self.dropout = keras.layers.Dropout(config.dropout_rate, dtype=dtype)
        self.log_scale = add_log_scale(self)
        image, pooled = (None, config.num_patches, dim), (None, config.num_queries, dim)
        text = (None, config.text_length + 1, dim)
        self.patches.build((None, config.image_size, config.image_size, 3))
        self.text_embedding_table.build()
        for shape, parts in (
            (image, (self.image_positions, *self.image_tower, self.image_norm)),
            (image, (self.generative_pooler,)),
            (pooled, (self.generative_norm, self.contrastive_pooler)),
            ((None, 1, dim), (self.contrastive_norm,)),
            (text, (self.text_positions, *self.unimodal, self.unimodal_norm)),
        ):
            for part in parts:
                part.build(shape)
        if config.multimodal_layers is not None:
            self._build_multimodal(pooled)
        self.built = True

    def _build_multimodal(self, pooled):
        config = self.config
        text = (None, config.text_length - 1, config.dim)
        self.multimodal = self._blocks(
            layers.DecoderBlock,
            config.multimodal_layers,
            config.text_mlp_dim,
            "multimodal",
        )
        self.multimodal_norm = layer_norm("multimodal_norm", "float32")
        self.tokens = layers.LogitsDense(
            config.text_vocab_size, self.compute_dtype, dtype="float32", name="tokens"
        )
        for block in self.multimodal:
            block.build(text, pooled)
        self.multimodal_norm.build(text)
        self.tokens.build(text)

    def _blocks(self, kind, count, mlp_dim, name):
        return [
            kind(
                num_heads=self.config.heads,
                mlp_dim=mlp_dim,
                activation="gelu",
                dropout_rate=self.config.dropout_rate,
                dtype=self.dtype_policy,
                name=f"{name}_{i}",
            )
            for i in range(count)
        ]

    def call(
        self, inputs: dict[str, Tensor], training: bool | None = None
    ) -> dict[str, Tensor]:
        text_ids = inputs["text_ids"]
        pooled = self._see(inputs["images"], training)
        words, text = self._read(text_ids, training)
        image = self._picture_vector(pooled, training)
        outputs = {"embeddings": contrastive_vectors(text, image, self.log_scale)}
        if self.config.multimodal_layers is not None:
            outputs["tokens"] = self._predict(words[:, :-1], pooled, training)
        return outputs

    def image_embedding(self, images: Tensor) -> Tensor:
        """Returns the vectors of pictures, float32 `(batch, dim)`, of length 1.

        Args:
            images: float `(batch, image_size, image_size, 3)`, RGB in `[0, 1]`.

        Raises:
            ValueError: where they are of another size.
        """
        vector = self._picture_vector(self._see(images, False), False)
        return ops.normalize(ops.cast(vector, "float32"), axis=-1)

    def text_embedding(self, text_ids: Tensor) -> Tensor:
        """Returns the vectors of texts, float32 `(batch, dim)`, of length 1.

        Args:
            text_ids: int32 `(batch, text_length)`.

        Raises:
            ValueError: where they are of another length.
        """
        _, vector = self._read(text_ids, False)
        return ops.normalize(ops.cast(vector, "float32"), axis=-1)

    def score(self, images: Tensor, text_ids: Tensor) -> Tensor:
        """Returns how well each picture fits its text: their cosine.

        Args:
            images: float `(batch, image_size, image_size, 3)`, RGB in `[0, 1]`.
            text_ids: int32 `(batch, text_length)`.

        Returns:
            float32 `(batch,)` in `[-1, 1]`.

        Raises:
            ValueError: where sizes are wrong, or there are not as many of the one as
                of the other.
        """
        counts = {images.shape[0], text_ids.shape[0]} - {None}  # None in a graph
        if len(counts) > 1:
            raise ValueError(
                "`images` and `text_ids` must be equally many. "
                f"Received: {images.shape[0]} and {text_ids.shape[0]}"
            )
        pair = self.image_embedding(images), self.text_embedding(text_ids)
        return ops.sum(pair[0] * pair[1], axis=-1)

    def caption(self, images: Tensor) -> Tensor:
        """Writes a caption of each picture, the likeliest token each time.

        Args:
            images: float `(batch, image_size, image_size, 3)`, RGB in `[0, 1]`.

        Returns:
            int32 `(batch, text_length)`: bos, pieces, eos, padding.

        Raises:
            ValueError: where this is a reranker, or images are of another size.
        """
        if self.config.multimodal_layers is None:
            raise ValueError(
                "A reranker writes no captions: `multimodal_layers` must be a number. "
                "Received: multimodal_layers=None"
            )
        pooled = self._see(images, False)
        length, batch = self.config.text_length, ops.shape(images)[0]
        places = ops.arange(length)
        never = ops.one_hot([PAD, BOS], self.config.text_vocab_size)
        never = -1e9 * ops.sum(never, axis=0)

        def write(place, ids):
            words, _ = self._read(ids, False)
            logits = self._predict(words[:, :-1], pooled, False)
            best = largest(ops.take(logits, place - 1, axis=1) + never)
            last = ops.take(ids, place - 1, axis=1)
            best = ops.where(place == length - 1, EOS, best)
            best = ops.where((last == EOS) | (last == PAD), PAD, best)
            return ops.where(places == place, best[:, None], ids)

        ids = ops.where(places == 0, BOS, PAD) + ops.zeros((batch, 1), "int32")
        return ops.fori_loop(1, length, write, ops.cast(ids, "int32"))

    def reranker(self) -> Self:
        """Returns a copy that keeps only what `score` needs.

        It is a `CoCa` without the upper half of the text decoder, and is saved and
        loaded as one.
        """
        config = dataclasses.replace(self.config, multimodal_layers=None)
        copy = CoCa(config, dtype=self.dtype_policy)
        weights = {variable.path: variable for variable in self.weights}
        for variable in copy.weights:
            path = variable.path.replace(copy.name, self.name, 1)
            variable.assign(weights[path])
        return copy

    def _see(self, images, training):
        """Returns what captions look at, float `(batch, num_queries, embed)`."""
        size = self.config.image_size
        if tuple(images.shape[1:]) != (size, size, 3):
            raise ValueError(
                f"`images` must be (batch, {size}, {size}, 3). "
                f"Received: shape {tuple(images.shape)}"
            )
        x = self.image_positions(self.patches(2.0 * images - 1.0))
        x = self.dropout(x, training=training)  # (batch, length, embed)
        for block in self.image_tower:
            x = block(x, training=training)
        x = self.generative_pooler(self.image_norm(x), training=training)
        return self.generative_norm(x)

    def _picture_vector(self, pooled, training):
        x = self.contrastive_pooler(pooled, training=training)
        return self.contrastive_norm(x)[:, 0]

    def _read(self, text_ids, training):
        """Returns the lower half's output for all tokens, and the text's vector."""
        config = self.config
        if text_ids.shape[1] != config.text_length:
            raise ValueError(
                f"`text_ids` must have {config.text_length} columns. "
                f"Received: shape {tuple(text_ids.shape)}"
            )
        batch = ops.shape(text_ids)[0]
        cls = ops.full((batch, 1), config.text_vocab_size, dtype="int32")
        ids = ops.concatenate([ops.cast(text_ids, "int32"), cls], axis=1)
        seen = ops.not_equal(ids, PAD)[:, None, None, :]
        mask = ops.logical_and(causal_mask(config.text_length + 1), seen)
        x = self.text_positions(self.text_embedding_table(ids))
        x = self.dropout(x, training=training)
        for block in self.unimodal:
            x = block(x, attention_mask=mask, training=training)
        return x[:, :-1], self.unimodal_norm(x[:, -1])

    def _predict(self, words, pooled, training):
        """Returns the logits of the token after each word, float32."""
        mask = causal_mask(self.config.text_length - 1)
        for block in self.multimodal:
            words = block(words, pooled, attention_mask=mask, training=training)
        return self.tokens(self.multimodal_norm(ops.cast(words, "float32")))
