"""No request is lost, none is wrong, and none waits for nobody."""

import concurrent.futures
import random
import threading
import time

import numpy as np
import pytest
import tensorflow as tf
from waiting import wait_for

from keras_parti.serving.scheduler import Scheduler
from keras_parti.serving.servable import Run


class Adder:
    """Stands for a loaded model: y = x + z by rows; a negative x is an error.

    It notes the x of every run, and does not answer while its gate is shut.
    """

    def __init__(self, max_rows=None):
        self.row_limits = {}
        self.runs = []
        self.gate = threading.Event()
        self.gate.set()
        self.begun = threading.Event()
        self.max_rows = max_rows

    def call(self, name, aliases, arrays):
        x, z = arrays
        self.runs.append(x.tolist())
        self.begun.set()
        assert self.gate.wait(60)
        if (x < 0).any():
            raise tf.errors.InvalidArgumentError(None, None, f"bad: {x.min()}")
        if self.max_rows and len(x) > self.max_rows:
            raise tf.errors.InvalidArgumentError(None, None, "too many rows")
        if name == "sum":
            return [np.sum(x)]
        return [(x + z) * len(alias) for alias in aliases]

    def run(self, x, z=None, name="add", aliases=("y",)):
        arrays = [np.array(x), np.array([0] if z is None else z)]
        return Run(self, name, list(aliases), arrays, frozenset([1][: z is None]))


@pytest.fixture
def start():
    """A function that makes schedulers, which are closed afterwards."""
    made = []

    def start(threads=4, queue=100, max_rows=8):
        made.append(Scheduler(threads, queue, max_rows))
        return made[-1]

    yield start
    for scheduler in made:
        scheduler.close()


def blocked(scheduler, adder, pool):
    """Puts a first run to work that waits for the gate."""
    adder.gate.clear()
    first = pool.submit(scheduler.run, adder.run([0]))
    assert adder.begun.wait(30)
    return first


def test_what_waits_is_joined_and_each_gets_its_own(start):
    scheduler, adder = start(), Adder()
    with concurrent.futures.ThreadPoolExecutor(9) as pool:
        blocked(scheduler, adder, pool)
        asked = [adder.run([10 * i, 10 * i + 1], z=[i, i]) for i in range(1, 4)]
        asked.append(adder.run([50]))  # its default has one row for any number
        answers = [pool.submit(scheduler.run, run) for run in asked]
        wait_for(lambda: scheduler.load == (4, 1))
        adder.gate.set()
        found = [answer.result()[0].tolist() for answer in answers]
    assert found == [[11, 12], [22, 23], [33, 34], [50]]
    assert len(adder.runs) == 2
    assert sorted(adder.runs[1]) == [10, 11, 20, 21, 30, 31, 50]


def test_runs_never_grow_beyond_the_most_rows(start):
    scheduler, adder = start(max_rows=5), Adder()
    adder.row_limits["add"] = 4
    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        blocked(scheduler, adder, pool)
        rows = [3, 1, 2, 2, 7, 1, 1, 3]
        answers = [pool.submit(scheduler.run, adder.run([n] * n)) for n in rows]
        wait_for(lambda: scheduler.load == (len(rows), 1))
        adder.gate.set()
        for n, answer in zip(rows, answers, strict=True):
            assert answer.result()[0].tolist() == [n] * n
    for run in adder.runs:
        assert len(run) <= 4 or run == [7] * 7
    assert len(adder.runs) < 1 + len(rows)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"aliases": ["y"]}, {"aliases": ["y", "yy"]}),
        ({"name": "add"}, {"name": "other"}),
        ({"x": [1]}, {"x": [[1, 2]]}),
        ({"x": [1]}, {"x": 1}),
        ({"x": [1, 2]}, {"x": [1, 2], "z": [3]}),
    ],
)
def test_unlike_requests_are_not_joined(start, first, second):
    scheduler, adder = start(), Adder()
    asked = [adder.run(**{"x": [1], **k}) for k in (first, second)]
    with concurrent.futures.ThreadPoolExecutor(9) as pool:
        blocked(scheduler, adder, pool)
        answers = [pool.submit(scheduler.run, run) for run in asked]
        wait_for(lambda: sum(scheduler.load) == 3)
        adder.gate.set()
        for run, answer in zip(asked, answers, strict=True):
            for found, expected in zip(answer.result(), run(), strict=True):
                np.testing.assert_array_equal(found, expected)


