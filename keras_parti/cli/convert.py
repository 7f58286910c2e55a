"""`keras-parti convert`: weights of other implementations as a model folder."""

from keras_parti.models import from_enhancing_transformers

READERS = {"enhancing-transformers": from_enhancing_transformers}


def convert(args):
    """Reads a weight file and writes the model that it makes."""
    if args.out.exists() and (not args.out.is_dir() or any(args.out.iterdir())):
        raise ValueError(f"--out must be a new or empty folder. Received: {args.out}")
    print(f"Reading {args.weights} ...")
    model = READERS[args.source](args.weights, args.head_dim)
    model.save_dir(args.out)
    print(
        f"Wrote {args.out}, a ViT-VQGAN of {model.count_params():,} parameters, "
        f"whose ids are those of {model.fingerprint()}.\n{model.config}"
    )
