"""The contrastive loss over the batch of all replicas together."""

import keras
import tensorflow as tf

from keras_parti.losses import Contrastive


@keras.saving.register_keras_serializable("keras_parti")
class GlobalContrastive(Contrastive):
    """`Contrastive` where a text chooses among the pictures of all replicas.

    Gradients flow to all of them, so that several replicas learn what one device
    would from the whole batch.
    """

    def __init__(self, name="contrastive", **kwargs):
        super().__init__(name=name, **kwargs)

    def gather(self, vectors):
        context = tf.distribute.get_replica_context()
        if context is None or context.num_replicas_in_sync == 1:
            return vectors, 0
        # The last batch of a set may be parted unevenly.
        rows = context.all_gather(tf.shape(vectors)[:1], axis=0)
        before = tf.reduce_sum(rows[: context.replica_id_in_sync_group])
        return context.all_gather(vectors, axis=0), before