def test_one_bad_request_fails_alone(start):
    scheduler, adder = start(), Adder()
    with concurrent.futures.ThreadPoolExecutor(9) as pool:
        blocked(scheduler, adder, pool)
        values = [1, -7, 3, 4, 5, 6, 7, 8]
        answers = [pool.submit(scheduler.run, adder.run([x])) for x in values]
        wait_for(lambda: scheduler.load == (8, 1))
        adder.gate.set()
        with pytest.raises(tf.errors.InvalidArgumentError, match="bad: -7"):
            answers.pop(1).result()
        assert [answer.result()[0][0] for answer in answers] == [1, *range(3, 9)]
    # By halves, wherever among them it stood: most of the others stay together.
    assert sorted(map(len, adder.runs[1:])) == [1, 1, 2, 2, 4, 4, 8]
    assert "add" not in adder.row_limits


def test_outputs_without_rows_are_answered_alone(start):
    scheduler, adder = start(), Adder()
    with concurrent.futures.ThreadPoolExecutor(9) as pool:
        adder.gate.clear()
        asked = [adder.run([i, i], name="sum") for i in range(4)]
        answers = [pool.submit(scheduler.run, run) for run in asked]
        wait_for(lambda: sum(scheduler.load) == 4)
        adder.gate.set()
        assert [answer.result() for answer in answers] == [[0], [2], [4], [6]]


def test_what_a_model_does_not_take_together_is_learned(start):
    scheduler, adder = start(), Adder(max_rows=2)
    with concurrent.futures.ThreadPoolExecutor(9) as pool:
        blocked(scheduler, adder, pool)
        answers = [pool.submit(scheduler.run, adder.run([i, i])) for i in range(3)]
        wait_for(lambda: scheduler.load == (3, 1))
        adder.gate.set()
        found = [answer.result()[0].tolist() for answer in answers]
    assert found == [[0, 0], [1, 1], [2, 2]]
    wait_for(lambda: adder.row_limits == {"add": 2})


def test_one_run_of_a_signature_at_a_time_and_others_beside_it(start):
    scheduler, adder = start(), Adder()
    with concurrent.futures.ThreadPoolExecutor(9) as pool:
        blocked(scheduler, adder, pool)
        same = pool.submit(scheduler.run, adder.run([5]))
        other = pool.submit(scheduler.run, adder.run([6], name="other"))
        wait_for(lambda: len(adder.runs) == 2)
        assert adder.runs == [[0], [6]]
        adder.gate.set()
        assert (same.result()[0][0], other.result()[0][0]) == (5, 6)


def test_a_run_waits_for_those_who_come_back_from_the_last(start, monkeypatch):
    monkeypatch.setattr("keras_parti.serving.scheduler.GATHERING", 1e6)
    scheduler, adder = start(max_rows=3), Adder()
    with concurrent.futures.ThreadPoolExecutor(9) as pool:
        blocked(scheduler, adder, pool)
        # Three rows fit, so the last waits on; then two more make up its run.
        answers = [pool.submit(scheduler.run, adder.run([i])) for i in (1, 2, 3, 4)]
        wait_for(lambda: scheduler.load == (4, 1))
        adder.gate.set()
        for answer in answers[:3]:
            answer.result()
        answers.append(pool.submit(scheduler.run, adder.run([5])))
        wait_for(lambda: scheduler.load == (2, 0))
        answers.append(pool.submit(scheduler.run, adder.run([6])))
        assert [answer.result()[0][0] for answer in answers] == [1, 2, 3, 4, 5, 6]
    assert list(map(len, adder.runs)) == [1, 3, 3]


def test_a_run_that_ended_leaves_nothing_behind(start):
    scheduler, adder = start(), Adder()
    scheduler.run(adder.run([1]))
    wait_for(lambda: not scheduler._at_work)


def test_without_batching_every_request_runs_by_itself(start):
    scheduler, adder = start(threads=3, max_rows=0), Adder()
    with concurrent.futures.ThreadPoolExecutor(9) as pool:
        adder.gate.clear()
        answers = [pool.submit(scheduler.run, adder.run([i])) for i in range(3)]
        wait_for(lambda: len(adder.runs) == 3)  # all at work at once
        adder.gate.set()
        assert [answer.result()[0][0] for answer in answers] == [0, 1, 2]


