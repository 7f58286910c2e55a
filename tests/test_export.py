"""An exported chain gives the pictures of the chain, wherever it runs."""

import base64
import io
import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tensorflow.core.framework import tensor_pb2
from tensorflow_serving.apis import prediction_log_pb2

from keras_parti import sampling
from keras_parti.models import Parti, TextToImage, ViTVQGAN
from keras_parti.serving.client import Client, write_picture
from keras_parti.serving.export import export, fingerprint, publish
from keras_parti.serving.served_chain import JPEG, PNG, ServedChain, read_picture
from keras_parti.serving.server import Server
from keras_parti.text import Vocabulary, train_vocabulary

SAMPLES, KEEP = 7, 3
PROMPTS = ["red fox in google style", "", "Füchse, 狐, 🦊"]
LONG = "pear " * 2000


def make_chain(folder):
    things = [f"{c} {t}" for c in ("red", "green") for t in ("fox", "apple", "pear")]
    styles = [f"{t} in {s} style" for t in things for s in ("google", "twitter")]
    train_vocabulary(styles, folder / "vocabulary.model", 300)
    tokenizer = ViTVQGAN.from_preset("vit_vqgan_tiny")
    parti = Parti.from_preset("parti_tiny")
    random = np.random.default_rng(5)
    for weight in (*tokenizer.weights, *parti.weights):
        if len(weight.shape) > 1:
            # Untrained blocks are identities, and their logits all but equal.
            weight.assign(random.normal(0.0, 0.5, weight.shape))
    length = parti.config.text_length
    vocabulary = Vocabulary.from_file(folder / "vocabulary.model", length)
    return TextToImage(tokenizer, parti, vocabulary)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("export")


@pytest.fixture(scope="module")
def chain(folder):
    return make_chain(folder)


@pytest.fixture(scope="module")
def version(chain, folder):
    return export(chain, folder / "toy", SAMPLES, KEEP, card="Made by a test.")


@pytest.fixture(scope="module")
def server(version):
    with Server(version.parent, port=0) as server:
        yield server


@pytest.fixture(scope="module")
def client(server):
    with Client(server.address, model="toy", best=(SAMPLES, KEEP)) as client:
        yield client


def strings(*values):
    return np.array(values, object)


def columns(prompts, seed=0, **options):
    options = sampling.DEFAULTS | options
    rows = len(prompts)
    return {
        "prompt": strings(*(prompt.encode() for prompt in prompts)),
        "seed": np.full(rows, seed, np.int64),
        "guidance_scale": np.full(rows, options["guidance_scale"], np.float32),
        "temperature": np.full(rows, options["temperature"], np.float32),
        "top_k": np.full(rows, options["top_k"], np.int32),
        "top_p": np.full(rows, options["top_p"], np.float32),
    }


def assert_same(left, right):
    assert left.keys() == right.keys()
    for name in left:
        # The order of a sum may differ between graphs; nothing else does.
        if name == "score":
            np.testing.assert_allclose(left[name], right[name], atol=1e-5)
        else:
            np.testing.assert_array_equal(left[name], right[name], err_msg=name)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"seed": -(1 << 62), "guidance_scale": 3.0},
        {"temperature": 0.0, "seed": 5},
        {"top_k": 3, "top_p": 0.9, "temperature": 2.0},
        {"num_samples": SAMPLES, "keep": KEEP, "seed": 11},
        {"num_samples": 4, "keep": 2, "seed": (1 << 63) - 2},
    ],
)
def test_served_pictures_are_the_local_ones(chain, client, options):
    assert_same(client.generate(PROMPTS, **options), chain.generate(PROMPTS, **options))


def test_seeds_differ_and_rows_do_not_touch_each_other(client):
    drawn = [client.generate(PROMPTS, seed=seed)["ids"] for seed in (3, 4)]
    assert (drawn[0] != drawn[1]).any(axis=-1).all()
    assert len({tuple(row) for ids in drawn for row in ids[:, 0]}) == 2 * len(PROMPTS)
    alone = client.generate(PROMPTS[2:], seed=4)["ids"]
    np.testing.assert_array_equal(alone, drawn[1][2:])


