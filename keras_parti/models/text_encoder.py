"""Parti's text encoder on its own, to be trained before Parti is."""

import dataclasses
from typing import Any

import keras
from keras import ops

from keras_parti import layers
from keras_parti.layers.embeddings import PAD, token_embedding
from keras_parti.layers.transformer import layer_norm
from keras_parti.losses import add_log_scale, contrastive_vectors
from keras_parti.models.base import ConfigModel, check_heads, check_positive
from keras_parti.models.parti import Parti
from keras_parti.typing import Tensor

# What a Parti and its text encoder must have in common.
SHARED_FIELDS = (
    "encoder_layers",
    "dim",
    "heads",
    "mlp_dim",
    "text_vocab_size",
    "text_length",
)


@dataclasses.dataclass(frozen=True)
class TextEncoderConfig:
    """Sizes of a text encoder and of what helps to train it; defaults as Parti's."""

    encoder_layers: int = 12
    dim: int = 1024
    heads: int = 16
    mlp_dim: int = 4096
    text_vocab_size: int = 16_000
    text_length: int = 128
    num_codes: int = 8192
    num_tokens: int = 1024
    dropout_rate: float = 0.1
    # Blocks of the image tower, which is thrown away, and width of the vectors that
    # texts and pictures are compared by. Not published.
    image_layers: int = 2
    embedding_dim: int = 512
    tokenizer: str | None = None  # as in `PartiConfig`
    vocabulary: str | None = None  # as in `PartiConfig`

    def __post_init__(self):
        check_positive(self)
        check_heads(self.dim, self.heads, "")
        if not 0 <= self.dropout_rate < 1:
            raise ValueError(
                "`dropout_rate` must be in [0, 1). "
                f"Received: dropout_rate={self.dropout_rate}"
            )


