"""Samples with a peer of the given shape; prints seconds a step on the last line.

    python sampling_peers.py {keras-hub|transformers|parti-pytorch} SHAPE ROUNDS

SHAPE is JSON of the fields that `benchmarks/sampling.py` compares. The weights are
random: what is drawn does not matter to the time.
"""

import json
import os
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

ROWS = 2  # what guidance would compute for one picture
PREFIXES = 8  # lengths at which a peer without a cache is timed


def best_of(function, rounds):
    """Returns the seconds of the fastest call after a first one."""
    times = []
    for _ in range(rounds + 1):
        begun = time.perf_counter()
        function()
        times.append(time.perf_counter() - begun)
    return min(times[1:])


def keras_hub(shape, rounds):
    """Times `BartSeq2SeqLM.generate`: both caches, one graph, no guidance."""
    import keras_hub as hub
    import numpy as np

    tokens = shape["num_tokens"]
    backbone = hub.models.BartBackbone(
        vocabulary_size=shape["num_codes"],
        num_layers=shape["decoder_layers"],
        num_heads=shape["heads"],
        hidden_dim=shape["dim"],
        intermediate_dim=shape["mlp_dim"],
        max_sequence_length=max(tokens, shape["text_length"]),
    )
    model = hub.models.BartSeq2SeqLM(backbone, preprocessor=None)
    model.compile(sampler=hub.samplers.RandomSampler(seed=0), jit_compile=False)
    text = np.ones((ROWS, shape["text_length"]), "int32")
    image = np.ones((ROWS, tokens), "int32")
    begun = np.arange(tokens) < 1
    inputs = {
        "encoder_token_ids": text,
        "encoder_padding_mask": np.ones_like(text),
        "decoder_token_ids": image,
        "decoder_padding_mask": image * begun,
    }
    return best_of(lambda: model.generate(inputs, stop_token_ids=None), rounds) / tokens


def transformers(shape, rounds):
    """Times `generate` of a BART with its static cache, without guidance."""
    import torch
    from transformers import BartConfig, BartForConditionalGeneration

    tokens = shape["num_tokens"]
    config = BartConfig(
        vocab_size=shape["num_codes"],
        d_model=shape["dim"],
        encoder_layers=shape["encoder_layers"],
        decoder_layers=shape["decoder_layers"],
        encoder_attention_heads=shape["heads"],
        decoder_attention_heads=shape["heads"],
        encoder_ffn_dim=shape["mlp_dim"],
        decoder_ffn_dim=shape["mlp_dim"],
        max_position_embeddings=tokens + 1,
        forced_eos_token_id=None,
    )
    model = BartForConditionalGeneration(config).eval()
    text = torch.full((ROWS, shape["text_length"]), 5)

    def run():
        with torch.inference_mode():
            model.generate(
                text,
                attention_mask=torch.ones_like(text),
                min_new_tokens=tokens,
                max_new_tokens=tokens,
                do_sample=True,
                top_k=0,
                cache_implementation="static",
            )

    return best_of(run, rounds) / tokens


def parti_pytorch(shape, rounds):
    """Times whole passes, guidance on, at some lengths: this peer has no cache.

    Its `generate` makes one pass for each id, of all ids before; their mean is that of
    a straight line through the lengths timed.
    """
    import numpy as np
    import torch
    from parti_pytorch import Parti, VitVQGanVAE, t5
    from transformers import T5Config

    # Its constructor would ask a hub for the width of the text encoder's outputs.
    t5.T5_CONFIGS["t5-small"] = {"config": T5Config(d_model=shape["dim"])}
    side = int(shape["num_tokens"] ** 0.5)
    # Only its number of codes and of ids counts: no picture is decoded.
    vae = VitVQGanVAE(
        dim=32,
        image_size=8 * side,
        encdec_patch_size=8,
        num_layers=1,
        vq_codebook_size=shape["num_codes"],
        use_vgg_and_gan=False,
    )
    model = Parti(
        vae=vae,
        dim=shape["dim"],
        depth=shape["decoder_layers"],
        heads=shape["heads"],
        dim_head=shape["dim"] // shape["heads"],
        t5_name="t5-small",
    ).eval()
    text = torch.randn(1, shape["text_length"], shape["dim"])
    mask = torch.ones(1, shape["text_length"], dtype=torch.bool)
    lengths = np.linspace(1, shape["num_tokens"] - 1, PREFIXES).astype(int)
    seconds = []
    for length in lengths:
        ids = torch.zeros(1, int(length), dtype=torch.long)

        def run(ids=ids):
            with torch.inference_mode():
                model.forward_with_cond_scale(
                    text_token_embeds=text,
                    text_mask=mask,
                    image_token_ids=ids,
                    cond_scale=3.0,
                )

        seconds.append(best_of(run, rounds))
    return float(np.trapezoid(seconds, lengths) / (lengths[-1] - lengths[0]))


def main(argv):
    """Runs one peer."""
    name, shape, rounds = argv
    peers = {f.__name__: f for f in (keras_hub, transformers, parti_pytorch)}
    print(peers[name.replace("-", "_")](json.loads(shape), int(rounds)))


if __name__ == "__main__":
    main(sys.argv[1:])
