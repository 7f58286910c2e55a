"""Loads a server with mixed requests of many clients at once, and checks every answer.

    python benchmarks/load.py            # about ten minutes on two idle cores
    python benchmarks/load.py --quick    # a try of two minutes, with figures of noise

The embedded server runs in a process of its own, at its defaults. Of each request it is
known what the server answers a single client, refusals included; under load every
answer must be that one. Then the bare SavedModel, in this process, and the server do
the same requests in turn, one at a time. Prints Markdown tables: latencies under load,
memory over it, and what serving costs. What joining requests is worth and what first
requests cost is measured by `joining.py` and `cold_start.py`.
"""

import argparse
import base64
import collections
import concurrent.futures
import contextlib
import json
import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import psutil
from tqdm import tqdm

SHIPPED = Path(__file__).parents[1] / "saved_models" / "emoji"
TIMEOUT = 1800.0  # seconds; under load a request waits for many others
PROMPTS = [
    f"{thing} in {style} style"
    for thing in ("red apple", "fox face", "octopus", "hamburger", "")
    for style in ("google", "twitter", "fluent")
]
# Of 1,000 requests, so many of each kind.
MIX = {
    "generate": 410,
    "generate, 4 rows": 30,
    "generate over REST": 50,
    "generate_best": 50,
    "encode": 200,
    "decode": 200,
    "status": 40,
    "a wrong request": 20,
}
SCRIPT = """
import sys
from keras_parti.serving.server import Server
model, batch_rows = sys.argv[1:]
options = {"batch_rows": int(batch_rows), "rest_timeout": 1800.0}
with Server(model, port=0, rest_port=0, **options) as server:
    print(server.name, server.address, server.rest_port, flush=True)
    server.wait()
"""


class Served:
    """A server in a process of its own; `with` waits until it is ready."""

    def __init__(self, model, batch_rows=16):
        self.command = [sys.executable, "-c", SCRIPT, str(model), str(batch_rows)]

    def __enter__(self):
        begun = time.perf_counter()
        self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE, text=True)
        self.name, self.address, self.rest_port = self.process.stdout.readline().split()
        self.seconds = time.perf_counter() - begun
        self.clients = contextlib.ExitStack()
        return self

    def __exit__(self, *_):
        self.clients.close()
        self.process.terminate()
        self.process.communicate()

    def client(self):
        """A connected client that repeats nothing, so that what is refused is seen."""
        from keras_parti.serving.client import Client

        client = Client(self.address, self.name, timeout=TIMEOUT, retries=0)
        client.status()
        return self.clients.enter_context(client)

    def ask(self, client, request):
        """Sends a request; returns a dict of what came back, also of a refusal."""
        signature, columns, over_rest = request
        try:
            if signature == "status":
                return {"status": np.array(list(client.status().values()))}
            if over_rest:
                return self.ask_rest(signature, columns)
            return client.predict(signature, columns)
        except urllib.error.HTTPError as error:
            return {"code": error.code, "refused": json.load(error)["error"]}
        except (ValueError, OSError) as error:
            code = error
            while not hasattr(code, "code"):
                code = code.__cause__
            return {"code": code.code().name, "refused": str(error)}

    def ask_rest(self, signature, columns):
        """The same over REST, as the page asks."""
        inputs = {n: [_json(v) for v in column] for n, column in columns.items()}
        document = {"signature_name": signature, "inputs": inputs}
        url = f"http://127.0.0.1:{self.rest_port}/v1/models/{self.name}:predict"
        request = urllib.request.Request(url, json.dumps(document).encode())
        with urllib.request.urlopen(request, timeout=TIMEOUT) as reply:
            outputs = json.load(reply)["outputs"]
        return {
            name: np.array([base64.b64decode(v["b64"]) for v in values], object)
            if name.endswith("_bytes")
            else np.array(values)
            for name, values in outputs.items()
        }


class Bare:
    """The newest version of the SavedModel, called in this process."""

    def __init__(self, model):
        import tensorflow as tf
        import tensorflow_text  # noqa: F401  registers the ops of string signatures

        self.constant = tf.constant
        versions = [p for p in Path(model).iterdir() if p.name.isdecimal()]
        newest = max(versions, key=lambda p: int(p.name))
        self.signatures = tf.saved_model.load(str(newest)).signatures

    def prepare(self, request):
        """A function that does a request, its inputs being tensors already."""
        signature, columns, _ = request
        run = self.signatures[signature]
        specs = run.structured_input_signature[1]
        inputs = {n: self.constant(c, specs[n].dtype) for n, c in columns.items()}
        return lambda: {n: value.numpy() for n, value in run(**inputs).items()}


