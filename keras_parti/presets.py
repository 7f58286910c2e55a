"""Every named model size, on one page.

Data only: this module imports nothing of ours and builds nothing. `params` is
the exact number of parameters of our model, checked by that model's test.
"""

from typing import NamedTuple


class Preset(NamedTuple):
    """One row of a table of model sizes."""

    params: int  # exact number of parameters
    source: str  # where the sizes come from
    config: dict  # arguments of the model's config class


def _towers(encoder, decoder):
    """Spells out the two towers of a ViT-VQGAN from (layers, dim, heads, mlp)."""
    fields = ("layers", "dim", "heads", "mlp_dim")
    return {
        f"{side}_{field}": size
        for side, tower in (("encoder", encoder), ("decoder", decoder))
        for field, size in zip(fields, tower, strict=True)
    }


# One tower each: (layers, dim, heads, mlp_dim).
_SMALL = (8, 512, 8, 2048)
_BASE = (12, 768, 12, 3072)
_LARGE = (32, 1280, 16, 5120)

_VIT_VQGAN_TABLE = "ViT-VQGAN, arXiv:2110.04627, table 2"
_PARTI_TABLE = "Parti, arXiv:2206.10789, table 1"

# The counts that table 2 prints (32M, 91M, 599M a tower) follow the formula
# 11·L·d² + 2·8192·d + 1024·d of a language model and are no tower's real count.
# fmt: off
VIT_VQGAN = {
    #                                   params       source                                     config
    "vit_vqgan_tiny":        Preset(     10_568, "this library, for tests",                  {"image_size": 12, "patch_size": 4, "num_codes": 23, "code_dim": 5, **_towers((1, 16, 2, 24), (2, 16, 2, 24))}),
    "vit_vqgan_digits":      Preset(    258_232, "this library, for 24×24 pictures",         {"image_size": 24, "patch_size": 4, "num_codes": 256, "code_dim": 8, "output": "rgb", **_towers((2, 64, 4, 256), (2, 64, 4, 256))}),
    "vit_vqgan_emoji":       Preset(  1_440_312, "this library, for 64×64 pictures",         {"image_size": 64, "patch_size": 4, "num_codes": 2048, "code_dim": 8, "output": "rgb", **_towers((2, 128, 4, 512), (4, 128, 4, 512))}),
    "vit_vqgan_photographs": Preset(  3_444_756, "this library, for 64×64 photographs",      {"image_size": 64, "patch_size": 2, "code_dim": 8, "positions": "sine_cosine", "output": "rgb", **_towers((2, 192, 4, 768), (4, 192, 4, 768))}),
    "vit_vqgan_small":       Preset( 54_820_256, f"{_VIT_VQGAN_TABLE}, small + small",       _towers(_SMALL, _SMALL)),
    "vit_vqgan_base":        Preset(178_123_680, f"{_VIT_VQGAN_TABLE}, base + base",         _towers(_BASE, _BASE)),
    "vit_vqgan_small_large": Preset(666_780_320, f"{_VIT_VQGAN_TABLE}, small + large",       _towers(_SMALL, _LARGE)),
    "vit_vqgan_large":       Preset(1_277_781_920, f"{_VIT_VQGAN_TABLE}, large + large",     _towers(_LARGE, _LARGE)),
}

PARTI = {
    #                          params            source                                      config
    "parti_tiny":     Preset(        14_079, "this library, for tests",                   {"encoder_layers": 1, "decoder_layers": 2, "dim": 16, "heads": 2, "mlp_dim": 24, "text_vocab_size": 300, "text_length": 11, "num_codes": 23, "num_tokens": 9, "attention_kernel": None}),
    "parti_emoji":    Preset(    7_430_912, "this library, for 64×64 pictures",          {"encoder_layers": 2, "decoder_layers": 4, "dim": 256, "heads": 4, "mlp_dim": 1024, "dropout_rate": 0.0, "image_mixing_rate": 0.5, "text_vocab_size": 2000, "text_length": 32, "num_codes": 2048, "num_tokens": 256, "attention_kernel": None}),
    "parti_350m":     Preset(   387_068_928, f"{_PARTI_TABLE}, 350M",                     {"encoder_layers": 12, "decoder_layers": 12, "dim": 1024, "heads": 16, "mlp_dim": 4096, "attention_kernel": 11}),
    "parti_750m":     Preset(   790_189_056, f"{_PARTI_TABLE}, 750M",                     {"encoder_layers": 12, "decoder_layers": 36, "dim": 1024, "heads": 16, "mlp_dim": 4096, "attention_kernel": 11}),
    "parti_3b":       Preset( 3_090_319_360, f"{_PARTI_TABLE}, 3B",                       {"encoder_layers": 12, "decoder_layers": 36, "dim": 2048, "heads": 32, "mlp_dim": 8192, "attention_kernel": 11}),
    "parti_20b":      Preset(20_544_319_488, f"{_PARTI_TABLE}, 20B",                      {"encoder_layers": 16, "decoder_layers": 64, "dim": 4096, "heads": 64, "mlp_dim": 16384, "attention_kernel": 11}),
}

