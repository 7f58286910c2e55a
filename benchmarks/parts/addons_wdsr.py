"""WDSR-A in the Keras of 2020, with tensorflow-addons' weight normalisation.

    python benchmarks/parts/addons_wdsr.py DTYPE SCALE BLOCKS FILTERS EXPANSION SIDE

As in the public implementations for Keras: a functional model of `WeightNormalization`
around `Conv2D`, called as `model(images)` inside a `tf.function`. Needs the environment
of tests/goldens/weight_normalization/requirements.txt. Prints one line of JSON.
"""

import argparse
import json
import time

import tensorflow as tf
import tensorflow_addons as tfa


def conv(filters, side, activation=None):
    """A weight-normalised convolution with zeros around."""
    layer = tf.keras.layers.Conv2D(filters, side, padding="same", activation=activation)
    return tfa.layers.WeightNormalization(layer, data_init=False)


def build(scale, blocks, filters, expansion):
    """Returns the functional model."""
    images = tf.keras.Input((None, None, 3))
    centred = images - 0.45
    x = conv(filters, 3)(centred)
    for _ in range(blocks):
        x = x + conv(filters, 3)(conv(filters * expansion, 3, "relu")(x))
    channels = 3 * scale**2
    x = conv(channels, 3)(x) + conv(channels, 5)(centred)
    return tf.keras.Model(images, tf.nn.depth_to_space(x, scale) + 0.45)


def main():
    """Times the network."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dtype", choices=["float32"])
    for name in ("scale", "blocks", "filters", "expansion", "side"):
        parser.add_argument(name, type=int)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--train", type=int, default=0, metavar="BATCH")
    args = parser.parse_args()
    model = build(args.scale, args.blocks, args.filters, args.expansion)
    images = tf.random.uniform((args.train or 1, args.side, args.side, 3))
    side = args.scale * args.side
    targets = tf.random.uniform((args.train or 1, side, side, 3))
    model(images)  # sets the gains, which no graph may do twice
    model.compile(tf.keras.optimizers.Adam(1e-4), "mae")
    graph = tf.function(lambda x: model(x, training=False))

    def step():
        if args.train:
            return model.train_on_batch(images, targets)
        return graph(images).numpy()

    seconds = []
    for _ in range(args.rounds + 1):
        begun = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - begun)
    parameters = sum(int(tf.size(v)) for v in model.trainable_variables)
    print(json.dumps({"seconds": min(seconds[1:]), "parameters": parameters}))


if __name__ == "__main__":
    main()
