"""Loads a server with mixed requests of many clients at once, and checks every answer.

    python benchmarks/load.py                  # some ten minutes on two cores
    python benchmarks/load.py --requests 60    # a try

The embedded server runs in a process of its own. Each answer under load must be that
of the same request asked alone. Prints four Markdown tables: the load, memory over it,
the cost of serving beside the bare SavedModel, what joining requests is worth at eight
clients, and the first request of each size beside those that follow.
"""

import argparse
import base64
import collections
import concurrent.futures
import contextlib
import json
import os
import statistics
import subprocess
import sys
import threading
import time
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
    "generate": 420,
    "generate, 4 rows": 30,
    "generate over REST": 50,
    "generate_best": 50,
    "encode": 200,
    "decode": 200,
    "status": 50,
}
SCRIPT = """
import sys
from keras_parti.serving.server import Server
model, batch_rows = sys.argv[1:]
with Server(model, port=0, rest_port=0, batch_rows=int(batch_rows)) as server:
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
        """A client that repeats nothing, so that what is refused is seen."""
        from keras_parti.serving.client import Client

        client = Client(self.address, self.name, timeout=TIMEOUT, retries=0)
        return self.clients.enter_context(client)

    def ask(self, client, request):
        """Sends a request; returns a dict of what came back."""
        signature, columns, over_rest = request
        if signature == "status":
            return {"status": np.array(list(client.status().values()))}
        if over_rest:
            return self.ask_rest(signature, columns)
        return client.predict(signature, columns)

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


def _json(value):
    return value.decode() if isinstance(value, bytes) else np.asarray(value).item()


def draw(rows, number):
    """Columns of `rows` prompts, the same for the same number."""
    from keras_parti import sampling
    from keras_parti.serving.rows import draw_columns

    texts = [PROMPTS[(number + j) % len(PROMPTS)].encode() for j in range(rows)]
    options = sampling.DEFAULTS | {"guidance_scale": [1.0, 3.0][number % 2]}
    return draw_columns(texts, [100 * number + j for j in range(rows)], options)


def distinct(ids_of_model, pictures):
    """A few different requests of each kind, as (signature, columns, over REST)."""
    files = np.array(pictures, object)
    return {
        "generate": [("generate", draw(1, n), False) for n in range(12)],
        "generate, 4 rows": [("generate", draw(4, n), False) for n in range(20, 24)],
        "generate over REST": [("generate", draw(1, n), True) for n in range(6)],
        "generate_best": [("generate_best", draw(1, n), False) for n in range(4)],
        "encode": [
            ("encode", {"image_bytes": files[n : n + 1]}, False) for n in range(8)
        ],
        "decode": [
            ("decode", {"ids": ids_of_model[n : n + 1]}, False) for n in range(8)
        ],
        "status": [("status", {}, False)],
    }


def same(answer, expected):
    """Whether two answers are equal; sums of scores may end in other last digits."""
    return answer.keys() == expected.keys() and all(
        np.allclose(answer[name], expected[name], atol=1e-4)
        if name == "score"
        else np.array_equal(answer[name], expected[name])
        for name in expected
    )


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


def load(server, requests, num_requests, num_clients):
    """All requests at once, shuffled; returns a dict of what is to be told."""
    client = server.client()
    expected = {
        (kind, n): server.ask(client, request)
        for kind, some in tqdm(requests.items(), desc="alone", disable=None)
        for n, request in enumerate(some)
    }
    counts = {kind: max(round(n * num_requests / 1000), 1) for kind, n in MIX.items()}
    queue = [
        (kind, i % len(requests[kind])) for kind, n in counts.items() for i in range(n)
    ]
    np.random.default_rng(0).shuffle(queue)
    queue = [(kind, int(n)) for kind, n in queue]
    waits, wrong, refused = collections.defaultdict(list), [], []
    clients = [server.client() for _ in range(num_clients)]
    free, lock = list(clients), threading.Lock()
    bar = tqdm(total=len(queue), desc="load", disable=None)

    def ask(key):
        with lock:
            mine = free.pop()
        begun = time.perf_counter()
        try:
            answer = server.ask(mine, requests[key[0]][key[1]])
        except (OSError, ValueError) as error:
            answer = error
        took = time.perf_counter() - begun
        with lock:
            free.append(mine)
            bar.update()
            if isinstance(answer, Exception):
                refused.append(str(answer))
            else:
                waits[key[0]].append(took)
                if not same(answer, expected[key]):
                    wrong.append(key)

    memory = Memory(server.process.pid)
    memory.start()
    begun = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(num_clients) as pool:
        list(pool.map(ask, queue))
    seconds = time.perf_counter() - begun
    memory.ended = True
    memory.join()
    bar.close()
    answered = sum(map(len, waits.values()))
    assert answered + len(refused) == len(queue), "a request was lost"
    return {
        "waits": waits,
        "wrong": wrong,
        "refused": refused,
        "seconds": seconds,
        "memory": memory.seen,
        "counts": counts,
    }


def print_load(told, num_clients):
    """The tables of the load and of memory."""
    waits, seconds = told["waits"], told["seconds"]
    answered = sum(map(len, waits.values()))
    print(
        f"\n{answered} answered, of these {len(told['wrong'])} wrong; "
        f"{len(told['refused'])} refused; {num_clients} clients; {seconds:.0f} s; "
        f"{answered / seconds:.2f} requests a second.\n"
    )
    for words, count in collections.Counter(told["refused"]).items():
        print(f"- {count} refused: {words}")
    print("| request | count | p50 (s) | p95 (s) | p99 (s) |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for kind, values in waits.items():
        points = " | ".join(f"{p:.2f}" for p in np.percentile(values, [50, 95, 99]))
        print(f"| {kind} | {len(values)} | {points} |")
    quarters = np.array_split(np.array(told["memory"]), 4)
    middle = " | ".join(f"{np.median(quarter):.0f}" for quarter in quarters)
    print("\n| memory of the server (MB) | 1st quarter | 2nd | 3rd | 4th | peak |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    print(f"| resident, median | {middle} | {max(told['memory']):.0f} |")


def overhead(server, model, requests, told, rounds):
    """A server beside the bare SavedModel, in turn, for each signature."""
    import tensorflow as tf
    import tensorflow_text  # noqa: F401  registers the ops of string signatures

    version = max(
        (p for p in Path(model).iterdir() if p.name.isdecimal()),
        key=lambda p: int(p.name),
    )
    loaded = tf.saved_model.load(str(version))
    client, total = server.client(), 0.0
    print("\n| request, alone | bare SavedModel (s) | served (s) | ratio |")
    print("| --- | ---: | ---: | ---: |")
    for kind, some in requests.items():
        signature, columns, _ = some[0]
        if signature == "status":
            continue
        run = loaded.signatures[signature]
        specs = run.structured_input_signature[1]
        columns = {n: tf.constant(c, specs[n].dtype) for n, c in columns.items()}

        def bare(run=run, columns=columns):
            return {n: value.numpy() for n, value in run(**columns).items()}

        def served(request=some[0]):
            return server.ask(client, request)

        assert same(served(), bare()), f"{kind}: served and bare differ"
        pairs = [(seconds(bare), seconds(served)) for _ in range(rounds)]
        plain, asked = (statistics.median(side) for side in zip(*pairs, strict=True))
        ratio = statistics.median(b / a for a, b in pairs)
        total += plain * told["counts"][kind]
        print(f"| {kind} | {plain:.3f} | {asked:.3f} | {ratio:.3f} |")
    print(
        f"\nAll requests of the load one after another by the bare SavedModel: "
        f"{total:.0f} s; served to all clients at once: {told['seconds']:.0f} s, "
        f"ratio {told['seconds'] / total:.3f}."
    )


def seconds(function):
    """What a call takes."""
    begun = time.perf_counter()
    function()
    return time.perf_counter() - begun


def joining(model, per_client, num_clients=8):
    """Pictures a second of eight clients, with and without joined requests."""
    rates, drawn = {}, {}
    for batch_rows in (0, 16):
        with Served(model, batch_rows) as server:
            clients = [server.client() for _ in range(num_clients)]
            bar = tqdm(total=num_clients * per_client, desc="joining", disable=None)

            def ask(number, server=server, clients=clients, bar=bar):
                answers = []
                for i in range(per_client):
                    request = ("generate", draw(1, number * per_client + i), False)
                    answers.append(server.ask(clients[number], request))
                    bar.update()
                return answers

            begun = time.perf_counter()
            with concurrent.futures.ThreadPoolExecutor(num_clients) as pool:
                answers = list(pool.map(ask, range(num_clients)))
            rates[batch_rows] = bar.total / (time.perf_counter() - begun)
            bar.close()
            drawn[batch_rows] = [answer for some in answers for answer in some]
    equal = sum(map(same, drawn[0], drawn[16]))
    print(
        f"\n| requests of {num_clients} clients | pictures a second |\n| --- | ---: |"
    )
    print(f"| one by one | {rates[0]:.2f} |\n| joined | {rates[16]:.2f} |")
    print(
        f"\nJoined is {rates[16] / rates[0]:.2f} times as fast; "
        f"{equal} of {len(drawn[0])} pictures are the same."
    )


def recorded(model):
    """The requests that warm the newest version up, as (signature, columns)."""
    import tensorflow as tf
    from tensorflow_serving.apis import prediction_log_pb2

    paths = Path(model).glob("*/assets.extra/tf_serving_warmup_requests")
    path = max(paths, key=lambda p: int(p.parents[1].name))
    for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
        log = prediction_log_pb2.PredictionLog.FromString(record)
        request = log.predict_log.request
        yield (
            request.model_spec.signature_name,
            {n: tf.make_ndarray(proto) for n, proto in request.inputs.items()},
        )


def cold_start(model, rounds):
    """The first request of each signature and size after readiness, and the next."""
    worst = 0.0
    with Served(model) as server:
        client = server.client()
        print(f"\nReady after {server.seconds:.1f} s.\n")
        print("| signature | rows | first (s) | median of the next (s) | ratio |")
        print("| --- | ---: | ---: | ---: | ---: |")
        for number, (signature, columns) in enumerate(recorded(model)):
            rows = len(next(iter(columns.values())))
            if signature.startswith("generate"):
                rows = max(rows, 1)
                columns = draw(rows, number)
            request = (signature, columns, False)
            first, *others = (
                seconds(lambda r=request: server.ask(client, r))
                for _ in range(1 + rounds)
            )
            median = statistics.median(others)
            worst = max(worst, first / median)
            ratio = first / median
            print(
                f"| {signature} | {rows} | {first:.3f} | {median:.3f} | {ratio:.2f} |"
            )
    print(f"\nNo first request took more than {worst:.2f} times its median.")


def main(argv=None):
    """Prints the tables; returns 0 if no request was lost or answered wrongly."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=SHIPPED, help="exported model")
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5, help="of each comparison")
    args = parser.parse_args(argv)

    with Served(args.model) as server:
        client = server.client()
        drawn = client.predict("generate", draw(8, 500))
        requests = distinct(drawn["ids"], drawn["image_bytes"])
        told = load(server, requests, args.requests, args.clients)
        print_load(told, args.clients)
        overhead(server, args.model, requests, told, args.rounds)
    joining(args.model, max(args.requests // 100, 1))
    cold_start(args.model, args.rounds)
    return int(bool(told["wrong"]))


if __name__ == "__main__":
    sys.exit(main())
