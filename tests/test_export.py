"""Versions appear whole or not at all, and say what they are."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_chain import KEEP, PROMPTS, SAMPLES, columns
from tensorflow_serving.apis import prediction_log_pb2

from keras_parti.models import TextToImage
from keras_parti.serving.card import check_card
from keras_parti.serving.export import (
    ASIDE,
    export,
    fingerprint,
    publish,
    remove_remains,
)
from keras_parti.serving.servable import Servable
from keras_parti.serving.served_chain import ServedChain


@pytest.fixture(scope="module")
def servable(exported):
    servable = Servable(exported)
    yield servable
    servable.close()


def test_every_weight_is_written_once(small_chain, exported):
    written = tf.train.list_variables(str(exported / "variables" / "variables"))
    written = [shape for name, shape in written if "OBJECT_GRAPH" not in name]
    weights = (*small_chain.tokenizer.weights, *small_chain.parti.weights)
    assert sorted(written) == sorted(list(weight.shape) for weight in weights)


def test_signatures_are_written_down(servable):
    signatures = servable.signatures
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


def test_version_numbers_go_up_and_nothing_else_is_left(
    small_chain, exported, tmp_path, monkeypatch
):
    def fake_save(module, path, signatures):
        shutil.copytree(exported, path, ignore=shutil.ignore_patterns("assets.extra"))

    monkeypatch.setattr(tf.saved_model, "save", fake_save)
    for name in ("9", "notes", "11.tmp"):
        (tmp_path / name).mkdir()
    assert export(small_chain, tmp_path).name == "10"
    assert export(small_chain, tmp_path).name == "11"
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


def test_what_killed_exports_left_is_removed(tmp_path):
    killed = subprocess.Popen([sys.executable, "-c", ""])
    killed.wait()
    left = tmp_path / f"{ASIDE}{killed.pid}"
    at_work = tmp_path / f"{ASIDE}{os.getppid()}"
    for path in (left, at_work, tmp_path / f"{ASIDE}me", tmp_path / ".writing-else-1"):
        (path / "variables").mkdir(parents=True)
    remove_remains(tmp_path)
    assert not left.exists()
    assert len(list(tmp_path.iterdir())) == 3
    assert at_work.exists()


def test_failed_export_leaves_nothing(small_chain, tmp_path, monkeypatch):
    def disk_full(module, path, signatures):
        Path(path, "variables").mkdir(parents=True)
        raise tf.errors.ResourceExhaustedError(None, None, "No space left on device")

    monkeypatch.setattr(tf.saved_model, "save", disk_full)
    with pytest.raises(OSError, match="cannot be written: No space left on device"):
        export(small_chain, tmp_path / "toy")
    assert list((tmp_path / "toy").iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        export(small_chain, tmp_path / "file")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_samples": 3, "keep": 4}, "1 ≤ keep ≤ num_samples.*keep=4"),
        ({"dtype": "int8"}, "dtype must be one of float32, bfloat16. Received: int8"),
    ],
)
def test_arguments_are_checked_before_work(small_chain, tmp_path, options, words):
    with pytest.raises(ValueError, match=words):
        export(small_chain, tmp_path / "toy", **options)
    assert not (tmp_path / "toy").exists()


def test_other_backends_are_refused(small_chain, tmp_path, monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(ValueError, match=r"KERAS_BACKEND=tensorflow\. Received: jax"):
        export(small_chain, tmp_path / "toy")


def test_weights_that_are_not_finite_are_an_error_when_served(small_chain):
    parti = type(small_chain.parti)(small_chain.parti.config)
    chain = TextToImage(small_chain.tokenizer, parti, small_chain.vocabulary)
    parti.decoder_norm.gamma.assign(np.full(16, np.nan))  # the chain was checked before
    generate = ServedChain(chain, 1, 1, "float32").signatures()["generate"]
    with pytest.raises(tf.errors.InvalidArgumentError, match="picture must be finite"):
        generate(tf.constant(["red fox"]))


def test_warm_up_asks_each_signature_at_each_size(exported, servable):
    path = exported / "assets.extra" / "tf_serving_warmup_requests"
    asked = {}
    for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
        log = prediction_log_pb2.PredictionLog.FromString(record)
        request = log.predict_log.request
        assert request.model_spec.name == "toy"
        name = request.model_spec.signature_name
        assert set(request.inputs) == set(servable.signatures[name].inputs)
        sizes = {p.tensor_shape.dim[0].size for p in request.inputs.values()}
        (size,) = sizes
        asked.setdefault(name, []).append(size)
    assert asked == {
        "serving_default": [1, 2, 4, 8, 16],
        "generate": [1, 2, 4, 8, 16],
        "generate_best": [1, 2, 4, 8],
        "encode": [1, 2, 4, 8, 16],
        "decode": [1, 2, 4, 8, 16],
    }
    assert {name for name, _ in servable._runs} == set(asked)
    assert servable.row_limits == {name: sizes[-1] for name, sizes in asked.items()}


def test_card_says_what_is_served(small_chain, exported):
    card = (exported / "card.md").read_text()
    mark = (exported / "fingerprint").read_text().strip()
    check_card(card)
    assert "\n# toy\n\nMade by a test.\n" in card
    assert f"the {KEEP} best of {SAMPLES} pictures" in card
    assert "12×12" in card
    assert "stored as float32" in card
    assert "Licence of the weights: CC0-1.0." in card
    assert "A request has 1 to 16 rows." in card
    assert mark in card
    assert mark == fingerprint(
        ServedChain(small_chain, 2, 1, "float32"), small_chain.vocabulary
    )
    assert mark != fingerprint(
        ServedChain(small_chain, 2, 1, "bfloat16"), small_chain.vocabulary
    )


def test_half_the_bytes_give_the_pictures_of_rounded_weights(
    small_chain, exported, tmp_path
):
    """Stored as bfloat16, computed in float32."""
    small = export(small_chain, tmp_path / "small", 2, 1, dtype="bfloat16")
    sizes = [
        (v / "variables" / "variables.data-00000-of-00001").stat().st_size
        for v in (small, exported)
    ]
    weights = (*small_chain.tokenizer.weights, *small_chain.parti.weights)
    assert sizes[1] - sizes[0] == 2 * sum(w.value.numpy().size for w in weights)
    small_chain.save(tmp_path / "parts")
    rounded = TextToImage.load(tmp_path / "parts")
    for weight in (*rounded.tokenizer.weights, *rounded.parti.weights):
        weight.assign(tf.cast(tf.cast(weight.value, tf.bfloat16), tf.float32))
    local = rounded.generate(PROMPTS, seed=17, num_samples=1)
    inputs = {k: tf.constant(v) for k, v in columns(PROMPTS, seed=17).items()}
    loaded = tf.saved_model.load(str(small))
    outputs = loaded.signatures["generate"](**inputs)
    np.testing.assert_array_equal(outputs["ids"], local["ids"][:, 0])
    assert (
        local["score"] != small_chain.generate(PROMPTS, seed=17, num_samples=1)["score"]
    ).all()
