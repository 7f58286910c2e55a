"""What TensorBoard shows of a tokenizer in training: pictures, measures, codes."""

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from keras_parti import metrics
from keras_parti.training.averages import averaged
from keras_parti.training.workdir import is_first


class MeasuredPanels(keras.callbacks.Callback):
    """Measures a generator after each epoch, and shows some of its pictures.

    The model is an `AdversarialTraining`; where its weights are averaged, the averages
    are what is measured. Of several workers the first one shows. A subclass has
    `_measure`, which takes the generator and returns the figures that are added to the
    epoch's logs, a panel, and what else `_show` is to have.

    Args:
        pictures: `tf.data.Dataset` of float `(batch, height, width, 3)` in `[0, 1]`.
        log_dir: str or path of TensorBoard's logs, or None to show nothing.
        num_shown: int. Pictures shown.
    """

    title: str  # of the panel in TensorBoard

    def __init__(self, pictures, log_dir=None, num_shown=8):
        super().__init__()
        self.pictures = pictures
        self.log_dir = log_dir
        self.num_shown = num_shown
        self._writer = None  # a file of its own, so one for all epochs

    def on_epoch_end(self, epoch, logs=None):
        with averaged(self.model.players):
            figures, *shown = self._measure(self.model.generator)
        if logs is not None:
            logs.update(figures)
        if self.log_dir is not None and is_first(self.model):
            if self._writer is None:
                self._writer = tf.summary.create_file_writer(str(self.log_dir))
            with self._writer.as_default(epoch):
                self._show(*shown)
            self._writer.flush()

    def on_train_end(self, logs=None):
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _show(self, panel):
        tf.summary.image(self.title, panel, max_outputs=self.num_shown)


class Panels(MeasuredPanels):
    """What reconstructions of a tokenizer in training are worth.

    Adds to the epoch's logs, which TensorBoard draws beside the terms of the loss and
    the learning rate: `val_psnr` and `val_ssim`, means over pictures, in dB and in
    [-1, 1] (SSIM from 11 pixels a side on); `val_codebook_usage`, the share of codes
    that the pictures use; `val_codebook_perplexity`. Shows pictures as input | output |
    error, white where the output is right, and how often codes are used: the histogram,
    over all codes, of log₂(1 + times used), 0 for a code that is not used. Arguments
    are those of `MeasuredPanels`.
    """

    title = "reconstruction"

    def _show(self, panel, counts):
        super()._show(panel)
        # Without the logarithm the few codes of white paper are all that is seen.
        axis = "log2(1 + times used), over all codes"
        tf.summary.histogram("codebook", np.log2(1 + counts), description=axis)

    def _measure(self, tokenizer):
        num_codes = tokenizer.config.num_codes
        usage = metrics.CodebookUsage(num_codes)
        perplexity = metrics.CodebookPerplexity(num_codes)
        counts = np.zeros(num_codes, int)
        psnr, ssim, panel = [], [], None
        for images in self.pictures:
            ids = tokenizer.encode(images)
            outputs = tokenizer.decode(ids)
            usage.update_state(ids)
            perplexity.update_state(ids)
            found = ops.convert_to_numpy(ids).ravel()
            counts += np.bincount(found, minlength=num_codes)
            psnr.append(ops.convert_to_numpy(metrics.psnr(images, outputs)))
            if min(images.shape[1:3]) >= metrics.SSIM_WINDOW:
                ssim.append(ops.convert_to_numpy(metrics.ssim(images, outputs)))
            if panel is None:
                panel = self._panel(images, outputs)
        figures = {
            "val_psnr": float(np.concatenate(psnr).mean()),
            "val_codebook_usage": float(usage.result()),
            "val_codebook_perplexity": float(perplexity.result()),
        }
        if ssim:
            figures["val_ssim"] = float(np.concatenate(ssim).mean())
        return figures, panel, counts

    def _panel(self, images, outputs):
        images, outputs = images[: self.num_shown], outputs[: self.num_shown]
        error = 1.0 - tf.abs(images - outputs)
        return tf.concat([images, outputs, error], axis=2)
