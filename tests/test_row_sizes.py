"""Rows are filled up to few sizes, and only matrix products see it."""

import numpy as np
import pytest
import tensorflow as tf
from small_chain import SAMPLES, columns, strings

from keras_parti.serving.row_sizes import (
    MAX_DRAWN,
    ROW_SIZES,
    in_chunks,
    in_sizes,
    sizes_for,
)


@pytest.mark.parametrize(
    ("rows", "size"), [(1, 1), (2, 2), (3, 4), (4, 4), (5, 8), (16, 16)]
)
def test_a_function_sees_the_next_size_and_gives_the_rows_asked_for(rows, size):
    def double(x, word):
        count = tf.repeat(tf.shape(x)[:1], tf.shape(x)[0])
        return {"y": 2 * x, "word": word, "count": count, "last": x[-1:] + 0 * x}

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, 3], tf.int32),
            tf.TensorSpec([None], tf.string),
        ]
    )
    def run(x, word):
        return in_sizes(double, {"x": x, "word": word})

    x = np.arange(3 * rows, dtype=np.int32).reshape(rows, 3)
    word = np.array([str(i).encode() for i in range(rows)], object)
    outputs = run(x, tf.constant(word, tf.string))
    np.testing.assert_array_equal(outputs["y"], 2 * x)
    assert outputs["word"].numpy().tolist() == word.tolist()
    assert outputs["count"].numpy().tolist() == [size] * rows
    # What fills up repeats the last row.
    np.testing.assert_array_equal(outputs["last"], np.repeat(x[-1:], rows, axis=0))
    assert run.get_concrete_function().structured_outputs["y"].shape == [None, 3]


@pytest.mark.parametrize(("rows", "calls"), [(1, [1]), (3, [3]), (4, [6]), (7, [6, 6])])
def test_what_is_too_much_at_once_is_done_in_parts(rows, calls):
    def double(x):
        return {"y": 2 * x, "count": tf.repeat(tf.shape(x)[:1], tf.shape(x)[0])}

    @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.int32)])
    def run(x):
        specs = {
            "y": tf.TensorSpec([None, 3], tf.int32),
            "count": tf.TensorSpec([None], tf.int32),
        }
        return in_chunks(double, {"x": x}, (1, 3, 6), specs)

    x = np.arange(3 * rows, dtype=np.int32).reshape(rows, 3)
    outputs = run(x)
    np.testing.assert_array_equal(outputs["y"], 2 * x)
    seen = [size for size in calls for _ in range(size)][:rows]
    assert outputs["count"].numpy().tolist() == seen


def test_sizes_bound_the_pictures_that_a_request_has_drawn():
    assert sizes_for(1) == ROW_SIZES
    assert sizes_for(16) == (1, 2, 4)
    assert sizes_for(4096) == (1,)
    for samples in range(1, MAX_DRAWN + 1):
        assert max(sizes_for(samples)) * samples <= MAX_DRAWN


def test_ids_do_not_depend_on_the_rows_beside_them(exported_client):
    many = columns([f"{i} red fox" for i in range(16)], seed=3)
    many["seed"] += np.arange(16)
    whole = exported_client.predict("generate", many)
    for start, stop in [(0, 1), (1, 4), (4, 9), (9, 16)]:
        part = {name: column[start:stop] for name, column in many.items()}
        found = exported_client.predict("generate", part)
        for name in ("ids", "image_bytes", "prompt_tokens", "truncated"):
            np.testing.assert_array_equal(found[name], whole[name][start:stop])
        np.testing.assert_allclose(
            found["score"], whole["score"][start:stop], atol=1e-5
        )
    decoded = exported_client.predict("decode", {"ids": whole["ids"][:5]})
    np.testing.assert_array_equal(decoded["image_bytes"], whole["image_bytes"][:5])
    back = exported_client.predict("encode", {"image_bytes": whole["image_bytes"]})
    for start, stop in [(0, 3), (3, 16)]:
        part = {"image_bytes": whole["image_bytes"][start:stop]}
        found = exported_client.predict("encode", part)
        np.testing.assert_array_equal(found["ids"], back["ids"][start:stop])


def test_more_prompts_than_fit_at_once_are_chosen_for_as_alone(exported_client):
    most = sizes_for(SAMPLES)[-1]
    many = columns([f"{i} red fox" for i in range(most + 1)], seed=3)
    whole = exported_client.predict("generate_best", many)
    last = {name: column[most:] for name, column in many.items()}
    found = exported_client.predict("generate_best", last)
    np.testing.assert_array_equal(found["ids"], whole["ids"][most:])


@pytest.mark.parametrize("rows", [0, 17])
def test_no_rows_and_more_than_the_largest_size_are_refused(exported_client, rows):
    inputs = {
        "generate": columns(["a"] * rows),
        "generate_best": columns(["a"] * rows),
        "encode": {"image_bytes": strings(*[b"no picture"] * rows)},
        "decode": {"ids": np.zeros((rows, 9), np.int32)},
    }
    for signature, values in inputs.items():
        words = f"A request must have 1 to 16 rows. Received: {rows}$"
        with pytest.raises(ValueError, match=words):
            exported_client.predict(signature, values)
