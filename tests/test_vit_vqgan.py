"""ViT-VQGAN: what it computes, and that it survives saving and training."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_parti.layers import PositionEmbedding, VectorQuantizer
from keras_parti.layers.embeddings import from_patches, to_patches
from keras_parti.layers.grid import sine_cosine
from keras_parti.models import Parti, ViTVQGAN, ViTVQGANConfig


def wave(shape):
    return (np.sin(np.arange(np.prod(shape))).reshape(shape) + 1).astype("float32") / 2


def tiny(**overrides):
    return ViTVQGAN.from_preset("vit_vqgan_tiny", **overrides)


def test_patches_are_cut_in_raster_order():
    images = np.arange(2 * 6 * 9 * 2, dtype="float32").reshape(2, 6, 9, 2)
    patches = ops.convert_to_numpy(to_patches(images, 3))
    assert patches.shape == (2, 6, 18)
    for row in range(2):
        for column in range(3):
            block = images[
                :, 3 * row : 3 * row + 3, 3 * column : 3 * column + 3
            ].reshape(2, 18)
            np.testing.assert_array_equal(patches[:, 3 * row + column], block)
    again = ops.convert_to_numpy(from_patches(patches, 3, 2))
    np.testing.assert_array_equal(again, images)


@pytest.mark.parametrize(("size", "patch"), [(8, 4), (20, 4), (18, 6), (14, 7)])
def test_any_image_size_that_is_a_multiple_of_the_patch(size, patch):
    model = tiny(image_size=size, patch_size=patch)
    grid, images = size // patch, wave((2, size, size, 3))
    ids = model.encode(images)
    assert ids.shape == (2, grid**2)
    assert model.decode(ids).shape == images.shape
    assert model(images)["laplace"].shape == (2, size, size, 6)
    # Positions of both towers, and what the first and the last layer know of a patch.
    changed = 2 * 16 * (grid**2 - 9) + (3 * 16 + 6 * (24 + 1)) * (patch**2 - 16)
    assert model.count_params() == tiny().count_params() + changed


def test_the_decoder_sees_nothing_but_the_ids():
    model, images = tiny(), wave((2, 12, 12, 3))
    ids = model.encode(images)
    expected = np.clip(ops.convert_to_numpy(model(images)["images"]), 0, 1)
    np.testing.assert_allclose(model.decode(ids), expected, atol=1e-5)
    np.testing.assert_array_equal(model.reconstruct(images), model.decode(ids))


def test_images_are_the_inverse_map_of_the_mean():
    """DALL-E, appendix A.3: x = (sigmoid(μ) − ε) / (1 − 2ε)."""
    model = tiny(laplace_epsilon=0.2)
    outputs = {
        k: ops.convert_to_numpy(v) for k, v in model(wave((1, 12, 12, 3))).items()
    }
    mean = outputs["laplace"][..., :3]
    expected = (1 / (1 + np.exp(-mean)) - 0.2) / (1 - 2 * 0.2)
    np.testing.assert_allclose(outputs["images"], expected, atol=1e-5)
    assert outputs["laplace"].shape == (1, 12, 12, 6)


def test_rgb_output_has_no_distribution():
    outputs = tiny(output="rgb")(wave((1, 12, 12, 3)))
    assert set(outputs) == {"images"}
    assert outputs["images"].shape == (1, 12, 12, 3)


def test_one_batch_can_be_learned():
    model, images = tiny(output="rgb"), wave((3, 12, 12, 3))
    model.compile("adam", loss={"images": "mse"})
    model.optimizer.learning_rate = 1e-2
    first = model.evaluate(images, {"images": images}, verbose=0)
    model.fit(images, {"images": images}, epochs=60, verbose=0)
    last = model.evaluate(images, {"images": images}, verbose=0)
    first, last = np.ravel(first)[0], np.ravel(last)[0]
    assert last < 0.5 * first


def test_a_folder_holds_the_whole_model(tmp_path):
    model, images = tiny(), wave((2, 12, 12, 3))
    model.save_dir(tmp_path / "model")
    again = ViTVQGAN.load_dir(tmp_path / "model")
    assert again.config == model.config
    assert again.fingerprint() == model.fingerprint()
    np.testing.assert_array_equal(again.encode(images), model.encode(images))


def test_a_keras_file_holds_the_whole_model(tmp_path):
    model, images = tiny(), wave((2, 12, 12, 3))
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert again.config == model.config
    np.testing.assert_array_equal(again(images)["images"], model(images)["images"])


def test_another_weight_is_another_fingerprint():
    model = tiny()
    before = model.fingerprint()
    model.quantizer.codebook.assign_add(np.ones(model.quantizer.codebook.shape))
    assert model.fingerprint() != before


def test_places_start_from_the_sines_and_cosines_of_their_row_and_column():
    """MAE, appendix A.1, for each place by itself."""
    found = sine_cosine(3, 5, 8)
    assert found.shape == (15, 8)
    for place, vector in enumerate(found):
        angles = [
            [place // 5, place // 5 / 100],  # frequencies 10000^0 and 10000^(-1/2)
            [place % 5, place % 5 / 100],
        ]
        expected = [[np.sin(angle), np.cos(angle)] for angle in angles]
        np.testing.assert_allclose(vector, np.ravel(expected), atol=1e-6)


def test_the_places_most_alike_are_the_neighbours():
    rows, columns = 5, 7
    layer = PositionEmbedding(rows * columns, grid=(rows, columns))
    layer.build((None, rows * columns, 32))
    vectors = ops.convert_to_numpy(layer.positions)
    alike = vectors @ vectors.T
    where = np.stack(np.divmod(np.arange(rows * columns), columns))
    steps = np.abs(where[:, :, None] - where[:, None]).sum(0)
    for place in range(rows * columns):
        assert alike[place][steps[place] == 1].min() > (
            alike[place][steps[place] > 1].max()
        )


def test_both_towers_start_from_the_grid_and_go_on_learning():
    model, images = tiny(positions="sine_cosine", output="rgb"), wave((2, 12, 12, 3))
    assert model.count_params() == tiny(output="rgb").count_params()
    towers = (model.encoder, model.decoder)
    for tower in towers:
        np.testing.assert_array_equal(tower.positions.positions, sine_cosine(3, 3, 16))
    model.compile("sgd", loss={"images": "mse"})
    model.fit(images, {"images": images}, verbose=0)
    for tower in towers:
        moved = ops.convert_to_numpy(tower.positions.positions) - sine_cosine(3, 3, 16)
        assert np.abs(moved).max(axis=1).min() > 0
    again = ViTVQGAN.from_config(model.get_config())
    assert again.config.positions == "sine_cosine"


def test_what_positions_started_from_is_not_in_the_fingerprint():
    model, other = tiny(), tiny(positions="sine_cosine")
    assert model.fingerprint() != other.fingerprint()
    other.set_weights(model.get_weights())
    assert model.fingerprint() == other.fingerprint()


def test_a_grid_of_other_places_or_width_is_refused():
    with pytest.raises(ValueError, match=r"`grid` must have 6 places.*\(2, 4\)"):
        PositionEmbedding(6, grid=(2, 4))
    with pytest.raises(ValueError, match=r"a width that is a multiple of 4.*: 6"):
        PositionEmbedding(6, grid=(2, 3)).build((None, 6, 6))


def test_mixed_bfloat16_gives_nearly_the_same_pictures():
    full = tiny(output="rgb")
    mixed = tiny(dtype="mixed_bfloat16", output="rgb")
    mixed.set_weights(full.get_weights())
    ids = np.arange(9, dtype="int32")[None] * 2
    expected = ops.convert_to_numpy(full.decode(ids))
    np.testing.assert_allclose(mixed.decode(ids), expected, atol=3e-2)
    assert {w.dtype for w in mixed.trainable_variables} == {"float32"}


def test_a_codebook_is_ranked_in_float32_under_mixed_precision():
    """4099 codes around one direction: bfloat16 cannot tell them apart."""
    rng = np.random.default_rng(0)
    codes = 1.0 + 0.05 * rng.normal(size=(4099, 5)).astype("float32")
    layer = VectorQuantizer(4099, 5, dtype="mixed_bfloat16")
    layer.build((None, 4099, 5))
    layer.codebook.assign(codes)
    ids = ops.convert_to_numpy(layer.nearest(codes[None]))[0]
    assert (ids == np.arange(4099)).mean() > 0.99


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"image_size": 13}, "`image_size` must be a multiple of `patch_size`, 4"),
        ({"encoder_heads": 3}, "`encoder_heads` must divide `encoder_dim`, 16"),
        ({"num_codes": 0}, "`num_codes` must be a positive integer"),
        ({"decoder_layers": 1.5}, "`decoder_layers` must be a positive integer"),
        ({"output": "laplace"}, "`output` is one of logit_laplace, rgb"),
        ({"laplace_epsilon": 0.5}, "`laplace_epsilon` must be in"),
        ({"positions": "grid"}, "`positions` is one of normal, sine_cosine"),
        (
            {"positions": "sine_cosine", "encoder_dim": 18},
            "`encoder_dim` must be a multiple of 4",
        ),
    ],
)
def test_impossible_configs_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        ViTVQGAN.preset_config("vit_vqgan_tiny", **fields)


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match=r"must be float \(batch, 12, 12, 3\)"):
        tiny().encode(wave((1, 16, 16, 3)))
    with pytest.raises(ValueError, match=r"in \[0, 1\]. Received: uint8 of shape"):
        tiny().encode(np.zeros((1, 12, 12, 3), "uint8"))
    with pytest.raises(ValueError, match="`ids` must have 9 columns"):
        tiny().decode(np.zeros((1, 8), "int32"))


@pytest.mark.parametrize(("worst", "received"), [(23, "0 to 23"), (-1, "-1 to 22")])
def test_ids_out_of_range_are_refused(worst, received):
    ids = np.array([[0, 5, 22, worst, 1, 2, 3, 4, 6]], "int32")
    message = (
        rf"`ids` must be in \[0, 23\). Received: {min(worst, 0)} to {max(worst, 22)}"
    )
    with pytest.raises(ValueError, match=message):
        tiny().decode(ids)
    with pytest.raises(ValueError, match=message):
        tiny().decode(ops.convert_to_tensor(ids))


def test_a_config_of_another_model_is_refused():
    with pytest.raises(TypeError, match="Parti takes a PartiConfig"):
        Parti(ViTVQGANConfig())


def test_half_a_folder_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"Missing: .*nowhere"):
        ViTVQGAN.load_dir(tmp_path / "nowhere")
    tiny().save_dir(tmp_path)
    with pytest.raises(ValueError, match="it describes a ViTVQGAN"):
        Parti.load_dir(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match="does not describe a ViTVQGAN"):
        ViTVQGAN.load_dir(tmp_path)
    (tmp_path / "model.weights.h5").unlink()
    with pytest.raises(FileNotFoundError, match=r"model\.weights\.h5"):
        ViTVQGAN.load_dir(tmp_path)