@keras.saving.register_keras_serializable("keras_parti")
class TextEncoder(ConfigModel):
    """Tells hidden pieces of a text, and which picture of a batch belongs to it.

    Parti's text encoder may be trained before Parti by BERT's objective and by a
    contrastive one, whose image tower is then thrown away (section 2.3). The paper
    reads the text corpus C4 for the first and image-text pairs for the second; here
    one pass over captions serves both, so that pretraining reads the token cache
    that Parti is trained on. The image tower reads image ids too, not pixels. A text
    is compared by the encoder's output at bos, a picture by the mean over its ids.
    The towers' sizes and the heads are not published.

    Args:
        config: `TextEncoderConfig`.
        **kwargs: `name`, `dtype` and `trainable` of `keras.Model`.

    Call arguments:
        inputs: dict of `text_ids`, int32 `(batch, text_length)`, some of them hidden,
            and `image_ids`, int32 `(batch, num_tokens)`.

    Returns:
        A dict of `tokens`, float32 logits `(batch, text_length, text_vocab_size)`, and
        `embeddings`, float32 `(batch, 2, embedding_dim)`: the text's vector, of the
        length of the inverse temperature, and the picture's, of length 1.

    References:
        - [Yu et al., 2022](https://arxiv.org/abs/2206.10789), section 2.3
        - [Devlin et al., 2018](https://arxiv.org/abs/1810.04805), section 3.1
    """

    config_class = TextEncoderConfig

    def __init__(self, config: TextEncoderConfig, **kwargs: Any) -> None:
        super().__init__(config, **kwargs)
        dtype, dim = self.dtype_policy, config.dim
        # The names of the encoder's parts are Parti's.
        self.text_embedding = token_embedding(
            config.text_vocab_size, dim, "text", dtype
        )
        self.text_positions = layers.PositionEmbedding(
            config.text_length, dtype=dtype, name="text_positions"
        )
        self.encoder = self._blocks(config.encoder_layers, "encoder")
        self.encoder_norm = layer_norm("encoder_norm", "float32")
        self.dropout = keras.layers.Dropout(config.dropout_rate, dtype=dtype)
        self.tokens = layers.LogitsDense(
            config.text_vocab_size, self.compute_dtype, dtype="float32", name="tokens"
        )
        self.image_embedding = token_embedding(config.num_codes, dim, "image", dtype)
        self.image_positions = layers.PositionEmbedding(
            config.num_tokens, dtype=dtype, name="image_positions"
        )
        self.image_tower = self._blocks(config.image_layers, "image_tower")
        self.image_norm = layer_norm("image_norm", dtype)
        self.text_projection, self.image_projection = (
            keras.layers.Dense(
                config.embedding_dim, use_bias=False, dtype=dtype, name=name
            )
            for name in ("text_projection", "image_projection")
        )
        self.log_scale = add_log_scale(self)
        text, image = (None, config.text_length, dim), (None, config.num_tokens, dim)
        self.text_embedding.build()
        self.image_embedding.build()
        for layer in (*_parts(self)[1:], self.tokens):
            layer.build(text)
        for layer in (self.image_positions, *self.image_tower, self.image_norm):
            layer.build(image)
        self.text_projection.build((None, dim))
        self.image_projection.build((None, dim))
        self.built = True

    @classmethod
    def preset_config(cls, name: str, **overrides: Any) -> TextEncoderConfig:
        """Returns the config of the text encoder of a preset of `Parti`."""
        parti = Parti.preset_config(name)
        names = (*SHARED_FIELDS, "num_codes", "num_tokens", "dropout_rate")
        return cls.config_class(**{n: getattr(parti, n) for n in names} | overrides)

    def call(
        self, inputs: dict[str, Tensor], training: bool | None = None
    ) -> dict[str, Tensor]:
        memory = self.encode(inputs["text_ids"], training=training)
        x = self.image_positions(self.image_embedding(inputs["image_ids"]))
        x = self.dropout(x, training=training)  # (batch, length, embed)
        for block in self.image_tower:
            x = block(x, training=training)
        image = self.image_projection(ops.mean(self.image_norm(x), axis=1))
        text = self.text_projection(memory[:, 0])
        return {
            "tokens": self.tokens(memory),
            "embeddings": contrastive_vectors(text, image, self.log_scale),
        }

    def encode(self, text_ids: Tensor, training: bool | None = None) -> Tensor:
        """Returns the encoder's output, float32 `(batch, text_length, embed)`."""
        mask = ops.not_equal(text_ids, PAD)[:, None, None, :]
        x = self.text_positions(self.text_embedding(text_ids))
        x = self.dropout(x, training=training)
        for block in self.encoder:
            x = block(x, attention_mask=mask, training=training)
        return self.encoder_norm(ops.cast(x, "float32"))

    def give_encoder(self, parti: Parti) -> None:
        """Copies the weights of the encoder into a Parti, which notes its vocabulary.

        Args:
            parti: `Parti` of the same encoder and vocabulary. One that has learned no
                ids yet can then learn those of this vocabulary alone.

        Raises:
            ValueError: a field of the configs that both have differs.
        """
        for name in SHARED_FIELDS:
            ours, theirs = getattr(self.config, name), getattr(parti.config, name)
            if ours != theirs:
                raise ValueError(
                    f"A text encoder of {name}={ours} does not fit a Parti. "
                    f"Received: one of {name}={theirs}"
                )
        # Pieces of another vocabulary of that size are in range, and mean others.
        ours, theirs = self.config.vocabulary, parti.config.vocabulary
        if None not in (ours, theirs) and ours != theirs:
            raise ValueError(
                f"A text encoder of vocabulary {ours} does not fit a Parti. "
                f"Received: one of vocabulary {theirs}"
            )
        parti.config = dataclasses.replace(parti.config, vocabulary=ours or theirs)
        for own, other in zip(_parts(self), _parts(parti), strict=True):
            other.set_weights(own.get_weights())

    def _blocks(self, count, name):
        config = self.config
        return [
            layers.EncoderBlock(
                num_heads=config.heads,
                mlp_dim=config.mlp_dim,
                dropout_rate=config.dropout_rate,
                dtype=self.dtype_policy,
                name=f"{name}_{i}",
            )
            for i in range(count)
        ]


def _parts(model):
    return [
        model.text_embedding,
        model.text_positions,
        *model.encoder,
        model.encoder_norm,
    ]
