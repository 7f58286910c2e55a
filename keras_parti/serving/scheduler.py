"""Which requests run, when, and which of them together.

Requests wait in one queue of bounded length; what finds it full is refused. A request
whose client has gone, or whose time is over, is not started. With batching, the waiting
requests of one signature are joined along their rows into runs, of which one is at work
at a time, so that while it works the next one gathers: the busier the server, the
larger its runs, and a lone request never waits.
"""

import threading
import time

from keras_parti.serving.joining import count_rows, kind, run_joined
from keras_parti.serving.refusals import cancelled, exhausted, late, stopping

# Clients that ask again at once are back within this share of the time that their
# joined run took. Without waiting for them the first one back would run alone: eight
# clients got 4.0 pictures a second so, and 5.3 with it.
GATHERING = 0.05

# How often a waiting request looks whether its client is still there, in seconds.
LOOKING = 0.1


class Job:
    """A run that waits, is at work, or is done.

    Args:
        run: `servable.Run`.
        abandoned: function that says whether nobody waits for it any more.
        patience: float. Seconds that it may wait, or None.
        joinable: bool. Whether it may be joined with others.
    """

    def __init__(self, run, abandoned, patience, joinable):
        self.run = run
        self._abandoned = abandoned
        self._patience = patience
        self._begun = time.monotonic()
        self.rows = count_rows(run) if joinable else None
        self.kind = None if self.rows is None else kind(run)
        self.done = threading.Event()
        self.outputs = None
        self.error = None

    @property
    def signature(self):
        """What one run is at work of at a time; None where it does not matter."""
        return self.kind and self.kind[:2]

    def hopeless(self):
        """The error of a job that need not be started any more, or None."""
        if self._abandoned():
            return cancelled()
        if self._patience and time.monotonic() - self._begun > self._patience:
            return late(self._patience)
        return None

    def work(self):
        """Runs alone."""
        try:
            self.outputs = self.run()
        except Exception as error:
            self.error = error


class Scheduler:
    """Runs requests in threads of its own.

    Args:
        threads: int. Runs that may be at work at once.
        queue: int. Requests that may wait beyond these.
        max_rows: int. Rows of the largest joined run, if the signature was not warmed
            up for fewer; 0 joins nothing.

    Attributes:
        runs: int. Runs so far.
        requests: int. Requests that were answered by them.
    """

    def __init__(self, threads, queue, max_rows):
        self.runs = 0
        self.requests = 0
        self._max_rows = max_rows
        self._most = threads + queue
        self._waiting = []
        self._unfinished = set()
        self._at_work = set()  # signatures
        self._gathering = {}  # signature -> companions to wait for, and until when
        self._changed = threading.Condition()
        self._closed = False
        for number in range(threads):
            # Daemons: a run that does not end must not keep the process alive.
            threading.Thread(
                target=self._work, name=f"keras-parti-run-{number}", daemon=True
            ).start()

    @property
    def load(self):
        """How many requests wait, and how many are at work."""
        with self._changed:
            waiting = len(self._waiting)
            return waiting, len(self._unfinished) - waiting

    def run(self, run, abandoned=None, patience=None):
        """Waits for the outputs of a run.

        Args:
            run: `servable.Run`.
            abandoned: function that says whether nobody waits for them any more.
            patience: float. Seconds that it may wait for its turn; None is for ever.

        Returns:
            A list of arrays.

        Raises:
            tf.errors.OpError: The queue is full, nobody waits, its turn did not come
                in time, or the run fails.
        """
        joinable = self._max_rows > 0
        job = Job(run, abandoned or (lambda: False), patience, joinable)
        with self._changed:
            if self._closed:
                raise stopping()
            if len(self._unfinished) >= self._most:
                raise exhausted()
            self._unfinished.add(job)
            self._waiting.append(job)
            self._changed.notify()
        while not job.done.wait(LOOKING):
            with self._changed:
                # One that is at work ends by itself, and holds its model until then.
                if job in self._waiting and (error := job.hopeless()):
                    self._give_up(job, error)
        if job.error is not None:
            raise job.error
        return job.outputs

    def close(self):
        """Takes nothing more, and gives up what is there."""
        with self._changed:
            self._closed = True
            for job in list(self._unfinished):
                self._give_up(job, stopping())
            self._changed.notify_all()

    def _give_up(self, job, error):
        """Ends a job without its answer. Called with the lock held."""
        if job in self._waiting:
            self._waiting.remove(job)
        job.error = error
        self._end(job)

    def _end(self, job):
        self._unfinished.discard(job)
        job.done.set()

    def _work(self):
        while batch := self._next():
            begun = time.monotonic()
            self._answer(batch)
            self._free(batch, time.monotonic() - begun)

    def _answer(self, batch):
        """Runs jobs together; where that fails, one half after the other.

        So one bad request among many does not send all the others into runs alone.
        """
        rows = [job.rows for job in batch]
        if len(batch) == 1:
            batch[0].work()
        elif outputs := run_joined([job.run for job in batch], rows):
            for job, own in zip(batch, outputs, strict=True):
                job.outputs = own
        else:
            middle = len(batch) // 2
            self._answer(batch[:middle])
            self._answer(batch[middle:])
            if not any(job.error for job in batch):
                # What runs in parts and not together is not tried together again.
                limits, run = batch[0].run.servable.row_limits, batch[0].run
                most = max(sum(rows[:middle]), sum(rows[middle:]))
                limits[run.name] = min(most, limits.get(run.name, most))
            return
        with self._changed:
            for job in batch:
                self._end(job)

    def _next(self):
        """The jobs to run next, together; none when the server stops."""
        with self._changed:
            while True:
                batch, pause = self._pick()
                if batch:
                    self.runs += 1
                    self.requests += len(batch)
                    self._waiting = [j for j in self._waiting if j not in batch]
                    if batch[0].signature:
                        self._at_work.add(batch[0].signature)
                    if self._waiting:
                        # One thread at a time looks, since eight that wake for a
                        # request cost a millisecond; it calls the next one.
                        self._changed.notify()
                    return batch
                if self._closed:
                    return []
                self._changed.wait(pause)

    def _pick(self):
        """The oldest job that may start with its companions, or how long to wait."""
        pause = None
        for job in list(self._waiting):
            if error := job.hopeless():
                self._give_up(job, error)
            elif job.signature is None:
                return [job], None
            elif job.signature not in self._at_work:
                batch, full = self._companions(job)
                many, until = self._gathering.get(job.signature, (0, 0))
                left = until - time.monotonic()
                if full or len(batch) >= many or left <= 0:
                    return batch, None
                pause = min(left, pause or left)
        return [], pause

    def _companions(self, first):
        """What waits and fits into one run with a job, and whether more would not."""
        most = first.run.servable.row_limits.get(first.run.name, self._max_rows)
        most = min(most, self._max_rows)
        batch, rows = [], 0
        for job in self._waiting:
            if job.kind == first.kind:
                if batch and rows + job.rows > most:
                    return batch, True
                batch.append(job)
                rows += job.rows
        return batch, rows >= most

    def _free(self, batch, seconds):
        """Lets the next run of a signature begin, once its companions are back."""
        signature = batch[0].signature
        if signature is None:
            return
        with self._changed:
            self._at_work.remove(signature)
            self._gathering.pop(signature, None)
            if len(batch) > 1:
                waiting = sum(job.signature == signature for job in self._waiting)
                until = time.monotonic() + GATHERING * seconds
                self._gathering[signature] = (len(batch) + waiting, until)