def test_a_full_queue_refuses(start):
    scheduler, adder = start(threads=1, queue=2), Adder()
    with concurrent.futures.ThreadPoolExecutor(9) as pool:
        blocked(scheduler, adder, pool)
        waiting = [pool.submit(scheduler.run, adder.run([i])) for i in (1, 2)]
        wait_for(lambda: scheduler.load == (2, 1))
        words = "Server Threadpool Exhausted"
        with pytest.raises(tf.errors.ResourceExhaustedError, match=words):
            scheduler.run(adder.run([3]))
        adder.gate.set()
        assert [answer.result()[0][0] for answer in waiting] == [1, 2]
    assert scheduler.run(adder.run([4]))[0][0] == 4


def test_what_nobody_waits_for_is_not_started(start):
    scheduler, adder = start(), Adder()
    left = threading.Event()
    with concurrent.futures.ThreadPoolExecutor(9) as pool:
        blocked(scheduler, adder, pool)
        gone = pool.submit(scheduler.run, adder.run([-1]), left.is_set)
        kept = pool.submit(scheduler.run, adder.run([2]))
        wait_for(lambda: scheduler.load == (2, 1))
        left.set()
        with pytest.raises(tf.errors.CancelledError):
            gone.result(timeout=30)  # while the gate is still shut
        adder.gate.set()
        assert kept.result()[0][0] == 2
    assert adder.runs == [[0], [2]]


def test_what_waits_longer_than_its_patience_is_not_started(start):
    scheduler, adder = start(), Adder()
    with concurrent.futures.ThreadPoolExecutor(9) as pool:
        blocked(scheduler, adder, pool)
        hasty = pool.submit(scheduler.run, adder.run([-1]), None, 0.3)
        patient = pool.submit(scheduler.run, adder.run([2]), None, 300)
        with pytest.raises(tf.errors.DeadlineExceededError, match=r"waited 0\.3 s for"):
            hasty.result(timeout=30)  # while the gate is still shut
        adder.gate.set()
        assert patient.result()[0][0] == 2
        # What has begun in time is answered, however long it takes.
        first = blocked(scheduler, adder, pool)
        begun = pool.submit(scheduler.run, adder.run([3], name="more"), None, 0.3)
        wait_for(lambda: scheduler.load == (0, 2))
        time.sleep(0.5)
        adder.gate.set()
        assert (first.result()[0][0], begun.result()[0][0]) == (0, 3)
    assert [-1] not in adder.runs


def test_close_gives_up_what_is_there_and_takes_nothing_more(start):
    scheduler, adder = start(), Adder()
    with concurrent.futures.ThreadPoolExecutor(9) as pool:
        stuck = blocked(scheduler, adder, pool)
        waiting = pool.submit(scheduler.run, adder.run([1]))
        wait_for(lambda: scheduler.load == (1, 1))
        scheduler.close()
        for given_up in (stuck, waiting):
            with pytest.raises(tf.errors.UnavailableError, match="The server stops"):
                given_up.result(timeout=30)
        with pytest.raises(tf.errors.UnavailableError, match="The server stops"):
            scheduler.run(adder.run([2]))
        adder.gate.set()
    assert adder.runs == [[0]]


def test_many_clients_lose_nothing_and_get_nothing_wrong(start):
    scheduler = start(threads=3, queue=1000, max_rows=6)
    adders = [Adder(), Adder(max_rows=4)]

    def client(seed):
        draw = random.Random(seed)
        for _ in range(40):
            adder, rows = draw.choice(adders), draw.randint(1, 4)
            x = [draw.randint(-1, 60) for _ in range(rows)]
            z = draw.choice([None, x])
            run = adder.run(x, z, draw.choice(["add", "more"]))
            try:
                found = scheduler.run(run)[0]
                np.testing.assert_array_equal(found, run.arrays[0] + run.arrays[1])
                assert min(x) >= 0
            except tf.errors.InvalidArgumentError as error:
                assert error.message == f"bad: {min(x)}"  # noqa: PT017
        return True

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        assert all(pool.map(client, range(16)))
    assert scheduler.load == (0, 0)
