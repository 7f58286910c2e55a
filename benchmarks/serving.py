"""Times the shipped model as a user meets it: ready, first picture, 16 samples.

    python benchmarks/serving.py

It starts the embedded server on a free port of the loopback and asks it by the client.
Prints a Markdown table; figures are seconds, the median of `--rounds` but for those
that happen once.
"""

import argparse
import os
import statistics
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

SHIPPED = Path(__file__).parents[1] / "saved_models" / "emoji"
PROMPT = "red apple in google style"


def seconds(function):
    """Runs a function and returns what it took, in seconds."""
    begun = time.perf_counter()
    function()
    return time.perf_counter() - begun


def main(argv=None):
    """Prints the table; returns its rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=SHIPPED, help="exported model")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args(argv)

    from keras_parti.serving.client import Client
    from keras_parti.serving.server import Server

    begun = time.perf_counter()
    with (
        Server(args.model, port=0) as server,
        Client(server.address, server.name, best=()) as client,
    ):
        rows = {"start to ready, warm-up included": time.perf_counter() - begun}
        rows["first picture after ready"] = seconds(
            lambda: client.generate([PROMPT], 1)
        )
        for name, prompts, num_samples in (
            ("one picture", 1, 1),
            ("16 samples of a prompt", 1, 16),
            ("8 prompts, one picture each", 8, 1),
        ):
            rows[name] = statistics.median(
                seconds(
                    lambda p=prompts, n=num_samples, s=seed: client.generate(
                        [PROMPT] * p, num_samples=n, seed=s
                    )
                )
                for seed in range(args.rounds)
            )
        image = client.generate([PROMPT], 1)["images"][0]
        rows["encode a picture"] = statistics.median(
            seconds(lambda: client.encode(image)) for _ in range(args.rounds)
        )
    print("| what | seconds |\n| --- | ---: |")
    for name, value in rows.items():
        print(f"| {name} | {value:.2f} |")
    return rows


if __name__ == "__main__":
    main()
