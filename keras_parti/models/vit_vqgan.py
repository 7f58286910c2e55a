"""ViT-VQGAN: images to a grid of codebook ids, and back."""

import dataclasses
import hashlib
from typing import Any

import keras
from keras import ops

from keras_parti import layers
from keras_parti.layers.embeddings import from_patches, to_patches
from keras_parti.layers.transformer import LAYER_NORM_EPSILON, layer_norm
from keras_parti.models.base import (
    ConfigModel,
    check_heads,
    check_ids,
    check_positive,
)
from keras_parti.typing import Tensor

OUTPUTS = ("logit_laplace", "rgb")
HEADS = ("tanh", "linear")
POSITIONS = ("normal", "sine_cosine")


@dataclasses.dataclass(frozen=True)
class ViTVQGANConfig:
    """Sizes of a ViT-VQGAN; the defaults are those of the paper's small towers."""

    image_size: int = 256  # pixels, along each side
    patch_size: int = 8  # pixels, along each side
    num_codes: int = 8192
    code_dim: int = 32
    commitment_cost: float = 0.25  # β, the weight of the commitment term
    # False: plain codes, as in the ablation of table 4.
    normalized_codes: bool = True
    encoder_layers: int = 8
    encoder_dim: int = 512
    encoder_heads: int = 8
    encoder_mlp_dim: int = 2048
    decoder_layers: int = 8
    decoder_dim: int = 512
    decoder_heads: int = 8
    decoder_mlp_dim: int = 2048
    # "logit_laplace": the decoder gives the mean and the log scale of a
    # logit-Laplace distribution. "rgb": it gives RGB, as in Parti, appendix H.
    output: str = "logit_laplace"
    laplace_epsilon: float = 0.1  # ε of DALL-E's map of pixels into (0, 1)
    # What others' weights need; the defaults are ours. Activation and norm of the
    # blocks are not published: those of the ViT that the paper cites.
    activation: str = "gelu"  # inside blocks, by its name in Keras
    norm_epsilon: float = LAYER_NORM_EPSILON
    # Behind each tower: "tanh", Dense–tanh–Dense as in section 3.1, or "linear", Dense.
    head: str = "tanh"
    # What the learned positions of both towers start from: "normal", random vectors of
    # deviation 0.02, or "sine_cosine", those of row and column. Not published.
    positions: str = "normal"

    def __post_init__(self):
        check_positive(self)
        check_heads(self.encoder_dim, self.encoder_heads, "encoder_")
        check_heads(self.decoder_dim, self.decoder_heads, "decoder_")
        if self.image_size % self.patch_size:
            raise ValueError(
                f"`image_size` must be a multiple of `patch_size`, {self.patch_size}. "
                f"Received: image_size={self.image_size}"
            )
        if self.output not in OUTPUTS:
            raise ValueError(
                f"`output` is one of {', '.join(OUTPUTS)}. "
                f"Received: output={self.output!r}"
            )
        if self.head not in HEADS:
            raise ValueError(
                f"`head` is one of {', '.join(HEADS)}. Received: head={self.head!r}"
            )
        if self.positions not in POSITIONS:
            raise ValueError(
                f"`positions` is one of {', '.join(POSITIONS)}. "
                f"Received: positions={self.positions!r}"
            )
        for field in ("encoder_dim", "decoder_dim"):
            if self.positions == "sine_cosine" and getattr(self, field) % 4:
                raise ValueError(
                    f"`{field}` must be a multiple of 4 where positions start as "
                    "sines and cosines of row and column. "
                    f"Received: {field}={getattr(self, field)}"
                )
        if not 0 < self.laplace_epsilon < 0.5:
            raise ValueError(
                "`laplace_epsilon` must be in (0, 0.5). "
                f"Received: laplace_epsilon={self.laplace_epsilon}"
            )

    @property
    def grid_size(self):
        """Number of tokens along each side of the image."""
        return self.image_size // self.patch_size

    @property
    def num_tokens(self):
        """Number of tokens of an image."""
        return self.grid_size**2


