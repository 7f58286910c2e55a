"""An exported chain gives the pictures of the small_chain, wherever it runs."""

import base64
import json
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import tensorflow as tf
from small_chain import KEEP, PROMPTS, SAMPLES, assert_same, columns, strings
from tensorflow.core.framework import tensor_pb2

from keras_parti.serving.pictures import write_picture

LONG = "pear " * 2000


@pytest.mark.parametrize(
    "options",
    [
        {"num_samples": 1},
        {"num_samples": 1, "seed": -(1 << 62), "guidance_scale": 3.0},
        {"num_samples": 1, "temperature": 0.0, "seed": 5},
        {"num_samples": 1, "top_k": 3, "top_p": 0.9, "temperature": 2.0},
        {"num_samples": SAMPLES, "keep": KEEP, "seed": 11},
        {"num_samples": 4, "keep": 2, "seed": (1 << 63) - 2},
    ],
)
def test_served_pictures_are_the_local_ones(small_chain, exported_client, options):
    assert_same(
        exported_client.generate(PROMPTS, **options),
        small_chain.generate(PROMPTS, **options),
    )


def test_seeds_differ_and_rows_do_not_touch_each_other(exported_client):
    drawn = [
        exported_client.generate(PROMPTS, seed=seed, num_samples=1)["ids"]
        for seed in (3, 4)
    ]
    assert (drawn[0] != drawn[1]).any(axis=-1).all()
    assert len({tuple(row) for ids in drawn for row in ids[:, 0]}) == 2 * len(PROMPTS)
    alone = exported_client.generate(PROMPTS[2:], seed=4, num_samples=1)["ids"]
    np.testing.assert_array_equal(alone, drawn[1][2:])


def test_served_choice_is_the_best_of_the_seeds_that_follow(exported_client):
    best = exported_client.predict("generate_best", columns(PROMPTS, seed=21))
    singles = [
        exported_client.predict("generate", columns(PROMPTS, seed=21 + j))
        for j in range(SAMPLES)
    ]
    scores = np.stack([single["score"] for single in singles], axis=1)
    order = np.argsort(-scores, axis=1)[:, :KEEP]
    for row, chosen in enumerate(order):
        ids = [singles[j]["ids"][row] for j in chosen]
        files = [singles[j]["image_bytes"][row] for j in chosen]
        np.testing.assert_array_equal(best["ids"][row], ids)
        assert list(best["image_bytes"][row]) == files


def test_what_a_request_leaves_out_has_its_default(exported_client):
    full = columns(PROMPTS)
    for signature in ("generate", "generate_best", ""):
        bare = exported_client.predict(signature, {"prompt": full["prompt"]})
        assert_same(bare, exported_client.predict(signature, full))
    one = {name: value[:1] for name, value in full.items()} | {"prompt": full["prompt"]}
    assert_same(
        exported_client.predict("generate", one),
        exported_client.predict("generate", full),
    )


def test_long_prompts_are_cut_and_reported(small_chain, exported_client):
    drawn = exported_client.generate([LONG, "red fox"], num_samples=1)
    assert drawn["truncated"].tolist() == [True, False]
    assert drawn["prompt_tokens"][0] > 2000
    assert_same(drawn, small_chain.generate([LONG, "red fox"], num_samples=1))


def test_bytes_that_are_no_text_are_answered(exported_client):
    inputs = {"prompt": strings(b"caf\xe9 \xff\xfe\x00", b"\xed\xa0\x80")}
    assert exported_client.predict("generate", inputs)["ids"].shape == (2, 9)


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
def requests(small_chain):
    pictures = np.random.default_rng(3).integers(0, 256, (2, 12, 12, 3)).astype("uint8")
    return {
        "generate": columns(PROMPTS, seed=13),
        "generate_best": columns(PROMPTS, seed=13, guidance_scale=2.0),
        "encode": {"image_bytes": strings(*map(write_picture, pictures))},
        "decode": {"ids": np.arange(18, dtype=np.int32).reshape(2, 9)},
    }


@pytest.fixture(scope="module")
def elsewhere(exported, requests, tmp_path_factory):
    folder = tmp_path_factory.mktemp("elsewhere")
    inputs = {
        name: {key: packed(value) for key, value in feeds.items()}
        for name, feeds in requests.items()
    }
    (folder / "inputs").write_text(json.dumps(inputs))
    files = [str(exported), str(folder / "inputs"), str(folder / "outputs")]
    # Isolated: neither this folder nor PYTHONPATH is looked into.
    command = [sys.executable, "-I", "-c", textwrap.dedent(ELSEWHERE), *files]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "outputs").read_text())


def test_all_loaders_agree_in_a_process_without_this_package(
    elsewhere, requests, exported_client
):
    for signature, inputs in requests.items():
        served = exported_client.predict(signature, inputs)
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