def test_served_choice_is_the_best_of_the_seeds_that_follow(client):
    best = client.predict("generate_best", columns(PROMPTS, seed=21))
    singles = [
        client.predict("generate", columns(PROMPTS, seed=21 + j))
        for j in range(SAMPLES)
    ]
    scores = np.stack([single["score"] for single in singles], axis=1)
    order = np.argsort(-scores, axis=1)[:, :KEEP]
    for row, chosen in enumerate(order):
        ids = [singles[j]["ids"][row] for j in chosen]
        files = [singles[j]["image_bytes"][row] for j in chosen]
        np.testing.assert_array_equal(best["ids"][row], ids)
        assert list(best["image_bytes"][row]) == files


def test_what_a_request_leaves_out_has_its_default(client):
    full = columns(PROMPTS)
    for signature in ("generate", "generate_best", ""):
        bare = client.predict(signature, {"prompt": full["prompt"]})
        assert_same(bare, client.predict(signature, full))
    one = {name: value[:1] for name, value in full.items()} | {"prompt": full["prompt"]}
    assert_same(client.predict("generate", one), client.predict("generate", full))


def test_long_prompts_are_cut_and_reported(chain, client):
    drawn = client.generate([LONG, "red fox"])
    assert drawn["truncated"].tolist() == [True, False]
    assert drawn["num_tokens"][0] > 2000
    assert_same(drawn, chain.generate([LONG, "red fox"]))


def test_every_weight_is_written_once(chain, version):
    written = tf.train.list_variables(str(version / "variables" / "variables"))
    written = [shape for name, shape in written if "OBJECT_GRAPH" not in name]
    weights = (*chain.tokenizer.weights, *chain.parti.weights)
    assert sorted(written) == sorted(list(weight.shape) for weight in weights)


def test_bytes_that_are_no_text_are_answered(client):
    inputs = {"prompt": strings(b"caf\xe9 \xff\xfe\x00", b"\xed\xa0\x80")}
    assert client.predict("generate", inputs)["ids"].shape == (2, 9)


# Without this package: what a stock server has is TensorFlow and tensorflow-text.
ELSEWHERE = """
    import base64, json, sys
    for name in ("keras_parti", "sentencepiece"):
        sys.modules[name] = None
    import tensorflow as tf
    from tensorflow.core.framework import tensor_pb2
    from tensorflow.core.protobuf import saved_model_pb2
    from tensorflow.python.framework import op_def_registry

    folder, inputs, outputs = sys.argv[1:]
    with open(folder + "/saved_model.pb", "rb") as file:
        model = saved_model_pb2.SavedModel.FromString(file.read())
    graph = model.meta_graphs[0].graph_def
    functions = graph.library.function
    nodes = [*graph.node, *(node for f in functions for node in f.node_def)]
    ops = {node.op for node in nodes} - {f.signature.name for f in functions}
    own = {op for op in ops if op_def_registry.get(op) is None}
    import tensorflow_text
    unknown = {op for op in own if op_def_registry.get(op) is None}
    compiled = any(part.attr["_XlaMustCompile"].b for part in [*nodes, *functions])
    found = {"ops": sorted(ops), "own": sorted(own), "unknown": sorted(unknown)}
    found["compiled"] = compiled

    with open(inputs) as file:
        requests = json.load(file)
    for feeds in requests.values():
        for key, value in feeds.items():
            proto = tensor_pb2.TensorProto.FromString(base64.b64decode(value))
            feeds[key] = tf.make_ndarray(proto)

    def pack(values):
        return {
            key: base64.b64encode(tf.make_tensor_proto(v).SerializeToString()).decode()
            for key, v in values.items()
        }

    found["python"], found["session"] = {}, {}
    loaded = tf.saved_model.load(folder)
    for signature, feeds in requests.items():
        tensors = {key: tf.constant(value) for key, value in feeds.items()}
        answers = loaded.signatures[signature](**tensors)
        found["python"][signature] = pack({k: v.numpy() for k, v in answers.items()})
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        meta = tf.compat.v1.saved_model.loader.load(session, ["serve"], folder)
        for signature, feeds in requests.items():
            definition = meta.signature_def[signature]
            feed = {definition.inputs[k].name: v for k, v in feeds.items()}
            fetch = {k: v.name for k, v in definition.outputs.items()}
            found["session"][signature] = pack(session.run(fetch, feed))
    with open(outputs, "w") as file:
        json.dump(found, file)
"""