class _Tower(keras.layers.Layer):
    """A stack of encoder blocks with positions before it and a head behind."""

    def __init__(self, embedding, output_dim, config, side, **kwargs):
        super().__init__(name=side, **kwargs)
        dtype = self.dtype_policy
        fields = ("heads", "mlp_dim", "layers")
        heads, mlp_dim, num_layers = (getattr(config, f"{side}_{f}") for f in fields)
        epsilon = config.norm_epsilon
        self.embedding = embedding
        grid = (config.grid_size, config.grid_size)
        self.positions = layers.PositionEmbedding(
            config.num_tokens,
            grid if config.positions == "sine_cosine" else None,
            dtype=dtype,
            name="positions",
        )
        self.blocks = [
            layers.EncoderBlock(
                heads,
                mlp_dim,
                activation=config.activation,
                norm_epsilon=epsilon,
                dtype=dtype,
                name=f"block_{i}",
            )
            for i in range(num_layers)
        ]
        self.norm = layer_norm("norm", dtype, epsilon)
        if config.head == "tanh":
            self.head = layers.TanhHead(mlp_dim, output_dim, dtype=dtype, name="head")
        else:
            self.head = keras.layers.Dense(output_dim, dtype=dtype, name="head")

    def build(self, input_shape):
        self.embedding.build(input_shape)
        shape = self.embedding.compute_output_shape(input_shape)
        for layer in (self.positions, *self.blocks, self.norm, self.head):
            layer.build(shape)

    def call(self, inputs, training=None):
        return self.head(self.before_head(inputs, training))

    def before_head(self, inputs, training=None):
        """Returns what the head takes, float `(batch, length, embed)`."""
        x = self.positions(self.embedding(inputs))
        for block in self.blocks:
            x = block(x, training=training)
        return self.norm(x)

    def without_blocks(self, inputs):
        """Returns what the tower gives where every block is the identity."""
        return self.head(self.norm(self.positions(self.embedding(inputs))))

    @property
    def last(self):
        """The last dense layer."""
        return getattr(self.head, "outputs", self.head)

    def features(self, inputs):
        """Returns what the last dense layer takes."""
        x = self.before_head(inputs)
        return x if self.last is self.head else self.head.hidden(x)


