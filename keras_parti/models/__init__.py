"""The models. Written in `keras.ops` only."""

from keras_parti.models.base import ConfigModel
from keras_parti.models.class_to_image import ClassToImage
from keras_parti.models.coca import CoCa, CoCaConfig
from keras_parti.models.discriminator import Discriminator, DiscriminatorConfig
from keras_parti.models.enhancing_transformers import from_enhancing_transformers
from keras_parti.models.parti import Parti, PartiConfig
from keras_parti.models.perceptual import Perceptual, load_perceptual
from keras_parti.models.text_encoder import TextEncoder, TextEncoderConfig
from keras_parti.models.text_to_image import TextToImage
from keras_parti.models.tiling import upscale_bands, upscale_tiled
from keras_parti.models.vim import VIM, VIMConfig
from keras_parti.models.vit_vqgan import ViTVQGAN, ViTVQGANConfig
from keras_parti.models.wdsr import WDSR, WDSRConfig

__all__ = [
    "VIM",
    "WDSR",
    "ClassToImage",
    "CoCa",
    "CoCaConfig",
    "ConfigModel",
    "Discriminator",
    "DiscriminatorConfig",
    "Parti",
    "PartiConfig",
    "Perceptual",
    "TextEncoder",
    "TextEncoderConfig",
    "TextToImage",
    "VIMConfig",
    "ViTVQGAN",
    "ViTVQGANConfig",
    "WDSRConfig",
    "from_enhancing_transformers",
    "load_perceptual",
    "upscale_bands",
    "upscale_tiled",
]
