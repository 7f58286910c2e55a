"""The order of examples is a function of the seed and the pass, and of nothing else."""

import subprocess
import sys

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")

from keras_parti.data.ordering import counted, in_order, kept, mixed  # noqa: E402

COUNT = 7


def numbers(dataset, count=-1):
    return [int(number) for number in dataset.take(count)]


def noted(read):
    """Numbers that leave a note where they are made."""

    def make(number):
        tf.numpy_function(read.append, [number], [], stateful=True)
        return number

    return tf.data.Dataset.range(COUNT).map(make)


@pytest.mark.parametrize("at_a_time", [3, 100])
def test_each_pass_has_all_in_an_order_of_its_own(at_a_time):
    dataset = in_order(tf.data.Dataset.range(COUNT), 3, at_a_time=at_a_time)
    passes = np.reshape(numbers(dataset, 5 * COUNT), (5, COUNT))
    assert (np.sort(passes) == np.arange(COUNT)).all()
    assert len(set(map(tuple, passes))) == 5
    other = in_order(tf.data.Dataset.range(COUNT), 4, at_a_time=at_a_time)
    assert numbers(other, COUNT) != passes[0].tolist()


@pytest.mark.parametrize("seed", [0, -1, 2**31 - 2, 2**40])
def test_all_who_ask_find_the_same(seed):
    """Twice the same object, and another one, whatever was drawn before."""
    found = []
    for draw in (0, 5):
        tf.random.set_seed(draw)
        dataset = in_order(tf.data.Dataset.range(COUNT), seed)
        drawn = float(tf.random.uniform([]))
        found += [numbers(dataset, 20), numbers(dataset, 20)]
        tf.random.set_seed(draw)
        assert float(tf.random.uniform([])) == drawn  # nor is anything set
    assert len(set(map(tuple, found))) == 1


def test_another_process_finds_the_same():
    script = (
        "import tensorflow as tf\n"
        "from keras_parti.data.ordering import in_order\n"
        f"dataset = in_order(tf.data.Dataset.range({COUNT}), 3, skipped=4).take(20)\n"
        "print([int(number) for number in dataset])"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    expected = numbers(in_order(tf.data.Dataset.range(COUNT), 3, skipped=4), 20)
    assert run.stdout.strip() == str(expected), run.stderr


@pytest.mark.parametrize("seed", [None, 3])
@pytest.mark.parametrize("repeat", [False, True])
@pytest.mark.parametrize("skipped", [0, 3, 7, 23])
def test_what_is_skipped_changes_nothing_else(seed, repeat, skipped):
    dataset = tf.data.Dataset.range(COUNT)
    whole = numbers(in_order(dataset, seed, repeat), 50)
    rest = in_order(dataset, seed, repeat, skipped)
    assert numbers(rest, 50 - skipped) == whole[skipped:]
    assert len(whole) == (50 if repeat else COUNT)


def test_passes_that_are_skipped_are_not_read():
    read = []
    dataset = in_order(noted(read), 3, skipped=COUNT * 10**12 + 2)
    assert len(numbers(dataset, 5)) == 5
    assert len(read) <= COUNT


def test_what_is_kept_is_read_once():
    read = []
    dataset = in_order(kept(noted(read)), 3).batch(2)
    for _ in range(2):
        assert len(list(dataset.take(20))) == 20
    assert len(read) == COUNT


def test_nothing_for_ever_comes_to_an_end():
    assert not numbers(in_order(tf.data.Dataset.range(0), 3))


def test_lengths_are_known():
    odd = tf.data.Dataset.range(COUNT).filter(lambda number: number % 2 == 1)
    assert len(counted(odd)) == len(in_order(counted(odd), 3, repeat=False)) == 3
    endless = in_order(counted(odd), 3).cardinality()
    assert endless == tf.data.INFINITE_CARDINALITY


def test_a_mix_is_a_function_of_its_seed():
    found = []
    for draw, seed in ((0, 3), (5, 3), (5, 4)):
        tf.random.set_seed(draw)
        parts = [tf.data.Dataset.from_tensors(i).repeat() for i in (0, 1)]
        mix = mixed(parts, [1, 3], seed)
        found.append(numbers(mix, 1000))
        assert numbers(mix, 1000) == found[-1]
    assert found[0] == found[1] != found[2]
    # Five standard deviations.
    assert abs(np.mean(found[0]) - 0.75) < 5 * np.sqrt(0.75 * 0.25 / 1000)