@keras.saving.register_keras_serializable("keras_parti")
class ViTVQGAN(ConfigModel):
    """Turns images into ids of a codebook, and ids into images.

    Each tower is patches or codes → learned positions → pre-norm Transformer →
    final norm → Dense–tanh–Dense. The encoder's last dense layer is the linear
    projection to the code width (factorised codes). The quantizer adds its loss to
    `losses`; the losses of the pictures are given to `compile`.

    Args:
        config: `ViTVQGANConfig`.
        **kwargs: `name`, `dtype` and `trainable` of `keras.Model`.

    Call arguments:
        images: float `(batch, image_size, image_size, 3)`, RGB in `[0, 1]`.

    Returns:
        A dict of `images`, float32 of the inputs' shape, near `[0, 1]` and not
        clipped; and, where `config.output` is "logit_laplace", `laplace`, float32
        `(batch, image_size, image_size, 6)`: the means of the logits, then ln b.

    Example:
        >>> import numpy as np
        >>> model = ViTVQGAN.from_preset("vit_vqgan_tiny")
        >>> ids = model.encode(np.zeros((1, 12, 12, 3), "float32"))
        >>> tuple(ids.shape)
        (1, 9)
        >>> tuple(model.decode(ids).shape)
        (1, 12, 12, 3)

    References:
        - [Yu et al., 2022](https://arxiv.org/abs/2110.04627), section 3
    """

    config_class = ViTVQGANConfig

    def __init__(self, config: ViTVQGANConfig, **kwargs: Any) -> None:
        super().__init__(config, **kwargs)
        dtype = self.dtype_policy
        self.encoder = _Tower(
            layers.PatchEmbedding(
                config.patch_size, config.encoder_dim, dtype=dtype, name="patches"
            ),
            config.code_dim,
            config,
            "encoder",
            dtype=dtype,
        )
        self.quantizer = layers.VectorQuantizer(
            config.num_codes,
            config.code_dim,
            config.commitment_cost,
            config.normalized_codes,
            dtype=dtype,
            name="quantizer",
        )
        channels = 6 if config.output == "logit_laplace" else 3
        self.decoder = _Tower(
            keras.layers.Dense(config.decoder_dim, dtype=dtype, name="codes"),
            channels * config.patch_size**2,
            config,
            "decoder",
            dtype=dtype,
        )
        codes_shape = (None, config.num_tokens, config.code_dim)
        self.encoder.build((None, config.image_size, config.image_size, 3))
        self.quantizer.build(codes_shape)
        self.decoder.build(codes_shape)
        self.built = True

    def call(self, images: Tensor, training: bool | None = None) -> Tensor:
        codes = self.quantizer(self.vectors(images, training))["codes"]
        return self.pictures(self.decoder(codes, training=training))

    def vectors(self, images: Tensor, training: bool | None = None) -> Tensor:
        """Returns what the quantizer is given, float `(batch, num_tokens, code_dim)`.

        Args:
            images: float `(batch, image_size, image_size, 3)`, RGB in `[0, 1]`.
            training: bool or None.
        """
        return self.encoder(self.centre(images), training=training)

    def centre(self, images: Tensor) -> Tensor:
        """Checks images and maps `[0, 1]` to `[-1, 1]`, as a ViT's inputs are."""
        size = self.config.image_size
        dtype = keras.backend.standardize_dtype(images.dtype)
        if tuple(images.shape[1:]) != (size, size, 3) or "float" not in dtype:
            raise ValueError(
                f"`images` must be float (batch, {size}, {size}, 3) in [0, 1]. "
                f"Received: {dtype} of shape {tuple(images.shape)}"
            )
        return 2.0 * images - 1.0

    def encode(self, images: Tensor) -> Tensor:
        """Returns the ids of images, int32 `(batch, num_tokens)`, in raster order.

        Args:
            images: float `(batch, image_size, image_size, 3)`, RGB in `[0, 1]`.
        """
        return self.quantizer.nearest(self.vectors(images, training=False))

    def decode(self, ids: Tensor) -> Tensor:
        """Returns the images of ids, float32, RGB clipped to `[0, 1]`.

        Args:
            ids: int32 `(batch, num_tokens)`, each in `[0, num_codes)`. Inside a graph
                the range is the caller's to keep: a compiled gather clamps silently.

        Raises:
            ValueError: where there are too few or many ids, or one is out of range.
        """
        if ids.shape[-1] != self.config.num_tokens:
            raise ValueError(
                f"`ids` must have {self.config.num_tokens} columns, one a token. "
                f"Received: shape {tuple(ids.shape)}"
            )
        check_ids(ids, self.config.num_codes)
        patches = self.decoder(self.quantizer.lookup(ids), training=False)
        return ops.clip(self.pictures(patches)["images"], 0.0, 1.0)

    def reconstruct(self, images: Tensor) -> Tensor:
        """Returns `decode(encode(images))`."""
        return self.decode(self.encode(images))

    def fingerprint(self) -> str:
        """Returns a hex digest, 16 digits, of all that decides the ids of a picture.

        That is the encoder and the codebook: a model whose decoder alone was trained
        further has the same ids and the same fingerprint, so that its token caches,
        and the models trained on them, stay valid.
        """
        # Fields at their defaults are left out, so that a new one changes nothing, and
        # `positions`, which says what weights were before training.
        decisive = {
            field.name: getattr(self.config, field.name)
            for field in dataclasses.fields(self.config)
            if getattr(self.config, field.name) != field.default
            and not field.name.startswith("decoder_")
            and field.name
            not in ("output", "laplace_epsilon", "commitment_cost", "positions")
        }
        digest = hashlib.sha256(repr(decisive).encode())
        for weight in (*self.encoder.weights, *self.quantizer.weights):
            # Shapes too: of two layers of other widths the bytes could be the same.
            digest.update(repr(tuple(weight.shape)).encode())
            digest.update(ops.convert_to_numpy(weight).tobytes())
        return digest.hexdigest()[:16]

    def check_fits(self, model: keras.Model, name: str) -> None:
        """Raises `ValueError` where a model of ids has not learned those of this one.

        Args:
            model: `Parti` or `VIM`.
            name: str. What the message calls it.
        """
        for field in ("num_codes", "num_tokens"):
            ours, theirs = (getattr(m.config, field) for m in (self, model))
            if ours != theirs:
                raise ValueError(
                    f"`{field}` of `{name}` must be {ours}, as that of the tokenizer. "
                    f"Received: {field}={theirs}"
                )
        # Ids of another codebook are in range, and give noise.
        learned = model.config.tokenizer
        if learned is not None and learned != (own := self.fingerprint()):
            raise ValueError(
                f"`{name}` has learned ids of tokenizer {learned}. "
                f"Received: tokenizer {own}, which has others for the same picture"
            )

    def pictures(self, patches: Tensor) -> Tensor:
        """Returns the pictures of the decoder's patches, as `call` does.

        Args:
            patches: float `(batch, num_tokens, 6 or 3 · patch_size²)`.
        """
        config = self.config
        x = from_patches(patches, config.patch_size, config.grid_size)
        x = ops.cast(x, "float32")  # (batch, height, width, 3 or 6)
        if config.output == "rgb":
            return {"images": x}
        # DALL-E's φ⁻¹, appendix A.3: the mean of the logits back to pixels.
        epsilon = config.laplace_epsilon
        images = (ops.sigmoid(x[..., :3]) - epsilon) / (1 - 2 * epsilon)
        return {"images": images, "laplace": x}

    def patches(self, images: Tensor) -> Tensor:
        """Returns the patches whose `pictures` are these, with 0 for every ln b.

        Args:
            images: float `(batch, image_size, image_size, 3)`, RGB in `[0, 1]`.
        """
        config = self.config
        x = ops.cast(images, "float32")
        if config.output == "logit_laplace":
            y = (1 - 2 * config.laplace_epsilon) * x + config.laplace_epsilon
            means = ops.log(y) - ops.log1p(-y)
            x = ops.concatenate([means, ops.zeros_like(means)], axis=-1)
        return to_patches(x, config.patch_size)
