"""What joining the requests of several clients into one run is worth.

    python benchmarks/joining.py            # about seven minutes on two idle cores
    python benchmarks/joining.py --quick    # a try of three, with figures of noise

Eight clients ask for one picture after another. The same requests go, in turn and in
several rounds, to the bare SavedModel in eight threads of this process, to a server
that joins none, and to one that joins them: all without guidance, all with it, and half
of each. All pictures must be the same.
"""

import concurrent.futures
import contextlib
import functools
import statistics
import sys

from load import Bare, Served, draw, parse, parser_of, same, seconds
from tqdm import tqdm

# Guidance scales of every other request. A joined run computes the unconditional half
# for all of its rows if one of them is guided.
MIXES = {
    "without guidance": (1.0, 1.0),
    "with guidance": (1.5, 1.5),
    "half of each": (1.0, 1.5),
}


def main(argv=None):
    """Prints the table; returns 0 if all pictures are the same."""
    parser = parser_of(__doc__)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--requests", type=int, default=10, help="of a client, a round")
    parser.add_argument("--rounds", type=int, default=1)
    args = parse(parser, argv, requests=3)
    count = args.clients * args.requests
    numbers = [range(i, count, args.clients) for i in range(args.clients)]
    bar = tqdm(total=3 * len(MIXES) * args.rounds * count, disable=None)

    with contextlib.ExitStack() as stack:
        bare = Bare(args.model)
        for scale in (1.0, 1.5):  # the first takes longer
            bare.prepare(("generate", draw(1, 0, scale), False))()
        sides = {"the bare SavedModel": lambda number, key: bare.prepare(key)()}
        for name, batch_rows in (("one by one", 0), ("joined", 16)):
            server = stack.enter_context(Served(args.model, batch_rows))
            clients = [server.client() for _ in range(args.clients)]
            sides[name] = lambda number, key, s=server, c=clients: s.ask(c[number], key)
        pool = stack.enter_context(concurrent.futures.ThreadPoolExecutor(args.clients))

        def turn(side, scales, first):
            """What one client asks for in a round."""
            answers = []
            for i in numbers[first]:
                columns = draw(1, i, scales[i % 2])
                answers.append(side(first, ("generate", columns, False)))
                bar.update()
            return dict(zip(numbers[first], answers, strict=True))

        def measure(scales):
            """Pictures a second of each side, and how many are the same from all."""
            drawn, took = {}, {name: [] for name in sides}
            for _ in range(args.rounds):
                for name, side in sides.items():

                    def everything(name=name, side=side):
                        ask = functools.partial(turn, side, scales)
                        parts = pool.map(ask, range(args.clients))
                        drawn[name] = {k: v for part in parts for k, v in part.items()}

                    took[name].append(seconds(everything))
            first = drawn["the bare SavedModel"]
            equal = [all(same(d[i], first[i]) for d in drawn.values()) for i in first]
            return took, sum(equal)

        found = {name: measure(scales) for name, scales in MIXES.items()}
    bar.close()
    print(
        f"\n| {args.clients} clients, pictures a second | {' | '.join(sides)} | "
        "joined to one by one | same pictures |"
    )
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for name, (took, equal) in found.items():
        rates = [f"{count / statistics.median(t):.2f}" for t in took.values()]
        _, single, joined = took.values()
        gain = statistics.median(a / b for a, b in zip(single, joined, strict=True))
        print(f"| {name} | {' | '.join(rates)} | {gain:.2f} | {equal} of {count} |")
    return int(any(equal < count for _, equal in found.values()))


if __name__ == "__main__":
    sys.exit(main())