# Pictures of no class; `num_classes=1000` makes one of ImageNet's.
VIM = {
    #                          params            source                                      config
    "vim_tiny":       Preset(        6_863, "this library, for tests",                   {"layers": 3, "dim": 16, "heads": 2, "mlp_dim": 24, "num_codes": 23, "num_tokens": 9, "num_classes": 5}),
    "vim_digits":     Preset(    1_653_888, "this library, for 24×24 pictures",          {"layers": 8, "dim": 128, "heads": 4, "mlp_dim": 512, "num_codes": 256, "num_tokens": 36}),
    "vim_emoji":      Preset(    5_798_144, "this library, for 64×64 pictures",          {"layers": 6, "dim": 256, "heads": 4, "mlp_dim": 1024, "num_codes": 2048, "num_tokens": 256}),
    "vim_base":       Preset(  705_233_408, f"{_VIT_VQGAN_TABLE}, VIM base",             {"layers": 24, "dim": 1536, "heads": 16, "mlp_dim": 6144}),
    "vim_large":      Preset(1_846_597_632, f"{_VIT_VQGAN_TABLE}, VIM large",            {"layers": 36, "dim": 2048, "heads": 32, "mlp_dim": 8192}),
}

_COCA_TABLE = "CoCa, arXiv:2205.01917, table 1"
COCA = {
    #                          params            source                                      config
    "coca_tiny":      Preset(    20_205, "this library, for tests",                   {"image_size": 12, "patch_size": 4, "dim": 16, "heads": 2, "image_layers": 1, "image_mlp_dim": 24, "text_mlp_dim": 20, "unimodal_layers": 1, "multimodal_layers": 1, "num_queries": 5, "text_vocab_size": 300, "text_length": 11}),
    "coca_emoji":     Preset( 2_141_009, "this library, for 64×64 pictures",          {"image_size": 64, "patch_size": 8, "dim": 128, "heads": 4, "image_layers": 4, "image_mlp_dim": 512, "text_mlp_dim": 512, "unimodal_layers": 2, "multimodal_layers": 1, "num_queries": 16, "text_vocab_size": 2000, "text_length": 32}),
    "coca_base":      Preset(387_822_593, f"{_COCA_TABLE}, base: 383M",               {}),
    "coca_large":     Preset(796_156_417, f"{_COCA_TABLE}, large: 787M",              {"dim": 1024, "heads": 16, "image_layers": 24, "image_mlp_dim": 4096, "text_mlp_dim": 4096}),
    "coca_2b":        Preset(2_208_338_177, f"{_COCA_TABLE}, CoCa: 2.1B",               {"dim": 1408, "heads": 16, "image_layers": 40, "image_mlp_dim": 6144, "text_mlp_dim": 5632, "unimodal_layers": 18, "multimodal_layers": 18}),
}

_STYLEGAN2 = "StyleGAN2, arXiv:1912.04958, appendix B"
DISCRIMINATOR = {
    #                             params             source                                      config
    "discriminator_tiny":      Preset(    11_609, "this library, for tests",           {"image_size": 12, "channel_base": 96, "max_channels": 16, "group_size": 2}),
    "discriminator_emoji":     Preset( 1_183_137, "this library, for 64×64 pictures",  {"image_size": 64, "channel_base": 2048, "max_channels": 128}),
    "discriminator_256_half":  Preset(24_001_089, f"{_STYLEGAN2}, half as wide from 64 on; MaskGIT's", {"channel_base": 16384}),
    "discriminator_256":       Preset(28_864_129, f"{_STYLEGAN2}, large networks",      {}),
}

_WDSR = "WDSR, arXiv:1808.08718, as published for"
_PARTI_WDSR = "Parti, arXiv:2206.10789, section 2.1"
WDSR = {
    #                          params            source                                      config
    "wdsr_tiny":        Preset(     7_311, "this library, for tests",                   {"scale": 2, "num_blocks": 2, "filters": 7, "expansion": 3}),
    "wdsr_emoji":       Preset(   114_692, "this library, for 64×64 pictures on CPUs",  {"scale": 2, "num_blocks": 6, "filters": 16}),
    "wdsr_photographs": Preset(  254_508, "this library, for photographs on CPUs",     {"scale": 2, "num_blocks": 6, "filters": 24}),
    "wdsr_a_x2":        Preset( 1_190_100, f"{_WDSR} ×2",                               {"scale": 2}),
    "wdsr_a_x3":        Preset( 1_195_605, f"{_WDSR} ×3",                               {"scale": 3}),
    "wdsr_a_x4":        Preset( 1_203_312, f"{_WDSR} ×4",                               {"scale": 4}),
    "wdsr_b_x4":        Preset(   615_088, f"{_WDSR} ×4, blocks B",                     {"scale": 4, "block": "b", "num_blocks": 32, "expansion": 6}),
    "wdsr_a_large_x2":  Preset(37_808_180, f"{_WDSR} ×2, large",                        {"scale": 2, "num_blocks": 32, "filters": 128}),
    "wdsr_a_large_x4":  Preset(37_852_496, f"{_WDSR} ×4, large",                        {"scale": 4, "num_blocks": 32, "filters": 128}),
    # The paper's "about 15M" and "about 30M"; see `WDSR` for what it does not say.
    "wdsr_parti_x2":    Preset(14_770_082, f"{_PARTI_WDSR}, to 512×512",                {"scale": 2, "num_blocks": 12, "filters": 128, "staged": True}),
    "wdsr_parti_x4":    Preset(29_534_838, f"{_PARTI_WDSR}, to 1024×1024",              {"scale": 4, "num_blocks": 12, "filters": 128, "staged": True}),
}
# fmt: on

TABLES = {
    "ViTVQGAN": VIT_VQGAN,
    "Parti": PARTI,
    "VIM": VIM,
    "CoCa": COCA,
    "Discriminator": DISCRIMINATOR,
    "WDSR": WDSR,
}
