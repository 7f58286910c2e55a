"""What a server counts, in Prometheus' text format, under the real server's names.

Written by hand: the usual client library ends the name of each counter in `_total`,
and dashboards made for `tensorflow_model_server` would not find them.
"""

import bisect
import contextlib
import os
import threading
import time

import grpc

from keras_parti.serving.refusals import CODES, describe

COUNT = ":tensorflow:serving:request_count"
LATENCY = ":tensorflow:serving:request_latency"

# Upper ends in microseconds, those of the real server: 10 · 1.8ⁿ.
BUCKETS = [10 * 1.8**n for n in range(33)]


class Monitor:
    """Counts requests and their times; safe from many threads."""

    def __init__(self):
        self._lock = threading.Lock()
        self._counts = {}  # (model, status) -> requests
        self._latencies = {}  # (model, entrypoint) -> counts of buckets, sum

    @contextlib.contextmanager
    def measured(self, model, entrypoint):
        """Counts what happens inside as one request.

        Args:
            model: str. Its name; one that is served, because each takes memory.
            entrypoint: str, "GRPC" or "REST".
        """
        begun, status = time.perf_counter(), "OK"
        try:
            yield
        except Exception as error:
            code, _ = describe(error)
            status = CODES.get(code, grpc.StatusCode.UNKNOWN).name
            raise
        finally:
            microseconds = (time.perf_counter() - begun) * 1e6
            with self._lock:
                key = (model, status)
                self._counts[key] = self._counts.get(key, 0) + 1
                counts, total = self._latencies.get((model, entrypoint), ([], 0.0))
                counts = counts or [0] * (len(BUCKETS) + 1)
                counts[bisect.bisect_left(BUCKETS, microseconds)] += 1
                self._latencies[model, entrypoint] = counts, total + microseconds

    def text(self, scheduler):
        """Everything counted so far.

        Args:
            scheduler: `Scheduler`, whose queue is told as well.

        Returns:
            bytes.
        """
        lines = [f"# TYPE {COUNT} counter"]
        with self._lock:
            for (model, status), count in sorted(self._counts.items()):
                labels = f'model_name="{_escape(model)}",status="{status}"'
                lines.append(f"{COUNT}{{{labels}}} {count}")
            lines.append(f"# TYPE {LATENCY} histogram")
            for (model, entry), (counts, total) in sorted(self._latencies.items()):
                labels = f'model_name="{_escape(model)}",API="predict"'
                labels += f',entrypoint="{entry}"'
                below = 0
                for end, count in zip([*BUCKETS, "+Inf"], counts, strict=True):
                    below += count
                    mark = end if end == "+Inf" else f"{end:g}"
                    lines.append(f'{LATENCY}_bucket{{{labels},le="{mark}"}} {below}')
                lines.append(f"{LATENCY}_sum{{{labels}}} {total:.0f}")
                lines.append(f"{LATENCY}_count{{{labels}}} {below}")
        waiting, at_work = scheduler.load
        figures = {
            ("keras_parti_requests_waiting", "gauge"): waiting,
            ("keras_parti_requests_at_work", "gauge"): at_work,
            ("keras_parti_runs", "counter"): scheduler.runs,
            ("keras_parti_runs_requests", "counter"): scheduler.requests,
            ("process_resident_memory_bytes", "gauge"): resident_bytes(),
        }
        for (name, kind), value in figures.items():
            lines += [f"# TYPE {name} {kind}", f"{name} {value}"]
        return ("\n".join(lines) + "\n").encode()


def resident_bytes():
    """The memory of this process, 0 where the system does not tell it."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def _escape(label):
    return label.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
