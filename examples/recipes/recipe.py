"""What the recipes share: commands with names to fill in, run or only shown."""

import argparse
import os
import shlex
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def main(doc, stages, full, quick, mock, argv=None):
    """Runs a recipe, or prints it.

    Args:
        doc: str. The recipe's docstring.
        stages: list of commands, whose names in braces are filled in, and of functions
            of the dict of values, for what no command does.
        full: dict of name to value, str or int; a value may name `{folder}` and
            `{runs}`. None makes it a folder or file that has to be given.
        quick: dict of the values that are others with `--quick`.
        mock: function of a folder that writes mock data there; the dict that it
            returns are paths, too.
        argv: list of str, or None for those of the process.

    Returns:
        int. The status of the first command that fails, else 0.
    """
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="mock data, half a minute")
    parser.add_argument("--print", action="store_true", help="only show the commands")
    parser.add_argument("--folder", help="the folder that holds the data")
    parser.add_argument("--runs", default="runs", help="where to write (default runs)")
    needed = [name for name, value in full.items() if value is None]
    for name in needed:
        parser.add_argument(f"--{name}", help="see the recipe's first lines")
    args = parser.parse_args(argv)
    missing = [n for n in ("folder", *needed) if not getattr(args, n)]
    if missing and not args.quick:
        parser.error(f"needs --quick, or --{' and --'.join(missing)}")
    paths = {name: getattr(args, name) for name in ("folder", "runs", *needed)}
    if not args.quick:
        return _run(stages, full, paths, args.print)
    with tempfile.TemporaryDirectory() as folder:
        paths = {"folder": f"{folder}/data", "runs": f"{folder}/runs"}
        if args.print:
            paths |= {name: name.upper() for name in needed}
        else:
            paths |= mock(Path(folder, "data"))
        return _run(stages, full | quick, paths, args.print)


def _run(stages, values, paths, only_print):
    from keras_parti import cli

    # Paths come after a command is divided into words: they may hold spaces.
    names = {name: "{" + name + "}" for name in paths}
    filled = {
        n: v.format(**paths) if isinstance(v, str) else v for n, v in values.items()
    }
    for stage in stages:
        if callable(stage):
            print(f"\n# {stage.__doc__.splitlines()[0].format(**filled)}", flush=True)
            if not only_print:
                stage(filled)
            continue
        words = stage.format(**(values | names)).split()
        words = [word.format(**paths) for word in words]
        print(f"\n{shlex.join(words)}", flush=True)
        if not only_print and (status := cli.main(words[1:])):
            return status
    return 0


def draw_classes(values):
    """Draws {per_class} pictures of each of {classes} classes with {exported}.

    Through a server of its own, into {drawn}; what is there is not drawn again.
    """
    from PIL import Image
    from tqdm import tqdm

    from keras_parti.serving.client import Client
    from keras_parti.serving.server import Server

    out, together = Path(values["drawn"]), min(50, values["per_class"])
    out.mkdir(parents=True, exist_ok=True)
    pairs = [
        (label, first)
        for label in range(values["classes"])
        for first in range(0, values["per_class"], together)
    ]
    with (
        Server(values["exported"], port=0, warm_up=False) as server,
        Client(server.address, model=server.name, timeout=600) as client,
    ):
        for label, first in tqdm(pairs, unit="request", disable=None):
            numbers = range(first, min(first + together, values["per_class"]))
            paths = [out / f"{label:04d}-{number:05d}.png" for number in numbers]
            if paths[-1].exists():
                continue  # drawn before the run was interrupted
            drawn = client.generate_class(
                [label], num_samples=len(paths), keep=len(paths), seed=first
            )
            for path, image in zip(paths, drawn["images"][0], strict=True):
                Image.fromarray(image).save(path)
