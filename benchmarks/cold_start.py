"""Whether the first request of each kind after readiness is as fast as those after it.

    python benchmarks/cold_start.py            # about fifteen minutes on two idle cores
    python benchmarks/cold_start.py --quick    # a try of five, with figures of noise

Starts a server, waits until it is ready, and asks for each signature at each number of
rows that its model was warmed up for, with guidance and without, first once and then
again. What another program on the machine costs shows in one start, a first-time cost
in all: so of the first requests of several starts the fastest counts.
"""

import functools
import statistics
import sys
from pathlib import Path

from load import Served, draw, parse, parser_of, seconds
from tqdm import tqdm


def kinds(model):
    """What the newest version is warmed up with, drawn with guidance and without.

    Returns:
        A dict from (signature, rows, guidance scale) to columns.
    """
    import tensorflow as tf
    from tensorflow_serving.apis import prediction_log_pb2

    paths = Path(model).glob("*/assets.extra/tf_serving_warmup_requests")
    path = max(paths, key=lambda p: int(p.parents[1].name))
    found = {}
    for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
        log = prediction_log_pb2.PredictionLog.FromString(record)
        request = log.predict_log.request
        columns = {n: tf.make_ndarray(proto) for n, proto in request.inputs.items()}
        signature = request.model_spec.signature_name
        rows = len(next(iter(columns.values())))
        if "guidance_scale" not in columns:
            found[signature, rows, None] = columns
            continue
        for scale in (1.0, 1.5):
            found[signature, rows, scale] = draw(rows, rows, scale)
    return found


def main(argv=None):
    """Prints the table; returns 0 if no first request takes twice its median."""
    parser = parser_of(__doc__)
    parser.add_argument("--starts", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3, help="of the later requests")
    args = parse(parser, argv, starts=1, rounds=1)
    wanted, ready = kinds(args.model), []
    first = {key: [] for key in wanted}
    later = {key: [] for key in wanted}
    calls = args.starts * (1 + args.rounds) * len(wanted)
    bar = tqdm(total=calls, disable=None)
    for _ in range(args.starts):
        with Served(args.model) as server:
            ready.append(server.seconds)
            ask = server.client().predict
            for number in range(1 + args.rounds):
                for key, columns in wanted.items():
                    took = seconds(functools.partial(ask, key[0], columns))
                    (later if number else first)[key].append(took)
                    bar.update()
    bar.close()
    print(f"\nReady after {statistics.median(ready):.1f} s.\n")
    print("| signature | rows | guidance | first (s) | later, median (s) | ratio |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    worst = 0.0
    for key in wanted:
        signature, rows, scale = key
        low, median = min(first[key]), statistics.median(later[key])
        worst = max(worst, low / median)
        print(
            f"| {signature} | {rows} | {scale or ''} | {low:.3f} | {median:.3f} | "
            f"{low / median:.2f} |"
        )
    print(f"\nNo first request takes more than {worst:.2f} times the median.")
    return int(worst > 2)


if __name__ == "__main__":
    sys.exit(main())