def _json(value):
    return value.decode() if isinstance(value, bytes) else np.asarray(value).item()


def draw(rows, number, guidance_scale=None):
    """Columns of `rows` prompts, the same for the same number."""
    from keras_parti import sampling
    from keras_parti.serving.rows import draw_columns

    texts = [PROMPTS[(number + j) % len(PROMPTS)].encode() for j in range(rows)]
    scale = guidance_scale or [1.0, 1.5][number % 2]
    options = sampling.DEFAULTS | {"guidance_scale": scale}
    return draw_columns(texts, [100 * number + j for j in range(rows)], options)


def distinct(pictures, ids):
    """A few different requests of each kind, as (signature, columns, over REST)."""
    files, wrong = np.array(pictures, object), draw(1, 3, guidance_scale=31.0)
    return {
        "generate": [("generate", draw(1, n), False) for n in range(12)],
        "generate, 4 rows": [("generate", draw(4, n), False) for n in range(20, 24)],
        "generate over REST": [("generate", draw(1, n), True) for n in range(6)],
        "generate_best": [("generate_best", draw(1, n), False) for n in range(4)],
        "encode": [
            ("encode", {"image_bytes": files[n : n + 1]}, False) for n in range(8)
        ],
        "decode": [("decode", {"ids": ids[n : n + 1]}, False) for n in range(8)],
        "status": [("status", {}, False)],
        "a wrong request": [
            ("generate", wrong, False),
            ("generate", wrong, True),
            ("encode", {"image_bytes": np.array([b"no picture"], object)}, False),
            ("paint", draw(1, 0), False),
        ],
    }


def same(answer, expected):
    """Whether two answers are equal; sums of scores may end in other last digits."""
    return answer.keys() == expected.keys() and all(
        np.allclose(answer[name], expected[name], atol=1e-4)
        if name == "score"
        else np.array_equal(answer[name], expected[name])
        for name in expected
    )


def seconds(function):
    """What a call takes."""
    begun = time.perf_counter()
    function()
    return time.perf_counter() - begun


