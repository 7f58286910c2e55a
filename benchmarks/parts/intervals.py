"""How sure a mean over few seeds is."""

import math
import statistics

# 97.5 % points of Student's t, by the number of seeds.
STUDENT = {2: 12.71, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365}


def interval(values):
    """Returns the mean over seeds and the half-width of its 95 % interval."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return mean, math.nan
    t = STUDENT.get(len(values), 2.365)  # of eight: wider than of more
    return mean, t * statistics.stdev(values) / math.sqrt(len(values))
