"""The codebook in training: codes placed on data, unused ones placed anew."""

import keras
import numpy as np
from keras import ops
from tqdm import tqdm

# Vectors that are compared with all codes at once: 34 MB of 8192 codes, where the
# 524,288 of a sample would take 17 GB. 32,768 vectors take 310 ms so, and 540 in parts
# of 8,192.
PART = 1024


class CodebookRevival(keras.callbacks.Callback):
    """Places unused codes on encoder outputs that are badly served.

    Before an epoch a sample of pictures is encoded. Codes that none of its vectors
    chose are moved onto vectors of the sample, drawn in proportion to their squared
    distance from their own code, as k-means++ draws its centres; so no code goes to
    what is common and well coded, such as white paper. Before the first epoch every
    code is placed, which starts the codebook from data.

    Not in the paper, whose codebook starts from a normal distribution and is left
    alone; at the size of our home set that collapses to 19 codes of 512.

    The sample is encoded as one, whatever the number of replicas. The optimiser, that
    of `keras_parti.training.tokenizer.adamw`, begins anew with the codes that moved.

    Args:
        tokenizer: `ViTVQGAN`, whose codebook it is.
        sample: function of the epoch that returns a `tf.data.Dataset` of float
            `(batch, height, width, 3)`; the same pictures whenever it is called.
        until_epoch: int or None. Epochs from this one on leave the codes alone, so
            that the decoder learns the last codes well.
        kmeans_rounds: int. Rounds of k-means that follow the first placing.
        seed: int. Seed of the draw.
        every: int. One vector of so many is looked at: neighbours are much alike.
    """

    # An epoch that goes on from its midst has had its beginning.
    moves_weights = True

    def __init__(
        self, tokenizer, sample, until_epoch=None, kmeans_rounds=10, seed=0, every=1
    ):
        super().__init__()
        self.tokenizer = tokenizer
        self.sample = sample
        self.every = every
        self.until_epoch = until_epoch
        self.kmeans_rounds = kmeans_rounds
        self.seed = seed

    def on_epoch_begin(self, epoch, logs=None):
        if self.until_epoch is not None and epoch >= self.until_epoch:
            return
        quantizer = self.tokenizer.quantizer
        vectors = np.concatenate(
            [
                ops.convert_to_numpy(
                    quantizer.normalize(self.tokenizer.vectors(images))
                ).reshape(-1, quantizer.code_dim)[:: self.every]
                for images in shown(self.sample(epoch), "reading pictures")
            ]
        )
        ids = np.concatenate(
            [
                ops.convert_to_numpy(quantizer.nearest(part[None]))[0]
                for part in parts(vectors, PART)
            ]
        )
        codes = ops.convert_to_numpy(quantizer.lookup(ids[None]))[0]
        used = np.zeros(quantizer.num_codes, bool)
        # The codes of a fresh model lie anywhere on the sphere: all are placed.
        used[ids if epoch else []] = True
        dead = np.flatnonzero(~used)
        weights = np.square(vectors - codes).sum(-1, dtype="float64") + 1e-12
        rng = np.random.default_rng((self.seed, epoch))
        chosen = rng.choice(
            len(vectors),
            size=len(dead),
            replace=len(dead) > len(vectors),
            p=weights / weights.sum(),
        )
        codebook = ops.convert_to_numpy(quantizer.codebook).copy()
        codebook[dead] = vectors[chosen]
        if not epoch:
            kmeans = spherical_kmeans if quantizer.normalized else euclidean_kmeans
            codebook = kmeans(vectors, codebook, self.kmeans_rounds)
        quantizer.codebook.assign(codebook)
        self._forget(dead, codebook[dead])

    def _forget(self, rows, codes):
        """Has the optimiser take codes as if they had always been where they are.

        A moving average would keep most of their old places for 1 / (1 − average) steps
        after each epoch, and it is the average that is validated and saved.
        """
        optimizer = self.model.optimizer
        index = optimizer._get_variable_index(self.tokenizer.quantizer.codebook)
        records = [(optimizer._momentums, 0.0), (optimizer._velocities, 0.0)]
        if optimizer.use_ema:
            records.append((optimizer._model_variables_moving_average, codes))
        for record, value in records:
            values = ops.convert_to_numpy(record[index]).copy()
            values[rows] = value
            record[index].assign(values)


def parts(array, size):
    """Splits an array along its first axis into arrays of at most `size`."""
    return np.array_split(array, max(1, -(-len(array) // size)))


def shown(steps, what):
    """Counts steps on the terminal: ten rounds of 8192 codes take some minutes."""
    return tqdm(steps, what, disable=None, leave=False)


def spherical_kmeans(vectors, centres, rounds):
    """Moves centres to the mean direction of the vectors nearest to them.

    Args:
        vectors: float NumPy array `(count, dim)` of unit vectors.
        centres: float NumPy array `(num_centres, dim)`.
        rounds: int. Times that all vectors are assigned and all centres moved.

    Returns:
        float32 `(num_centres, dim)` of unit vectors; a centre that no vector is
        nearest to stays.
    """
    for _ in shown(range(rounds), "placing codes"):
        centres = centres / np.linalg.norm(centres, axis=1, keepdims=True)
        sums = np.zeros_like(centres)
        for part in parts(vectors, PART):
            np.add.at(sums, (part @ centres.T).argmax(1), part)
        found = np.linalg.norm(sums, axis=1, keepdims=True) > 1e-6
        centres = np.where(found, sums, centres)
    return (centres / np.linalg.norm(centres, axis=1, keepdims=True)).astype("float32")


def euclidean_kmeans(vectors, centres, rounds):
    """Moves centres to the mean of the vectors nearest to them: those of plain codes.

    Args:
        vectors: float NumPy array `(count, dim)`.
        centres: float NumPy array `(num_centres, dim)`.
        rounds: int. Times that all vectors are assigned and all centres moved.

    Returns:
        float32 `(num_centres, dim)`; a centre that no vector is nearest to stays.
    """
    for _ in shown(range(rounds), "placing codes"):
        sums, counts = np.zeros_like(centres), np.zeros((len(centres), 1))
        for part in parts(vectors, PART):
            # |v - c|² without the |v|² that all centres share.
            nearest = (np.square(centres).sum(-1) - 2 * part @ centres.T).argmin(1)
            np.add.at(sums, nearest, part)
            np.add.at(counts, nearest, 1)
        centres = np.where(counts > 0, sums / np.maximum(counts, 1), centres)
    return centres.astype("float32")
