"""A film of learning in TensorBoard: the same prompts and seeds, every few epochs."""

import keras
import numpy as np
import tensorflow as tf

from keras_parti.data.token_cache import has_split, read_token_cache
from keras_parti.evaluation.attention import token_probabilities, word_attention
from keras_parti.evaluation.explain import heat_map, overlay
from keras_parti.evaluation.gallery import grid, strip
from keras_parti.models import TextToImage
from keras_parti.training.averages import averaged

HELD_OUT = 64  # examples whose losses are shown


class Film(keras.callbacks.Callback):
    """Draws what a Parti in training has learnt, and shows where it looks.

    Under TensorBoard's images: `film`, a row for each prompt and a column for each
    guidance scale, always of the same seed, so that only the weights differ from one
    step to the next; `attention`, where the picture of a prompt looked at each of its
    words; `loss_by_position`, of held-out pictures, as a map over the grid. Under its
    scalars: `loss_by_position/first_row` and `/rest`, and `loss_by_category/NAME` where
    categories are given. Averages of the weights are what is shown, where there are.

    Args:
        tokenizer: `ViTVQGAN` whose ids the Parti learns.
        vocabulary: `keras_parti.text.Vocabulary`.
        prompts: list of str. Few: each is drawn once a guidance scale.
        log_dir: str or path of TensorBoard's logs.
        held_out: None, or a dict of `text_ids`, int32 `(batch, text_length)`,
            `image_ids`, int32 `(batch, num_tokens)`, and maybe `categories`, a list of
            str: a batch of validation examples.
        guidance_scales: floats.
        every: int. Epochs between two pictures; the first epoch is shown.
        seed: int.

    Raises:
        ValueError: no prompts, or no guidance scales.
    """

    def __init__(
        self,
        tokenizer,
        vocabulary,
        prompts,
        log_dir,
        held_out=None,
        guidance_scales=(1.0, 1.5, 3.0),
        every=1,
        seed=0,
    ):
        super().__init__()
        if not prompts or not guidance_scales or every < 1:
            raise ValueError(
                "`prompts` and `guidance_scales` must not be empty, and `every` be "
                f"positive. Received: prompts={prompts}, "
                f"guidance_scales={guidance_scales}, every={every}"
            )
        self.tokenizer, self.vocabulary = tokenizer, vocabulary
        self.prompts, self.guidance_scales = list(prompts), tuple(guidance_scales)
        self.log_dir, self.held_out = str(log_dir), held_out
        self.every, self.seed = every, seed
        self.chain = None
        self._writer = None  # a file of its own, so one for all epochs

    def on_epoch_end(self, epoch, logs=None):
        if epoch % self.every:
            return
        # Made once, for its compiled graphs; they read the weights as they are.
        if self.chain is None:
            self.chain = TextToImage(self.tokenizer, self.model, self.vocabulary)
        if self._writer is None:
            self._writer = tf.summary.create_file_writer(self.log_dir)
        pairs = [(self.model.optimizer, self.model.trainable_variables)]
        with averaged(pairs), self._writer.as_default(epoch):
            self._show_pictures()
            if self.held_out is not None:
                self._show_losses()
        self._writer.flush()

    def on_train_end(self, logs=None):
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _show_pictures(self):
        columns, first = [], None
        for scale in self.guidance_scales:
            drawn = self.chain.generate(
                self.prompts, 1, guidance_scale=scale, seed=self.seed
            )
            columns.append(drawn["images"][:, 0])
            first = first or drawn
        rows = list(zip(self.prompts, np.stack(columns, axis=1), strict=True))
        headings = [f"guidance {scale:g}" for scale in self.guidance_scales]
        _show("film", strip(rows, headings))
        looked = [
            (overlay(image, values), f"{word}: {values.mean():.0%}")
            for prompt, image, ids in zip(
                self.prompts, first["images"][:, 0], first["ids"][:, 0], strict=True
            )
            for word, values in word_attention(self.chain, prompt, ids)
        ]
        if looked:
            images, captions = zip(*looked, strict=True)
            _show("attention", grid(np.stack(images), captions=captions))

    def _show_losses(self):
        found = token_probabilities(
            self.model, self.held_out["text_ids"], self.held_out["image_ids"]
        )
        losses = -found["log_probability"]  # (batch, num_tokens)
        side = self.model.config.width
        by_position = losses.mean(axis=0).reshape(side, side)
        tf.summary.scalar("loss_by_position/first_row", by_position[0].mean())
        tf.summary.scalar("loss_by_position/rest", by_position[1:].mean())
        most = np.log(self.model.config.num_codes)
        painted = heat_map(by_position, 0.0, most)
        caption = f"{by_position.min():.2g} to {by_position.max():.2g} nats"
        _show("loss_by_position", grid(painted[None], captions=[caption]))
        names = np.array(self.held_out.get("categories", []), np.str_)
        for name in sorted(set(names)):
            mean = losses[names == name].mean()
            tf.summary.scalar(f"loss_by_category/{name}", mean)


def held_out_batch(cache, vocabulary):
    """Reads the first `HELD_OUT` validation examples of a token cache, for `Film`.

    Args:
        cache: str or path of a token cache.
        vocabulary: `keras_parti.text.Vocabulary`.

    Returns:
        What `Film` takes as `held_out`: each example with its first caption, or its
        name. None where the cache has no validation split.
    """
    if not has_split(cache, "validation"):
        return None
    dataset = read_token_cache(cache, "validation").take(HELD_OUT)
    examples = list(dataset.as_numpy_iterator())
    texts = [[*e["captions"], e["name"]][0].decode() for e in examples]
    categories = [example["category"].decode() for example in examples]
    return {
        "text_ids": vocabulary.encode(texts),
        "image_ids": np.stack([example["ids"] for example in examples]),
        "categories": [name or "none" for name in categories],
    }


def _show(name, page):
    tf.summary.image(name, np.asarray(page)[None])