class Memory(threading.Thread):
    """Watches the resident memory of a process, in MB."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.process, self.seen, self.ended = psutil.Process(pid), [], False

    def run(self):
        """Runs until `ended`."""
        while not self.ended:
            self.seen.append(self.process.memory_info().rss / 1e6)
            time.sleep(0.2)


def queue_of(requests, num_requests):
    """Which requests are sent, in a shuffled order: pairs of a kind and a number."""
    queue = [
        (kind, i % len(requests[kind]))
        for kind, count in MIX.items()
        for i in range(max(round(count * num_requests / 1000), 1))
    ]
    order = np.random.default_rng(0).permutation(len(queue))
    return [queue[i] for i in order]


def load(server, requests, queue, num_clients):
    """Sends the queue by many clients; prints what came back, and how fast.

    Returns:
        The seconds it took, and the number of requests that were answered otherwise
        than a single client is.
    """
    client = server.client()
    expected = {
        (kind, n): server.ask(client, request)
        for kind, some in tqdm(requests.items(), desc="alone", disable=None)
        for n, request in enumerate(some)
    }
    clients = [server.client() for _ in range(num_clients)]
    free, lock = list(clients), threading.Lock()
    waits, wrong = collections.defaultdict(list), []
    refused = collections.Counter()
    bar = tqdm(total=len(queue), desc="load", disable=None)

    def ask(key):
        with lock:
            mine = free.pop()
        begun = time.perf_counter()
        answer = server.ask(mine, requests[key[0]][key[1]])
        took = time.perf_counter() - begun
        right = same(answer, expected[key])
        with lock:
            free.append(mine)
            bar.update()
            waits[key[0]].append(took)
            if "refused" in answer:
                refused[answer["code"]] += 1
            if not right:
                wrong.append((key, answer.get("refused", "another answer")))

    memory = Memory(server.process.pid)
    memory.start()
    begun = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(num_clients) as pool:
        list(pool.map(ask, queue))
    took = time.perf_counter() - begun
    memory.ended = True
    memory.join()
    bar.close()
    came = sum(map(len, waits.values()))
    codes = ", ".join(f"{n} with {code}" for code, n in refused.items())
    print(
        f"\n{len(queue)} requests of {num_clients} clients in {took:.0f} s, "
        f"{came / took:.2f} a second: {len(queue) - came} lost, {len(wrong)} other "
        f"than for a single client. Refused, as they should be: {codes}."
    )
    for key, words in wrong:
        print(f"- wrong: {key}: {words}")
    print("\n| request | count | p50 (s) | p95 (s) | p99 (s) |")
    print("| --- | ---: | ---: | ---: | ---: |")
    everything = {"all": [wait for some in waits.values() for wait in some]}
    for kind in ("all", *MIX):
        values = (everything | waits)[kind]
        print(f"| {kind} | {len(values)} | {points(values, 2)} |")
    quarters = np.array_split(np.array(memory.seen), 4)
    middle = " | ".join(f"{np.median(quarter):.0f}" for quarter in quarters)
    print("\n| memory of the server (MB) | 1st quarter | 2nd | 3rd | 4th | peak |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    print(f"| resident, median | {middle} | {max(memory.seen):.0f} |")
    return took, len(wrong)


def points(values, digits):
    """Three percentiles as cells of a table."""
    return " | ".join(f"{p:.{digits}f}" for p in np.percentile(values, [50, 95, 99]))


def overhead(server, bare, requests, queue):
    """Server and bare SavedModel do the same requests in turn, one at a time.

    Returns:
        The seconds of the SavedModel, a dict from kind to list.
    """
    client, sides = server.client(), {}
    run = {
        (kind, n): bare.prepare(request)
        for kind, some in requests.items()
        for n, request in enumerate(some)
        if kind not in ("status", "a wrong request")
    }
    queue = [key for key in queue if key in run]
    for key in dict.fromkeys(queue):
        answer = server.ask(client, requests[key[0]][key[1]])
        assert same(answer, run[key]()), f"{key}: served and bare differ"
    for number, key in enumerate(tqdm(queue, desc="overhead", disable=None)):
        request = requests[key[0]][key[1]]
        calls = [run[key], lambda r=request: server.ask(client, r)]
        took = {}
        for side in (0, 1) if number % 2 else (1, 0):
            took[side] = seconds(calls[side])
        sides.setdefault(key[0], []).append((took[0], took[1]))
    sides = {kind: np.array(pairs).T for kind, pairs in sides.items()}
    every = np.concatenate(list(sides.values()), axis=1)
    plain, served = every.sum(axis=1)
    percent = 100 * served / plain - 100
    print(
        f"\nThe same {len(queue)} requests one at a time: bare SavedModel "
        f"{plain:.1f} s, served {served:.1f} s; overhead {percent:.1f} %.\n"
    )
    print("| one at a time | count | p50 (s) | p95 (s) | p99 (s) | overhead |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for name, side in (("bare", every[0]), ("served", every[1])):
        print(f"| all, {name} | {len(side)} | {points(side, 3)} | |")
    for kind in (kind for kind in MIX if kind in sides):
        one, other = sides[kind]
        percent = 100 * np.median(other) / np.median(one) - 100
        for name, side, cell in (("bare", one, ""), ("served", other, percent)):
            cell = cell and f"{cell:.1f} %"
            print(f"| {kind}, {name} | {len(side)} | {points(side, 4)} | {cell} |")
    return {kind: one for kind, (one, _) in sides.items()}


def parser_of(description):
    """A parser that shows a module's docstring."""
    return argparse.ArgumentParser(
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def parse(parser, argv, **quick):
    """Reads the arguments, and those that all benchmarks of the server take.

    Args:
        parser: `argparse.ArgumentParser`.
        argv: list of str, or None for those of the process.
        **quick: what `--quick` changes.
    """
    words = ", ".join(f"{value} {name}" for name, value in quick.items())
    parser.add_argument("--model", type=Path, default=SHIPPED, help="exported model")
    parser.add_argument("--quick", action="store_true", help=f"a try: {words}")
    args = parser.parse_args(argv)
    if args.quick:
        vars(args).update(quick)
    return args


def main(argv=None):
    """Prints the tables; returns 0 if every answer was right."""
    parser = parser_of(__doc__)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--alone", type=int, default=200, help="of these, in turn")
    parser.add_argument("--clients", type=int, default=32)
    args = parse(parser, argv, requests=60, alone=30)
    with Served(args.model) as server:
        client = server.client()
        drawn = client.predict("generate", draw(8, 500))
        requests = distinct(drawn["image_bytes"], drawn["ids"])
        queue = queue_of(requests, args.requests)
        took, wrong = load(server, requests, queue, args.clients)
        few = queue_of(requests, args.alone)
        alone = overhead(server, Bare(args.model), requests, few)
    counts = collections.Counter(kind for kind, _ in queue)
    total = sum(counts[kind] * np.mean(values) for kind, values in alone.items())
    print(
        f"\nFor all requests of the load, one after another, the bare SavedModel would "
        f"take {total:.0f} s; {args.clients} clients at once were served in {took:.0f}."
    )
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
