"""Two small SavedModels that stand in for a trained one in the tests of serving.

`parti` has the signatures of the model whose replies were recorded on
`tensorflow_model_server` 2.21; `toy` has those of an exported text-to-image model.
To run the tests of the protocol against another server, write both with
`python tests/stand_in.py FOLDER`, serve `FOLDER/parti` and `FOLDER/toy` under these
names, and give its address in `KERAS_PARTI_SERVER`.
"""

import os
import sys
from contextlib import contextmanager
from pathlib import Path

import tensorflow as tf

SIDE = 5  # pixels a side of the toy's pictures
LENGTH = 3  # ids of one of them
NUM_CODES = 97
OPTIONS = [
    tf.TensorSpec([None], tf.string, "prompt"),
    tf.TensorSpec([None], tf.int64, "seed"),
    tf.TensorSpec([None], tf.float32, "guidance_scale"),
    tf.TensorSpec([None], tf.float32, "temperature"),
    tf.TensorSpec([None], tf.int32, "top_k"),
    tf.TensorSpec([None], tf.float32, "top_p"),
]
IMAGES = tf.TensorSpec([None, 16, 16, 3], tf.float32, "image")
SAMPLES, KEEP = 11, 2  # of the toy's generate_best


class Recorded(tf.Module):
    """A picture of noise for each text, from a scalar seed and temperature."""

    def __init__(self):
        self.scale = tf.Variable(255.0)

    @tf.function(
        input_signature=[
            tf.TensorSpec([None], tf.string, "text"),
            tf.TensorSpec([], tf.int32, "seed"),
            tf.TensorSpec([], tf.float32, "temperature"),
        ]
    )
    def generate(self, text, seed, temperature):
        shape = [tf.size(text), 16, 16, 3]
        noise = tf.random.stateless_uniform(shape, tf.stack([seed, 0]))
        image = tf.cast(noise * temperature * self.scale, tf.uint8)
        png = tf.map_fn(tf.io.encode_png, image, fn_output_signature=tf.string)
        return {"image": image, "png": png}

    @tf.function(
        input_signature=[tf.TensorSpec([None, 16, 16, 3], tf.float32, "image")]
    )
    def encode(self, image):
        return {"codes": tf.cast(image[:, ::4, ::4, 0] * self.scale, tf.int32)}


class Toy(tf.Module):
    """Grey pictures; ids and scores follow from the prompt's bytes and the seed."""

    def __init__(self):
        self.step = tf.Variable(7, dtype=tf.int64)

    def _ids(self, prompt, seed):
        start = tf.cast(tf.strings.length(prompt), tf.int64) + seed
        ids = start[:, None] + self.step * tf.range(LENGTH, dtype=tf.int64)
        return tf.cast(ids % NUM_CODES, tf.int32)

    def _pictures(self, ids):
        grey = tf.cast(ids[:, :1, None, None], tf.uint8)
        images = tf.broadcast_to(grey, [tf.shape(ids)[0], SIDE, SIDE, 3])
        return tf.map_fn(tf.io.encode_png, images, fn_output_signature=tf.string)

    def _row(self, value, prompt):
        return tf.broadcast_to(value, tf.shape(prompt))

    def _text(self, prompt):
        tokens = tf.strings.length(prompt)
        return {"prompt_tokens": tokens, "truncated": tokens > 20}

    def generate(self, prompt, seed, guidance_scale, temperature, top_k, top_p):
        seed = self._row(seed, prompt)
        ids = self._ids(prompt, seed)
        options = guidance_scale + temperature + tf.cast(top_k, tf.float32) + top_p
        options = self._row(options, prompt)
        check = tf.debugging.Assert(
            tf.reduce_all(guidance_scale <= 30.0),
            ["guidance_scale must lie in [0, 30]. Received:", guidance_scale],
        )
        with tf.control_dependencies([check]):
            score = tf.cast(ids[:, 0], tf.float32) + options * 0.0
        return {"image_bytes": self._pictures(ids), "ids": ids, "score": score} | (
            self._text(prompt)
        )

    def generate_best(self, prompt, seed, *options):
        seeds = self._row(seed, prompt)[:, None] + tf.range(SAMPLES, dtype=tf.int64)
        rows = tf.repeat(prompt, SAMPLES)
        ids = tf.reshape(
            self._ids(rows, tf.reshape(seeds, [-1])), [-1, SAMPLES, LENGTH]
        )
        score, best = tf.math.top_k(tf.cast(ids[:, :, 0], tf.float32), KEEP)
        ids = tf.gather(ids, best, batch_dims=1)
        pictures = self._pictures(tf.reshape(ids, [-1, LENGTH]))
        return {
            "image_bytes": tf.reshape(pictures, [-1, KEEP]),
            "ids": ids,
            "score": score,
        } | self._text(prompt)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "image_bytes")])
    def encode(self, image_bytes):
        def grey(content):
            return tf.io.decode_image(content, 3, expand_animations=False)[0, 0, 0]

        first = tf.map_fn(grey, image_bytes, fn_output_signature=tf.uint8)
        return {"ids": tf.repeat(tf.cast(first, tf.int32)[:, None], LENGTH, axis=1)}

    @tf.function(input_signature=[tf.TensorSpec([None, LENGTH], tf.int32, "ids")])
    def decode(self, ids):
        return {"image_bytes": self._pictures(ids)}

    def signatures(self):
        """The five signatures of an exported model, options with their defaults."""
        zero, none = tf.constant([0], tf.int64), tf.constant([0])
        one = tf.constant([1.0])

        def with_defaults(function):
            def run(
                prompt,
                seed=zero,
                guidance_scale=one,
                temperature=one,
                top_k=none,
                top_p=one,
            ):
                return function(prompt, seed, guidance_scale, temperature, top_k, top_p)

            # Only a tf.function keeps its defaults; a concrete one loses them.
            return tf.function(run, input_signature=OPTIONS)

        generate = with_defaults(self.generate)
        return {
            "serving_default": generate,
            "generate": generate,
            "generate_best": with_defaults(self.generate_best),
            "encode": self.encode,
            "decode": self.decode,
        }


def write(folder):
    """Writes both models, as version 2 of `parti` and version 1 of `toy`."""
    recorded, toy = Recorded(), Toy()
    signatures = {"serving_default": recorded.generate, "encode": recorded.encode}
    tf.saved_model.save(recorded, str(Path(folder) / "parti" / "2"), signatures)
    tf.saved_model.save(toy, str(Path(folder) / "toy" / "1"), toy.signatures())


@contextmanager
def served(folder, name):
    """The address of a server of one of the two: the one given, or our own."""
    if "KERAS_PARTI_SERVER" in os.environ:
        yield os.environ["KERAS_PARTI_SERVER"]
        return
    from keras_parti.serving.server import Server

    with Server(Path(folder) / name, port=0) as server:
        yield server.address


if __name__ == "__main__":
    write(sys.argv[1])
