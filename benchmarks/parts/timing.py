"""How long a call takes on a machine that does other things as well."""

import time


def best_of(function, rounds, warm_ups=1):
    """Returns the seconds of the fastest call, after some that do not count.

    Where there are no rounds, the fastest of those that would not count.
    """
    times = []
    for _ in range(warm_ups + rounds):
        begun = time.perf_counter()
        function()
        times.append(time.perf_counter() - begun)
    return min(times[warm_ups:] or times)
