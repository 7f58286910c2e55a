"""What a TFDS builder of pictures says of itself."""

import tensorflow_datasets as tfds

from keras_parti.data.arrays import LIST_FEATURES


def picture_info(builder, side, texts, licence, homepage=None):
    """Returns the `tfds.core.DatasetInfo` of a set of pictures and texts.

    Args:
        builder: `tfds.core.DatasetBuilder`, whose docstring describes the set.
        side: int, pixels along each side; None where pictures differ.
        texts: iterable of the names of the features beside `image`. Those of
            `LIST_FEATURES` hold several texts each.
        licence: str.
        homepage: str or None.
    """
    text = tfds.features.Text()
    # Not `dataset_info_from_configs`: it wants metadata files beside the builder.
    return tfds.core.DatasetInfo(
        builder=builder,
        description=type(builder).__doc__,
        features=tfds.features.FeaturesDict(
            {"image": tfds.features.Image(shape=(side, side, 3), encoding_format="png")}
            | {
                name: tfds.features.Sequence(text) if name in LIST_FEATURES else text
                for name in texts
            }
        ),
        homepage=homepage,
        license=licence,
    )
