"""The layers all models are made of. Written in `keras.ops` only."""

from keras_parti.layers.attention import MultiHeadAttention
from keras_parti.layers.discriminator import (
    DiscriminatorBlock,
    EqualizedConv,
    EqualizedDense,
    MinibatchDeviation,
)
from keras_parti.layers.embeddings import (
    ConditionDropout,
    ImageMixing,
    PatchEmbedding,
    PositionEmbedding,
    TanhHead,
)
from keras_parti.layers.grid import GridPositionEmbedding
from keras_parti.layers.logits import LogitsDense
from keras_parti.layers.pooling import AttentionalPooler
from keras_parti.layers.quantizer import VectorQuantizer
from keras_parti.layers.resampling import PixelShuffle, WeightNormalizedConv
from keras_parti.layers.transformer import DecoderBlock, EncoderBlock, FeedForward
from keras_parti.layers.window_attention import WindowAttention

__all__ = [
    "AttentionalPooler",
    "ConditionDropout",
    "DecoderBlock",
    "DiscriminatorBlock",
    "EncoderBlock",
    "EqualizedConv",
    "EqualizedDense",
    "FeedForward",
    "GridPositionEmbedding",
    "ImageMixing",
    "LogitsDense",
    "MinibatchDeviation",
    "MultiHeadAttention",
    "PatchEmbedding",
    "PixelShuffle",
    "PositionEmbedding",
    "TanhHead",
    "VectorQuantizer",
    "WeightNormalizedConv",
    "WindowAttention",
]
