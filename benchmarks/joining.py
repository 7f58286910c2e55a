"""What joining the requests of several clients into one run is worth.

    python benchmarks/joining.py            # about five minutes on two idle cores
    python benchmarks/joining.py --quick    # a try of three, with figures of noise

Eight clients ask for one picture after another. The same requests go, in turn and in
several rounds, to the bare SavedModel in eight threads of this process, to a server
that joins none, and to one that joins them. All pictures must be the same.
"""

import concurrent.futures
import contextlib
import statistics
import sys

from load import Bare, Served, draw, parse, parser_of, same, seconds
from tqdm import tqdm


def main(argv=None):
    """Prints the table; returns 0 if all pictures are the same."""
    parser = parser_of(__doc__)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--requests", type=int, default=8, help="of a client, a round")
    parser.add_argument("--rounds", type=int, default=3)
    args = parse(parser, argv, rounds=1)
    count = args.clients * args.requests
    numbers = [range(i, count, args.clients) for i in range(args.clients)]
    bar = tqdm(total=3 * args.rounds * count, disable=None)

    with contextlib.ExitStack() as stack:
        bare = Bare(args.model)
        bare.prepare(("generate", draw(1, 0), False))()  # the first takes longer
        sides = {"the bare SavedModel": lambda number, key: bare.prepare(key)()}
        for name, batch_rows in (("served, one by one", 0), ("served, joined", 16)):
            server = stack.enter_context(Served(args.model, batch_rows))
            clients = [server.client() for _ in range(args.clients)]
            sides[name] = lambda number, key, s=server, c=clients: s.ask(c[number], key)
        pool = stack.enter_context(concurrent.futures.ThreadPoolExecutor(args.clients))

        def turn(side, first):
            """What one client asks for in a round."""
            answers = []
            for i in numbers[first]:
                answers.append(side(first, ("generate", draw(1, i), False)))
                bar.update()
            return dict(zip(numbers[first], answers, strict=True))

        drawn, took = {}, {name: [] for name in sides}
        for _ in range(args.rounds):
            for name, side in sides.items():

                def everything(name=name, side=side):
                    found = pool.map(turn, [side] * args.clients, range(args.clients))
                    drawn[name] = {k: v for part in found for k, v in part.items()}

                took[name].append(seconds(everything))
    bar.close()
    plain, single, joined = took.values()
    first = drawn["the bare SavedModel"]
    equal = [all(same(some[i], first[i]) for some in drawn.values()) for i in first]
    print(f"\n| {args.clients} clients | pictures a second |\n| --- | ---: |")
    for name, values in took.items():
        print(f"| {name} | {count / statistics.median(values):.2f} |")
    gain = statistics.median(a / b for a, b in zip(single, joined, strict=True))
    cost = statistics.median(b / a for a, b in zip(plain, single, strict=True))
    print(
        f"\nJoined is {gain:.2f} times as fast as one by one, which takes {cost:.3f} "
        f"times as long as the bare SavedModel; {sum(equal)} of {count} pictures are "
        "the same from all three."
    )
    return int(not all(equal))


if __name__ == "__main__":
    sys.exit(main())
