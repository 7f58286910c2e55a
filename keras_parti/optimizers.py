"""Learning rates over the steps of a run."""

import keras


def warmup_cosine(peak, warmup_steps, steps, floor=0.01):
    """A linear warm-up to a peak, then a cosine down to a share of it.

    ViT-VQGAN's schedule (section 4.1) has this form: 50,000 steps up to 1e-4, then down
    to half of it at step 500,000.

    Args:
        peak: float. The highest rate.
        warmup_steps: int. Steps of the warm-up.
        steps: int. Steps of the whole run.
        floor: float in `[0, 1]`. The last rate, as a share of the peak.

    Returns:
        `keras.optimizers.schedules.LearningRateSchedule`.

    Example:
        >>> rate = warmup_cosine(peak=1.0, warmup_steps=10, steps=110, floor=0.5)
        >>> [round(float(rate(step)), 3) for step in (0, 5, 10, 60, 110)]
        [0.0, 0.5, 1.0, 0.75, 0.5]
    """
    return keras.optimizers.schedules.CosineDecay(
        0.0,
        max(1, steps - warmup_steps),
        alpha=floor,
        warmup_target=peak,
        warmup_steps=warmup_steps,
    )
