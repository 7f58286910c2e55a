"""`keras-parti evaluate parti-prompts`: pictures of many prompts, and a page."""

import contextlib

from keras_parti import sampling
from keras_parti.cli.draw import TIMEOUT, serving, shipped_model
from keras_parti.evaluation.parti_prompts import read_prompts, spread
from keras_parti.evaluation.prompt_report import write_prompt_report
from keras_parti.evaluation.prompt_run import draw_prompts
from keras_parti.serving.client import Client

# What a page says of the small model that comes with the repository.
SHIPPED = (
    "This run measures throughput and resuming, not quality. The shipped model draws "
    "emoji of animals, nature, food and drink, and knows no words but those of their "
    "names: most of these prompts lie outside of what it can draw."
)


def parti_prompts(args):
    """Draws prompts and reports."""
    prompts = read_prompts(args.prompts)
    prompts = spread(prompts, args.count or len(prompts))
    options = {name: getattr(args, name) for name in sampling.DEFAULTS}
    with asked(args) as (client, model, shipped):

        def generate(texts, seed):
            return client.generate(texts, 1, seed=seed, **options)

        draw_prompts(
            generate,
            prompts,
            args.out,
            num_samples=args.num_samples,
            seed=args.seed,
            shard=args.shard,
            score=scored_by(client),
            model=model,
            options=options,
        )
    note = args.note or (SHIPPED if shipped else "")
    results = write_prompt_report(
        args.out,
        prompts,
        args.num_samples,
        against=args.against,
        keep=args.keep,
        note=note,
    )
    print((args.out / "table.md").read_text(encoding="utf-8"))
    left = results["wanted"] - results["pictures"]
    if left > 0:
        print(f"{left} pictures are not drawn yet: those of other shards.")
    print(f"Wrote {args.out / 'report.html'}")


@contextlib.contextmanager
def asked(args):
    """Opens what `--model` or `--server` names.

    Yields:
        `Client`; str, the model and its version; bool, whether it is the shipped one.
    """
    with contextlib.ExitStack() as stack:
        if args.server:
            client = Client(args.server, args.name, timeout=TIMEOUT, best=())
            stack.enter_context(client)
            ready = [v for v, state in client.status().items() if state == "AVAILABLE"]
            name, version, shipped = args.name, max(ready, default="none"), False
        else:
            print(f"Loading {args.model} ...", flush=True)
            server, client = stack.enter_context(serving(args.model))
            name, version, shipped = server.name, server.version, is_shipped(args.model)
        yield client, f"{name}, version {version}", shipped


def scored_by(client):
    """Which of `prompt_run.SCORES` the `score` of the pictures of a model is."""
    return "coca" if "score" in client.signatures() else "likelihood"


def is_shipped(model):
    """Whether a folder is the model of the repository, or a version of it."""
    with contextlib.suppress(FileNotFoundError):
        shipped = shipped_model().resolve()
        return shipped in (model.resolve(), model.resolve().parent)
    return False
