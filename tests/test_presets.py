"""The tables of sizes: exact counts, closed forms, and what the papers print."""

import pytest

from keras_parti import models, presets

ROWS = [(model, name) for model, table in presets.TABLES.items() for name in table]

# Table 2 of ViT-VQGAN: layers, width and the millions of parameters it prints.
TABLE_2 = [
    (8, 512, 32),
    (12, 768, 91),
    (32, 1280, 599),
    (24, 1536, 650),
    (36, 2048, 1697),
]

# Table 1 of Parti: encoder layers, decoder layers, width, parameters it prints.
TABLE_1 = {
    "parti_350m": (12, 12, 1024, 350e6),
    "parti_750m": (12, 36, 1024, 750e6),
    "parti_3b": (12, 36, 2048, 3e9),
    "parti_20b": (16, 64, 4096, 20e9),
}


@pytest.mark.parametrize(("model", "name"), ROWS, ids=[name for _, name in ROWS])
def test_a_preset_has_the_stated_number_of_parameters(model, name):
    tf = pytest.importorskip("tensorflow")
    with tf.Graph().as_default():  # Shapes only: nothing is allocated, even at 20B.
        built = getattr(models, model).from_preset(name)
        assert built.count_params() == presets.TABLES[model][name].params


def encoder_block(dim, mlp):
    """Four projections, two dense layers, two norms, all with biases."""
    return 4 * (dim * dim + dim) + 2 * dim * mlp + mlp + dim + 2 * 2 * dim


def tower(layers, dim, mlp, inputs, length, outputs):
    """Input projection, positions, blocks, final norm, tanh head."""
    head = dim * mlp + mlp + mlp * outputs + outputs
    blocks = layers * encoder_block(dim, mlp)
    return inputs * dim + dim + length * dim + blocks + 2 * dim + head


@pytest.mark.parametrize("name", presets.VIT_VQGAN)
def test_a_tokenizer_counts_as_its_closed_form(name):
    c = models.ViTVQGAN.preset_config(name)
    pixels = 3 * c.patch_size**2
    outputs = pixels * (2 if c.output == "logit_laplace" else 1)
    encoder = tower(
        c.encoder_layers,
        c.encoder_dim,
        c.encoder_mlp_dim,
        pixels,
        c.num_tokens,
        c.code_dim,
    )
    decoder = tower(
        c.decoder_layers,
        c.decoder_dim,
        c.decoder_mlp_dim,
        c.code_dim,
        c.num_tokens,
        outputs,
    )
    total = encoder + decoder + c.num_codes * c.code_dim
    assert presets.VIT_VQGAN[name].params == total


def parti_blocks(encoder_layers, decoder_layers, dim):
    """Attention 4d², cross-attention 4d², feed-forward 8d²; no biases, no norms."""
    return encoder_layers * 12 * dim**2 + decoder_layers * 16 * dim**2


@pytest.mark.parametrize("name", presets.PARTI)
def test_a_parti_counts_as_its_closed_form(name):
    c = models.Parti.preset_config(name)
    decoder_block = encoder_block(c.dim, c.mlp_dim) + 4 * (c.dim**2 + c.dim) + 2 * c.dim
    total = (
        c.encoder_layers * encoder_block(c.dim, c.mlp_dim)
        + c.decoder_layers * decoder_block
        + 2 * 2 * c.dim  # final norms
        + (c.text_vocab_size + c.text_length) * c.dim
        + (c.num_codes + 1 + c.num_tokens) * c.dim
        + c.dim * c.num_codes
        + c.num_codes
    )
    # The state of two random generators: dropouts of texts hold a seed each.
    assert presets.PARTI[name].params - total in range(0, 200)


@pytest.mark.parametrize("name", TABLE_1)
def test_parti_without_embeddings_is_within_2_percent_of_table_1(name):
    encoder_layers, decoder_layers, dim, printed = TABLE_1[name]
    c = models.Parti.preset_config(name)
    assert (c.encoder_layers, c.decoder_layers, c.dim) == TABLE_1[name][:3]
    assert c.mlp_dim == 4 * dim
    assert c.dim // c.heads == 64
    blocks = parti_blocks(encoder_layers, decoder_layers, dim)
    assert blocks == pytest.approx(printed, rel=0.0201)


@pytest.mark.parametrize(("layers", "dim", "printed"), TABLE_2)
def test_table_2_prints_the_formula_of_a_language_model(layers, dim, printed):
    formula = 11 * layers * dim**2 + 2 * 8192 * dim + 1024 * dim
    assert round(formula / 1e6) == printed


def test_an_unknown_preset_names_the_known_ones():
    with pytest.raises(ValueError, match=r"No preset 'parti_2b'.*parti_350m"):
        models.Parti.from_preset("parti_2b")
