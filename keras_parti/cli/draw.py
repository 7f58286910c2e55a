"""`keras-parti demo`, `generate` and `serve`: from prompts to pictures."""

import contextlib
import logging
import signal
import tempfile
import time
from pathlib import Path

import numpy as np
from tqdm import tqdm

import keras_parti
from keras_parti import sampling
from keras_parti.evaluation.gallery import grid
from keras_parti.files import check_writable
from keras_parti.serving.client import Client
from keras_parti.serving.rows import ROWS_PER_REQUEST
from keras_parti.serving.server import Server

# One thing in three styles and another colour; then other things.
DEMO_PROMPTS = (
    "red apple in google style",
    "red apple in twitter style",
    "red apple in fluent style",
    "green apple in fluent style",
    "fox face in google style",
    "octopus in twitter style",
    "hamburger in fluent style",
    "sunflower in twitter style",
)
# The shipped model draws what it knows best without guidance: at 1.5 there are specks.
DEMO_GUIDANCE_SCALE = 1.0
# Fewer accidents at the borders, which CoCa does not see.
DEMO_TEMPERATURE = 0.5
DEMO_SIZE = 128  # pixels a side: twice what the model draws
TIMEOUT = 600.0  # seconds a request may take, on a slow machine
MAX_CAPTION = 60  # characters of a prompt that are printed


def demo(args):
    """Draws pictures with the shipped model, through a server of its own."""
    check_writable(args.out)
    model, begun = shipped_model(), time.monotonic()
    prompts = list(args.prompts)
    num_samples, keep = sampling.NUM_SAMPLES, sampling.KEEP
    if not prompts:
        prompts, num_samples, keep = list(DEMO_PROMPTS), 8, 1
    print(f"Starting a gRPC server with {model} ...", flush=True)
    with serving(model) as (server, client):
        print(
            f"Serving {server.name}, version {server.version}, on {server.address} "
            f"after {time.monotonic() - begun:.0f} s."
        )
        drawn = ask(
            client,
            prompts,
            num_samples,
            keep,
            seed=args.seed,
            guidance_scale=DEMO_GUIDANCE_SCALE,
            temperature=DEMO_TEMPERATURE,
            size=DEMO_SIZE,
        )
    report(prompts, drawn)
    save(prompts, drawn, args.out, columns=4)
    print(f"Done in {time.monotonic() - begun:.0f} s. The pictures are in:")
    print(args.out.resolve())


def generate(args):
    """Draws pictures of prompts and writes them as a grid."""
    check_writable(args.out)
    keep = sampling.check_counts(args.num_samples, args.keep)
    options = {name: getattr(args, name) for name in sampling.DEFAULTS}
    with contextlib.ExitStack() as stack:
        if args.server:
            client = Client(args.server, args.name, timeout=TIMEOUT, best=())
            stack.enter_context(client)
        else:
            print(f"Loading {args.model} ...", flush=True)
            _, client = stack.enter_context(serving(args.model))
        drawn = ask(
            client,
            args.prompts,
            args.num_samples,
            keep,
            seed=args.seed,
            size=args.size,
            **options,
        )
    report(args.prompts, drawn)
    columns = keep if keep > 1 else None
    save(args.prompts, drawn, args.out, columns)
    print(f"Wrote {args.out}")


def serve(args):
    """Serves models until Ctrl-C or SIGTERM."""
    if (args.model is None) == (args.config is None):
        raise ValueError("serve needs either DIR or --config FILE.")
    server = Server(
        args.model,
        args.name,
        args.port,
        args.host,
        rest_port=args.rest_port,
        page=args.page,
        rest_timeout=args.rest_timeout,
        config=args.config,
        queue=args.queue,
        batch_rows=args.batch_rows,
        warm_up=not args.no_warm_up,
    )
    how = "" if args.no_warm_up else ", and warming up: a minute or more"
    print(f"Loading {args.model or args.config}{how} ...", flush=True)
    logging.getLogger("keras_parti.serving.servable").setLevel(logging.INFO)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        # `wait` ends on a signal; the suppression is for one that comes before it.
        with server, contextlib.suppress(KeyboardInterrupt):
            for model in server.models:
                versions = ", ".join(map(str, model.available))
                print(f"Serving {model.name}, version {versions}.")
            print(f"gRPC: {server.address}   REST: http://{server.rest_address}")
            if args.page:
                print(f"Page: http://{server.rest_address}/")
            # From here on versions come and go by themselves.
            logging.getLogger("keras_parti.serving.versions").setLevel(logging.INFO)
            print(f"Try: {example(server)}", flush=True)
            server.wait()
    finally:
        signal.signal(signal.SIGTERM, before)
    print("Stopped.")


