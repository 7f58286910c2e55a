"""Floating-point operations that the equations of a Parti ask for."""

from keras_parti.layers.window import window_mask


def parti_step_flops(config, batch_size):
    """Counts the operations of a training step, term by term.

    A product of `(m, k)` and `(k, n)` is 2·m·k·n; the backward pass is two such for
    each of the forward pass. Of self-attention only the keys that a query may see are
    counted. What is computed and then masked, or computed again to save memory, counts
    for nothing: with these operations a utilisation says what the model makes of the
    machine, not how busy it is. Embeddings, norms and softmax are left out: at the
    published widths they are below one in a hundred.

    Args:
        config: `PartiConfig`.
        batch_size: int. Pictures of the step.

    Returns:
        A dict of term to float.
    """
    text, image = batch_size * config.text_length, batch_size * config.num_tokens
    d, f, layers = config.dim, config.mlp_dim, config.decoder_layers
    seen = batch_size * sum(_pairs(config, layer) for layer in range(layers))
    encoder, memory = config.encoder_layers * text, config.text_length
    forward = {
        "encoder projections and MLP": encoder * (8 * d * d + 4 * d * f),
        "encoder attention": encoder * 4 * memory * d,
        "decoder projections and MLP": layers
        * (image * (12 * d * d + 4 * d * f) + text * 4 * d * d),
        "decoder self-attention": 4 * seen * d,
        "decoder cross-attention": layers * image * 4 * memory * d,
        "logits": image * 2 * d * config.num_codes,
    }
    return {name: 3.0 * value for name, value in forward.items()}


def _pairs(config, layer):
    """Pairs of a query and a key that it may see, in one picture."""
    kernel, length = config.kernel_of(layer), config.num_tokens
    if kernel is None:
        return length * (length + 1) // 2
    mask = window_mask(kernel, config.width, config.attention_wraparound)
    # A query sees nothing before the raster's begin.
    return sum(int(mask[q % config.width, : q + 1].sum()) for q in range(length))