def packed(array):
    return base64.b64encode(tf.make_tensor_proto(array).SerializeToString()).decode()


def unpacked(text):
    return tf.make_ndarray(tensor_pb2.TensorProto.FromString(base64.b64decode(text)))


@pytest.fixture(scope="module")
def requests(chain):
    pictures = np.random.default_rng(3).integers(0, 256, (2, 12, 12, 3)).astype("uint8")
    return {
        "generate": columns(PROMPTS, seed=13),
        "generate_best": columns(PROMPTS, seed=13, guidance_scale=2.0),
        "encode": {"image_bytes": strings(*map(write_picture, pictures))},
        "decode": {"ids": np.arange(18, dtype=np.int32).reshape(2, 9)},
    }


@pytest.fixture(scope="module")
def elsewhere(version, requests, folder):
    inputs = {
        name: {key: packed(value) for key, value in feeds.items()}
        for name, feeds in requests.items()
    }
    (folder / "inputs").write_text(json.dumps(inputs))
    files = [str(version), str(folder / "inputs"), str(folder / "outputs")]
    # Isolated: neither this folder nor PYTHONPATH is looked into.
    command = [sys.executable, "-I", "-c", textwrap.dedent(ELSEWHERE), *files]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "outputs").read_text())


def test_all_loaders_agree_in_a_process_without_this_package(
    elsewhere, requests, client
):
    for signature, inputs in requests.items():
        served = client.predict(signature, inputs)
        for loader in ("python", "session"):
            found = elsewhere[loader][signature]
            assert_same({k: unpacked(v) for k, v in found.items()}, served)


def test_only_ops_that_a_stock_server_has(elsewhere):
    assert elsewhere["unknown"] == []
    assert not elsewhere["compiled"]
    assert elsewhere["own"] == ["SentencepieceOp", "SentencepieceTokenizeOp"]
    ops = elsewhere["ops"]
    assert not [op for op in ops if op.startswith("Xla") or "PyFunc" in op]
    assert "Assert" in ops  # the walk reached the functions


def test_signatures_are_written_down(server):
    signatures = server._models.versions[1].signatures
    names = {"serving_default", "generate", "generate_best", "encode", "decode"}
    assert names == set(signatures) - {"__saved_model_init_op"}

    def shapes(infos):
        return {
            name: (
                tf.dtypes.as_dtype(info.dtype).name,
                [d.size for d in info.tensor_shape.dim],
            )
            for name, info in infos.items()
        }

    for name in ("serving_default", "generate", "generate_best"):
        assert shapes(signatures[name].inputs) == {
            "prompt": ("string", [-1]),
            "seed": ("int64", [-1]),
            "guidance_scale": ("float32", [-1]),
            "temperature": ("float32", [-1]),
            "top_k": ("int32", [-1]),
            "top_p": ("float32", [-1]),
        }
        assert set(signatures[name].defaults) == set(signatures[name].inputs) - {
            "prompt"
        }
    text = {"prompt_tokens": ("int32", [-1]), "truncated": ("bool", [-1])}
    assert shapes(signatures["generate"].outputs) == text | {
        "image_bytes": ("string", [-1]),
        "ids": ("int32", [-1, 9]),
        "score": ("float32", [-1]),
    }
    assert shapes(signatures["generate_best"].outputs) == text | {
        "image_bytes": ("string", [-1, KEEP]),
        "ids": ("int32", [-1, KEEP, 9]),
        "score": ("float32", [-1, KEEP]),
    }
    assert shapes(signatures["encode"].outputs) == {"ids": ("int32", [-1, 9])}
    assert shapes(signatures["decode"].inputs) == {"ids": ("int32", [-1, 9])}
    assert shapes(signatures["decode"].outputs) == {"image_bytes": ("string", [-1])}


