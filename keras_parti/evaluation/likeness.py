"""How different copies of pictures look (LPIPS), each picture looked at once."""

import numpy as np

from keras_parti.compiled import compiled


def likeness(network):
    """Returns a compiled function that compares pictures with copies of them.

    Args:
        network: `keras_parti.models.Perceptual`.

    Returns:
        A function of originals, float `(batch, height, width, 3)` in `[0, 1]`, and a
        dict of name to copies of the same shape, which returns a dict of name to
        float32 `(batch,)`.
    """
    distance = compiled(lambda images, others: network(images, others), network)

    def compare(originals, copies):
        # One original at a time: what a VGG16 sees of a picture of 256×256 takes 70 MB,
        # of a batch 32 times that. And all its copies with it: alone with each it would
        # be looked at each time, eight pictures for four copies, and not five.
        rows = [
            distance(originals[row : row + 1], np.stack(of_one))
            for row, of_one in enumerate(zip(*copies.values(), strict=True))
        ]
        return dict(zip(copies, np.stack(rows, axis=1), strict=True))

    return compare