def example(server):
    """Returns a command that has the first model of a server draw.

    A prompt that it has learned: of a model of other pictures than our emoji, by its
    card, nobody knows one here.
    """
    model = next(iter(server.models))
    with model.lease() as servable:
        if "generate_class" in servable.signatures:
            request = (
                '{"signature_name": "generate_class", "instances": [{"label": 0}]}'
            )
            where = f"http://{server.rest_address}/v1/models/{model.name}:predict"
            return f"curl -d '{request}' {where}"
    card = model.folder / str(server.version) / "card.md"
    known = card.is_file() and "emoji_captions" in card.read_text(encoding="utf-8")
    return (
        f'keras-parti generate "{DEMO_PROMPTS[0] if known else "YOUR PROMPT"}" '
        f"--server {server.address} --name {model.name} --out picture.png"
    )


def shipped_model():
    """Returns the folder of the model that comes with the repository.

    Raises:
        FileNotFoundError: It is not there.
    """
    roots = [Path(keras_parti.__file__).parents[1], Path.cwd()]
    folders = [root / "saved_models" / "emoji" for root in roots]
    for folder in folders:
        if folder.is_dir():
            return folder
    raise FileNotFoundError(
        f"There is no shipped model at {folders[0]}. It comes with the repository: run "
        "`keras-parti demo` inside a clone of it, or draw with a model of your own: "
        "`keras-parti generate PROMPT --model DIR --out FILE.png`."
    )


@contextlib.contextmanager
def serving(model):
    """Serves a model on a free port of the loopback, and a client of it.

    Args:
        model: path of a folder of versions, or of a single version.

    Yields:
        `Server` and `Client`.
    """
    with contextlib.ExitStack() as stack:
        model = model.resolve()
        name = model.name
        if (model / "saved_model.pb").is_file():
            # Servers read folders of versions; here is one with this version alone.
            version = name if name.isdecimal() else "1"
            name = model.parent.name
            alone = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            (alone / version).symlink_to(model, target_is_directory=True)
            model = alone
        # Whoever asks is the only client, and pays first-time costs only where it asks.
        server = stack.enter_context(Server(model, name=name, port=0, warm_up=False))
        client = Client(server.address, server.name, timeout=TIMEOUT, best=())
        yield server, stack.enter_context(client)


def ask(client, prompts, num_samples, keep, **options):
    """Draws pictures of all prompts; says what, and how far it is.

    Args:
        client: `Client`.
        prompts: list of str.
        num_samples: int.
        keep: int.
        **options: as `Client.generate` takes them.

    Returns:
        What `Client.generate` returns.
    """
    each = f" for each of {len(prompts)} prompts" if len(prompts) > 1 else ""
    print(f"Drawing the best {keep} of {num_samples} pictures{each} ...", flush=True)
    together = max(1, ROWS_PER_REQUEST // num_samples)
    parts = []
    with tqdm(total=len(prompts), unit="prompt", disable=None) as bar:
        for start in range(0, len(prompts), together):
            some = prompts[start : start + together]
            parts.append(client.generate(some, num_samples, keep, **options))
            bar.update(len(some))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def report(prompts, drawn):
    """Prints the scores of the pictures, and which prompts were cut."""
    print("Scores, by which pictures are ranked; higher is better:")
    for row, prompt in enumerate(prompts):
        scores = " ".join(f"{score:6.2f}" for score in drawn["score"][row])
        print(f"  {scores}  {short(prompt)}")
        if drawn["truncated"][row]:
            count = drawn["prompt_tokens"][row]
            print(
                f"          its {count:,} tokens are more than the model reads: the "
                "end was cut off"
            )


def save(prompts, drawn, path, columns=None):
    """Writes pictures of prompts as one grid, captioned."""
    images = drawn["images"]  # (prompts, keep, height, width, 3)
    keep = images.shape[1]
    captions = [prompt or "(no prompt)" for prompt in prompts for _ in range(keep)]
    page = grid(images.reshape(-1, *images.shape[2:]), columns, captions)
    page.save(path)


def short(prompt):
    """Returns a prompt as one short line."""
    line = " ".join(prompt.split()) or "(no prompt)"
    return line if len(line) <= MAX_CAPTION else line[: MAX_CAPTION - 1] + "…"
