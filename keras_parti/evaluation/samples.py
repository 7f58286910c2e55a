"""Draws pictures for prompts once and keeps them on disk, so that a kill costs little.

A file a prompt; its name depends on all that decides the pictures.
"""

import hashlib
import json
import zlib
from pathlib import Path

import numpy as np
from tqdm import tqdm

from keras_parti.data.arrays import read_npz, write_npz


def draw_samples(
    generate, prompts, folder, *, num_samples, guidance_scale, seed, model_name, label
):
    """Draws `num_samples` pictures for each prompt, or reads those drawn before.

    Each prompt has seeds of its own, from its text: with shared seeds all prompts
    would have the same luck, and intervals over prompts would be too narrow.

    Args:
        generate: callable, see `evaluate_retrieval`.
        prompts: sequence of str.
        folder: path of the folder that keeps the pictures.
        num_samples: int.
        guidance_scale: float.
        seed: int.
        model_name: str that tells the weights apart.
        label: str for the progress bar.

    Returns:
        `images`, uint8 `(prompts, num_samples, height, width, 3)`, and `scores`,
        float32 `(prompts, num_samples)`, those of the highest score first.

    Raises:
        ValueError: `generate` returned other shapes.
    """
    images, scores = [], []
    for prompt in tqdm(prompts, desc=label, unit="prompt", disable=None):
        key = [model_name, str(prompt), num_samples, float(guidance_scale), seed]
        digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()
        path = Path(folder) / f"{digest[:24]}.npz"
        if path.exists():
            drawn = read_npz(path)
        else:
            drawn = _draw(generate, str(prompt), num_samples, guidance_scale, seed)
            write_npz(path, drawn)
        images.append(drawn["images"])
        scores.append(drawn["score"])
    return np.stack(images), np.stack(scores)


def best_of_weights(num_samples, best_of):
    """How often each sample is the best of `best_of` drawn from all at random.

    With them the figure of best-of-4 uses all 16 samples rather than the first 4: the
    mean over all choices of 4, which no order of the samples changes.

    Args:
        num_samples: int. Number of samples, ordered from best to worst.
        best_of: int, 1 to `num_samples`.

    Returns:
        float64 `(num_samples,)`, summing to 1.
    """
    if not 1 <= best_of <= num_samples:
        raise ValueError(
            f"`best_of` must be from 1 to `num_samples`, {num_samples}. "
            f"Received: best_of={best_of}"
        )
    weights = np.zeros(num_samples)
    left = 1.0  # the chance that none of the better samples was among those drawn
    for rank in range(num_samples - best_of + 1):
        chosen = best_of / (num_samples - rank)
        weights[rank] = left * chosen
        left *= 1.0 - chosen
    return weights


def _draw(generate, prompt, num_samples, guidance_scale, seed):
    drawn = generate(
        [prompt],
        num_samples=num_samples,
        keep=num_samples,
        guidance_scale=guidance_scale,
        seed=seed + num_samples * zlib.crc32(prompt.encode("utf-8", "replace")),
    )
    images = np.asarray(drawn["images"])
    scores = np.asarray(drawn["score"], np.float32)
    if images.ndim != 5 or images.dtype != np.uint8 or scores.shape != images.shape[:2]:
        raise ValueError(
            "`generate` must return `images`, uint8 (prompts, keep, height, width, 3), "
            "and `score`, (prompts, keep). "
            f"Received: {images.dtype} {images.shape} and {scores.shape}"
        )
    if images.shape[:2] != (1, num_samples):
        raise ValueError(
            f"`generate` was asked for {num_samples} pictures of 1 prompt. "
            f"Received: {images.shape[1]} of {images.shape[0]}"
        )
    order = np.argsort(-scores[0], kind="stable")
    return {"images": images[0][order], "score": scores[0][order]}
