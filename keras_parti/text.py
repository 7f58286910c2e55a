"""Strings ⇄ text ids: the SentencePiece vocabulary that prompts are written in."""

import hashlib
import io
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import sentencepiece

from keras_parti.layers.embeddings import BOS, EOS, PAD, UNK
from keras_parti.typing import Tensor

__all__ = ["Vocabulary", "train_vocabulary"]

# Captions that a vocabulary is trained on at most, drawn at random from more: some
# gigabytes of SentencePiece's memory. Parti too samples its training texts.
SAMPLED = 1_000_000


class Vocabulary:
    """A SentencePiece model and the length that prompts are padded or cut to.

    A row of ids is `bos`, the pieces of the prompt, `eos`, and padding. The empty
    prompt is the row `bos, eos`, so no row is ever fully padding. Of a prompt with
    more than `length - 2` pieces the first ones are kept, still closed by `eos`.
    Characters that training never saw fall back to their UTF-8 bytes, so any
    Unicode string has ids. Parti (section 2.2) uses 16,000 pieces and a length of 128.

    The same ids come from two places: `encode` needs no TensorFlow, and
    `encode_tensor` runs inside TensorFlow graphs, `tf.data` and SavedModels.
    What is not valid UTF-8 is read as U+FFFD, which counts as a space.

    Args:
        model_bytes: bytes of a SentencePiece model with the ids pad 0, unk 1, bos 2
            and eos 3, as `train_vocabulary` makes them.
        length: int, at least 3. Ids in a row.

    Raises:
        ValueError: `model_bytes` is no such model, or `length` is too small.

    Example:
        >>> vocabulary = Vocabulary.from_file("runs/vocab/vocabulary.model", length=16)
        >>> report = vocabulary.encode_report(["red fox", "", "red fox " * 16])
        >>> report["ids"].shape, report["truncated"].tolist()
        ((3, 16), [False, False, True])

    References:
        - [Yu et al., 2022](https://arxiv.org/abs/2206.10789), section 2.2: size, length
        - [Kudo and Richardson, 2018](https://arxiv.org/abs/1808.06226)
    """

    def __init__(self, model_bytes: bytes, length: int = 128) -> None:
        if length < 3:
            raise ValueError(
                "`length` must be at least 3, for bos, one piece and eos. "
                f"Received: length={length}"
            )
        self.model_bytes = bytes(model_bytes)
        self.length = int(length)
        self._pieces = _processor(self.model_bytes)
        self._graph: Any = None  # of `encode_tensor`, made on its first call

    @classmethod
    def from_file(cls, path: str | os.PathLike, length: int = 128) -> Self:
        """Reads the model that `train_vocabulary` or `save` wrote.

        Args:
            path: path of a `.model` file.
            length: int, at least 3. Ids in a row.

        Raises:
            FileNotFoundError: there is no file at `path`.
            ValueError: the file is no SentencePiece model with our special ids.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(
                f"No vocabulary file at {path}. `keras-parti train vocab` writes one."
            )
        model_bytes = path.read_bytes()
        try:
            _processor(model_bytes)
        except ValueError as error:
            raise ValueError(f"{path} cannot be used: {error}") from None
        return cls(model_bytes, length)

    def save(self, path: str | os.PathLike) -> None:
        """Writes the SentencePiece model to `path`; `length` is not part of it."""
        Path(path).write_bytes(self.model_bytes)

    @property
    def size(self):
        """Number of ids, the special ones and the 256 bytes included."""
        return self._pieces.vocab_size()

    @property
    def fingerprint(self):
        """SHA-256 of the model in hex, by which a token cache knows its vocabulary."""
        return hashlib.sha256(self.model_bytes).hexdigest()

    def encode(self, prompts: Sequence[str | bytes]) -> np.ndarray:
        """Turns prompts into ids; see `encode_report` for what was cut off.

        Args:
            prompts: list of str (or of bytes, in UTF-8).

        Returns:
            int32 array `(batch, length)`.
        """
        return self.encode_report(prompts)["ids"]

    def encode_report(self, prompts: Sequence[str | bytes]) -> dict[str, np.ndarray]:
        """Turns prompts into ids, and tells which did not fit.

        Args:
            prompts: list of str (or of bytes, in UTF-8).

        Returns:
            A dict of arrays: `ids`, int32 `(batch, length)`; `num_tokens`, int32
            `(batch,)`, bos, eos and what was cut off included; `truncated`, bool
            `(batch,)`.

        Raises:
            TypeError: `prompts` is a single string, or holds something else.
        """
        if isinstance(prompts, str | bytes):
            raise TypeError(
                f"`prompts` must be a list of strings. Received: {prompts[:40]!r}"
            )
        rows = [self._pieces.encode(_text(prompt)) for prompt in prompts]
        ids = np.full((len(rows), self.length), PAD, "int32")
        for row, pieces in zip(ids, rows, strict=True):
            kept = [BOS, *pieces[: self.length - 2], EOS]
            row[: len(kept)] = kept
        num_tokens = np.array([len(pieces) + 2 for pieces in rows], "int32")
        return {
            "ids": ids,
            "num_tokens": num_tokens,
            "truncated": num_tokens > self.length,
        }

    def encode_tensor(self, prompts: Tensor) -> dict[str, Tensor]:
        """Turns prompts into ids inside a TensorFlow graph.

        The model travels as a constant of the graph, so a SavedModel with this in a
        signature is complete without tracking anything.

        Args:
            prompts: string tensor `(batch,)`, in UTF-8.

        Returns:
            A dict of tensors, as of `encode_report`.

        Raises:
            ValueError: `prompts` is no vector.
        """
        import tensorflow as tf

        prompts = tf.convert_to_tensor(prompts, tf.string)
        if prompts.shape.rank != 1:
            raise ValueError(
                "`prompts` must be a string tensor of shape (batch,). "
                f"Received shape: {prompts.shape}"
            )
        if self._graph is None:
            spec = tf.TensorSpec((None,), tf.string)
            self._graph = tf.function(
                self._encode_graph, input_signature=[spec], autograph=False
            )
        outputs = self._graph(prompts)
        for tensor in outputs.values():
            tensor.set_shape((prompts.shape[0], *tensor.shape[1:]))
        return outputs

    def _encode_graph(self, prompts):
        import tensorflow as tf
        import tensorflow_text

        # The op that holds the model stands in the graph, because one made outside
        # dies with the next `tf.random.set_seed`, which empties the cache of eager
        # kernels. Its name tells the model: in a SavedModel, ops of one name share
        # what they hold, and a second vocabulary would silently get the first's ids.
        tokenizer = tensorflow_text.SentencepieceTokenizer(
            self.model_bytes, tf.int32, name=f"sentencepiece_{self.fingerprint[:16]}"
        )
        valid = tf.strings.unicode_transcode(prompts, "UTF-8", "UTF-8", "replace")
        pieces = tokenizer.tokenize(valid)  # (batch, pieces), ragged
        num_tokens = tf.cast(pieces.row_lengths(), tf.int32) + 2
        edge = tf.ones_like(num_tokens)[:, None]  # (batch, 1)
        rows = tf.concat([BOS * edge, pieces[:, : self.length - 2], EOS * edge], axis=1)
        return {
            "ids": rows.to_tensor(PAD, shape=(None, self.length)),
            "num_tokens": num_tokens,
            "truncated": num_tokens > self.length,
        }

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """Returns the pieces of one row of ids, as the vocabulary writes them.

        Args:
            ids: int sequence. Control ids, such as padding, have pieces as well.

        Returns:
            list of str; `▁` begins a word, `<0x41>` is a single byte.
        """
        return [self._pieces.id_to_piece(int(each)) for each in ids]

    def decode(self, ids: Tensor) -> list[str]:
        """Turns ids back into text, for people to read.

        Args:
            ids: int array `(batch, length)` in `[0, size)`, or a list of rows.

        Returns:
            list of str: the prompts as normalised by the vocabulary, without
            special ids and what was cut off.

        Raises:
            ValueError: an id is outside `[0, size)`.
        """
        special = {PAD, BOS, EOS}
        rows = [[int(i) for i in row if int(i) not in special] for row in ids]
        for row in rows:
            if row and not 0 <= min(row) <= max(row) < self.size:
                raise ValueError(
                    f"`ids` must be in [0, {self.size}). Received: {min(row)} to "
                    f"{max(row)}"
                )
        return [self._pieces.decode(row) for row in rows]


def train_vocabulary(
    captions: Iterable[str | bytes],
    path: str | os.PathLike,
    size: int = 16_000,
    fold_case: bool = True,
) -> None:
    """Trains a unigram SentencePiece model on captions.

    Pieces, bytes and special ids are at most `size` together: fewer where the
    captions do not hold enough different substrings. Of more than `SAMPLED` captions
    so many are drawn, always the same ones. SentencePiece, the size and the sampling
    are Parti's (section 2.2). Unigram, byte fallback and the normalisation (NFKC, and
    control characters and runs of spaces become one space) are not published.

    Args:
        captions: iterable of str (or of bytes, in UTF-8); empty ones are skipped.
        path: path of the `.model` file to write.
        size: int. Largest number of ids: at least 260, for 4 special ids and 256
            bytes, plus one for each different character in the captions.
        fold_case: bool. Whether upper and lower case are one. A small set of captions
            does not show each word in each case; choose False where pictures
            contain writing.

    Raises:
        TypeError: a caption is no text.
        ValueError: there are no captions, or `size` is too small for them.

    Example:
        >>> import tempfile
        >>> path = tempfile.mkdtemp() + "/vocabulary.model"
        >>> train_vocabulary(["red apple", "green apple", "red pepper"] * 5, path)
        >>> vocabulary = Vocabulary.from_file(path, length=16)
        >>> vocabulary.decode(vocabulary.encode(["Green PEPPER", ""]))
        ['green pepper', '']
    """
    captions = _sample(text for text in map(_text, captions) if text.strip())
    if not captions:
        raise ValueError("`captions` must hold some text. Received none.")
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(captions),
            model_writer=model,
            vocab_size=size,
            hard_vocab_limit=False,
            model_type="unigram",
            byte_fallback=True,
            # Byte fallback would serve rare characters too, at one id for each byte.
            character_coverage=1.0,
            normalization_rule_name="nmt_nfkc_cf" if fold_case else "nmt_nfkc",
            pad_id=PAD,
            unk_id=UNK,
            bos_id=BOS,
            eos_id=EOS,
            minloglevel=2,
        )
    except RuntimeError as error:
        # It says what was asked for and what the characters alone take: "270 vs 279".
        least = re.search(r"\b\d+ vs (\d+)\b", str(error))
        if least is None:
            raise ValueError(
                f"`size` {size} does not suit these captions. SentencePiece: {error}"
            ) from None
        raise ValueError(
            f"`size` must be {least[1]} or more for these captions, whose characters "
            f"alone take as many ids. Received: size={size}"
        ) from None
    Path(path).write_bytes(model.getvalue())


def _sample(texts):
    """Returns `SAMPLED` of the texts at most, each with the same chance."""
    kept, rng = [], np.random.default_rng(0)
    for count, text in enumerate(texts):
        if count < SAMPLED:
            kept.append(text)
        elif (place := int(rng.integers(count + 1))) < SAMPLED:
            kept[place] = text
    return kept


def _processor(model_bytes):
    """Returns the loaded SentencePiece model, or says what is wrong with it."""
    pieces = sentencepiece.SentencePieceProcessor()
    try:
        pieces.LoadFromSerializedProto(model_bytes)
    except RuntimeError:
        raise ValueError("it is no SentencePiece model.") from None
    ids = (pieces.pad_id(), pieces.unk_id(), pieces.bos_id(), pieces.eos_id())
    if ids != (PAD, UNK, BOS, EOS):
        raise ValueError(
            "its ids of pad, unk, bos and eos must be 0, 1, 2 and 3. "
            f"Received: {', '.join(map(str, ids))}"
        )
    return pieces


def _text(prompt):
    """Returns the prompt as valid Unicode, as `encode_tensor` would read its bytes."""
    if isinstance(prompt, str):
        # A lone surrogate, as a shell's odd byte becomes in `sys.argv`, is no text.
        prompt = prompt.encode("utf-8", "surrogatepass")
    if not isinstance(prompt, bytes):
        raise TypeError(f"A text must be str or bytes in UTF-8. Received: {prompt!r}")
    return prompt.decode("utf-8", "replace")
