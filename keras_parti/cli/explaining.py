"""`keras-parti explain`: one page about one prompt."""

import contextlib
from pathlib import Path

from keras_parti import sampling
from keras_parti.cli.prompts import asked
from keras_parti.evaluation.explain import explain_page
from keras_parti.files import check_writable


def explain(args):
    """Draws the samples of a prompt, and what can be said of them."""
    check_writable(args.out)
    options = {name: getattr(args, name) for name in sampling.DEFAULTS}
    counts = {"num_samples": args.num_samples, "keep": args.num_samples}
    chain = None
    with contextlib.ExitStack() as stack:
        if args.parts:
            chain = source = load_parts(args.parts)
        else:
            source, _, _ = stack.enter_context(asked(args))
        drawn = source.generate([args.prompt], seed=args.seed, **counts, **options)
    page = explain_page(args.prompt, drawn, chain)
    page.save(args.out)
    if chain is None:
        print(
            "Probabilities of tokens and attention of words are left out: a SavedModel "
            "does not give them. Name its Keras parts with --parts DIR."
        )
    print(f"Wrote {args.out}")


def load_parts(path):
    """Reads a folder of Keras parts.

    Raises:
        ValueError: it is an exported SavedModel.
        FileNotFoundError: a part is missing.
    """
    from keras_parti.models import TextToImage

    path = Path(path)
    if (path / "saved_model.pb").is_file() or list(path.glob("*/saved_model.pb")):
        raise ValueError(
            f"{path} is an exported SavedModel, which gives no probabilities of tokens "
            "and no attention: --parts takes a folder of Keras parts, with tokenizer/, "
            "parti/ and vocabulary.model, as `TextToImage.save` writes it."
        )
    return TextToImage.load(path)