TWO = columns(["a", "b"])
BAD = {
    "guidance": (
        "generate",
        TWO | {"guidance_scale": np.float32([1, 31])},
        "guidance_scale must lie in [0.0, 30.0]. Received: [31]",
    ),
    "nan": (
        "generate_best",
        TWO | {"guidance_scale": np.float32([np.nan, 1])},
        "guidance_scale must lie in [0.0, 30.0]. Received: [nan]",
    ),
    "infinite": (
        "generate",
        TWO | {"temperature": np.float32([np.inf, 1])},
        "temperature must lie in [0.0, 10.0]. Received: [inf]",
    ),
    "cold": (
        "generate",
        TWO | {"temperature": np.float32([-0.5, 1])},
        "temperature must lie in [0.0, 10.0]. Received: [-0.5]",
    ),
    "top_k": (
        "generate",
        TWO | {"top_k": np.int32([-1, -2])},
        "top_k must lie in [0, 2147483647]. Received: [-1 -2]",
    ),
    "top_p": (
        "generate_best",
        TWO | {"top_p": np.float32([1.5, 1])},
        "top_p must lie in [0.0, 1.0]. Received: [1.5]",
    ),
    "length": (
        "generate",
        TWO | {"seed": np.int64([1, 2, 3])},
        "seed must have one value, or one for each prompt. "
        "Received shape, and number of prompts: [3] [2]",
    ),
    "rank": (
        "generate",
        TWO | {"top_p": np.float32([[1, 1]])},
        "top_p must have one value, or one for each prompt. "
        "Received shape, and number of prompts: [1 2] [2]",
    ),
    "scalar": (
        "generate",
        TWO | {"seed": np.int64(3)},
        "seed must have one value, or one for each prompt. "
        "Received shape, and number of prompts: [] [2]",
    ),
    "prompts": (
        "generate",
        TWO | {"prompt": strings(b"a", b"b").reshape(1, 2)},
        "prompt must have shape (batch,). Received rank: [2]",
    ),
    "prompt": (
        "generate_best",
        TWO | {"prompt": np.array(b"a", object)},
        "prompt must have shape (batch,). Received rank: [0]",
    ),
    "ids": (
        "decode",
        {"ids": np.int32([[0] * 8 + [23]])},
        "ids must lie in [0, 22]. Received, among others: [0] [23]",
    ),
    "negative": (
        "decode",
        {"ids": np.int32([[0] * 8 + [-1]])},
        "ids must lie in [0, 22]. Received, among others: [-1] [0]",
    ),
    "short": (
        "decode",
        {"ids": np.zeros((9, 2), np.int32)},
        "ids must have shape (batch, 9). Received shape: [9 2]",
    ),
    "flat": (
        "decode",
        {"ids": np.zeros(9, np.int32)},
        "ids must have shape (batch, 9). Received shape: [9]",
    ),
    "deep": (
        "decode",
        {"ids": np.zeros((1, 3, 3), np.int32)},
        "ids must have shape (batch, 9). Received shape: [1 3 3]",
    ),
    "no picture": (
        "encode",
        {"image_bytes": strings(b"GIF89a")},
        "image_bytes must hold PNG or JPEG files. Received one of bytes: [6]",
    ),
    "empty file": (
        "encode",
        {"image_bytes": strings(b"")},
        "image_bytes must hold PNG or JPEG files. Received one of bytes: [0]",
    ),
    "head alone": (
        "encode",
        {"image_bytes": strings(PNG)},
        "image_bytes must hold pictures of 1 to 16777216 pixels. "
        "Received one with the sides: [0 0]",
    ),
    "bomb": (
        "encode",
        {
            "image_bytes": strings(
                write_picture(np.zeros((2, 2, 3), np.uint8)).replace(
                    b"\0\0\0\2\0\0\0\2", b"\0\0\x40\0\0\0\x40\0"
                )
            )
        },
        "image_bytes must hold pictures of 1 to 16777216 pixels. "
        "Received one with the sides: [16384 16384]",
    ),
    "torn PNG": (
        "encode",
        {"image_bytes": strings(write_picture(np.zeros((12, 12, 3), np.uint8))[:45])},
        "Invalid PNG",
    ),
    "torn JPEG": (
        "encode",
        {"image_bytes": strings(JPEG + b"123")},
        "Invalid JPEG data, size 6",
    ),
    "files": (
        "encode",
        {"image_bytes": np.array(b"", object)},
        "image_bytes must have shape (batch,). Received rank: [0]",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_in_the_graph_with_what_is_allowed(client, case):
    signature, inputs, words = BAD[case]
    with pytest.raises(ValueError, match=re.escape(words)) as error:
        client.predict(signature, inputs)
    assert "assertion failed" not in str(error.value)
    assert client.predict("decode", {"ids": np.zeros((1, 9), np.int32)})


def test_no_rows_give_no_rows(client):
    none = np.array([], object)
    for signature in ("generate", "generate_best"):
        outputs = client.predict(signature, {"prompt": none})
        assert {len(value) for value in outputs.values()} == {0}
    assert client.predict("encode", {"image_bytes": none})["ids"].shape == (0, 9)
    empty = {"ids": np.zeros((0, 9), np.int32)}
    assert client.predict("decode", empty)["image_bytes"].shape == (0,)


def picture(height, width, channels=3):
    values = np.sin(np.arange(height * width * channels) * 0.37) * 127 + 128
    return values.astype(np.uint8).reshape(height, width, channels)


def test_encode_and_decode_are_the_tokenizers(chain, client):
    images = np.stack([picture(12, 12), 255 - picture(12, 12)])
    ids = np.asarray(chain.tokenizer.encode(images / np.float32(255)))
    np.testing.assert_array_equal(client.encode(images), ids)
    np.testing.assert_array_equal(client.decode(ids), chain.decode(ids))


def file_of(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def test_transparent_pixels_are_white(chain):
    pixels = picture(12, 12, 4)
    read = read_picture(file_of(Image.fromarray(pixels)), 12).numpy()
    colour, alpha = pixels[..., :3] / 255, pixels[..., 3:] / 255
    np.testing.assert_allclose(read, colour * alpha + 1 - alpha, atol=1e-6)


@pytest.mark.parametrize("mode", ["L", "P", "1", "LA", "RGB", "RGBA"])
def test_every_kind_of_png_is_read(mode):
    image = Image.fromarray(picture(12, 12)).convert(mode)
    read = read_picture(file_of(image), 12).numpy()
    expected = np.asarray(image.convert("RGB")) / 255
    np.testing.assert_allclose(read, expected, atol=1e-6)


def test_sixteen_bits_are_read_as_eight():
    grey = picture(12, 12)[:, :, 0]
    content = file_of(Image.fromarray(grey.astype(np.uint16) * 257))
    read = read_picture(content, 12).numpy()
    np.testing.assert_allclose(read, np.stack([grey] * 3, axis=-1) / 255, atol=1e-6)


def test_transparent_palette_entry_is_white():
    image = Image.fromarray(np.arange(144, dtype=np.uint8).reshape(12, 12) % 5)
    image = image.convert("P", palette=Image.Palette.WEB)
    read = read_picture(file_of(image, transparency=0), 12).numpy()
    seen = (read == 1).all(axis=-1)
    np.testing.assert_array_equal(seen, np.asarray(image) == 0)


@pytest.mark.parametrize("size", [(37, 19), (5, 5), (12, 13)])
def test_other_sizes_are_resized_and_smoothed(size):
    image = picture(*size)
    read = read_picture(write_picture(image), 12).numpy()
    expected = tf.image.resize(image / np.float32(255), [12, 12], antialias=True)
    np.testing.assert_allclose(read, np.clip(expected, 0, 1), atol=1e-6)
    flat = read_picture(write_picture(np.full_like(image, 51)), 12)
    np.testing.assert_allclose(flat, 0.2, atol=1e-6)


def test_jpeg_is_read():
    content = file_of(Image.fromarray(picture(12, 12)), "JPEG", quality=95)
    expected = np.asarray(Image.open(io.BytesIO(content)))
    read = read_picture(content, 12).numpy() * 255
    np.testing.assert_allclose(read, expected, atol=1.01)


def test_version_numbers_go_up_and_nothing_else_is_left(
    chain, version, tmp_path, monkeypatch
):
    def fake_save(module, path, signatures):
        shutil.copytree(version, path, ignore=shutil.ignore_patterns("assets.extra"))

    monkeypatch.setattr(tf.saved_model, "save", fake_save)
    for name in ("9", "notes", "11.tmp"):
        (tmp_path / name).mkdir()
    assert export(chain, tmp_path).name == "10"
    assert export(chain, tmp_path).name == "11"
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["10", "11", "11.tmp", "9", "notes"]


def test_number_taken_meanwhile_is_passed_over(tmp_path, monkeypatch):
    (tmp_path / ".writing").mkdir()
    rename = os.rename

    def slow_rename(source, target):
        monkeypatch.setattr(os, "rename", rename)
        (Path(target) / "of_another").mkdir(parents=True)
        rename(source, target)

    monkeypatch.setattr(os, "rename", slow_rename)
    assert publish(tmp_path / ".writing", tmp_path).name == "2"


def test_failed_export_leaves_nothing(chain, tmp_path, monkeypatch):
    def disk_full(module, path, signatures):
        Path(path, "variables").mkdir(parents=True)
        raise tf.errors.ResourceExhaustedError(None, None, "No space left on device")

    monkeypatch.setattr(tf.saved_model, "save", disk_full)
    with pytest.raises(OSError, match="cannot be written: No space left on device"):
        export(chain, tmp_path / "toy")
    assert list((tmp_path / "toy").iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        export(chain, tmp_path / "file")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_samples": 3, "keep": 4}, "1 ≤ keep ≤ num_samples.*keep=4"),
        ({"dtype": "int8"}, "dtype must be one of float32, bfloat16. Received: int8"),
    ],
)
def test_arguments_are_checked_before_work(chain, tmp_path, options, words):
    with pytest.raises(ValueError, match=words):
        export(chain, tmp_path / "toy", **options)
    assert not (tmp_path / "toy").exists()


def test_other_backends_are_refused(chain, tmp_path, monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(ValueError, match=r"KERAS_BACKEND=tensorflow\. Received: jax"):
        export(chain, tmp_path / "toy")


def test_warm_up_asks_each_signature_once(version, server):
    path = version / "assets.extra" / "tf_serving_warmup_requests"
    asked = []
    for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
        request = prediction_log_pb2.PredictionLog.FromString(
            record
        ).predict_log.request
        assert request.model_spec.name == "toy"
        asked.append(request.model_spec.signature_name)
    assert asked == ["generate", "generate_best", "encode", "decode"]
    warmed = {name for name, _ in server._models.versions[1]._runs}
    assert set(asked) <= warmed


def test_card_says_what_is_served(chain, version):
    card = (version / "card.md").read_text()
    mark = (version / "fingerprint").read_text().strip()
    assert card.startswith("# toy\n\nMade by a test.\n")
    assert f"the {KEEP} best of {SAMPLES} pictures" in card
    assert "12×12" in card
    assert "stored as float32" in card
    assert mark in card
    assert mark == fingerprint(ServedChain(chain, 2, 1, "float32"), chain.vocabulary)
    assert mark != fingerprint(ServedChain(chain, 2, 1, "bfloat16"), chain.vocabulary)


def test_half_the_bytes_give_the_pictures_of_rounded_weights(chain, folder, version):
    """Stored as bfloat16, computed in float32."""
    small = export(chain, folder / "small", 2, 1, dtype="bfloat16")
    sizes = [
        (v / "variables" / "variables.data-00000-of-00001").stat().st_size
        for v in (small, version)
    ]
    weights = (*chain.tokenizer.weights, *chain.parti.weights)
    assert sizes[1] - sizes[0] == 2 * sum(w.value.numpy().size for w in weights)
    chain.save(folder / "parts")
    rounded = TextToImage.load(folder / "parts")
    for weight in (*rounded.tokenizer.weights, *rounded.parti.weights):
        weight.assign(tf.cast(tf.cast(weight.value, tf.bfloat16), tf.float32))
    local = rounded.generate(PROMPTS, seed=17)
    inputs = {k: tf.constant(v) for k, v in columns(PROMPTS, seed=17).items()}
    loaded = tf.saved_model.load(str(small))
    outputs = loaded.signatures["generate"](**inputs)
    np.testing.assert_array_equal(outputs["ids"], local["ids"][:, 0])
    assert (local["score"] != chain.generate(PROMPTS, seed=17)["score"]).all()
