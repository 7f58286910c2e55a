"""Every training, as a process: stopped, killed, and ended as if it had not been."""

import os
import re
import resource
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
from discs import pictures

pytest.importorskip("tensorflow")

from PIL import Image

from keras_parti.cli import main

pytestmark = pytest.mark.slow

# The command, but a signal comes at the end of a step.
SCRIPT = """
import os, signal, sys
from keras_parti.training import guards

number, step, *command = sys.argv[1:]
check_finite = guards.check_finite


def check(figures, when):
    check_finite(figures, when)
    if when == f"step {step}":
        os.kill(os.getpid(), int(number))


guards.check_finite = check
from keras_parti.cli import main

sys.exit(main(command))
"""

ADVERSARIAL = "--discriminator discriminator_tiny --r1-interval 2 --batch-size 4"
AVERAGED = "--average 0.8 --accumulated-batches 2"
PICTURES = "--data {0}/set --seed 3"
TOKENS = "--data {0}/tokens --seed 3"
TEXTS = TOKENS + " --vocab {0}/vocab/vocabulary.model"
TRAININGS = {
    "patchwise": f"tokenizer --preset vit_vqgan_tiny --patchwise-steps 3 {PICTURES} "
    "--batch-size 3",
    "patch start": f"tokenizer --preset vit_vqgan_tiny --patch-start {PICTURES} "
    "--batch-size 3",
    "tokenizer": f"tokenizer --preset vit_vqgan_tiny {PICTURES} --patchwise-steps 0 "
    f"{ADVERSARIAL} {AVERAGED} --augment",
    "detokenizer": f"detokenizer --tokenizer {{0}}/tokenizer {PICTURES} {ADVERSARIAL}",
    "vim": f"vim --preset vim_tiny {TOKENS} --batch-size 5",
    "strategy": f"vim --preset vim_tiny {TOKENS} --batch-size 5 --strategy cpu",
    "text-encoder": f"text-encoder --preset parti_tiny {TEXTS} --batch-size 5",
    "parti": f"parti --preset parti_tiny {TEXTS} --batch-size 5 --average 0.8 "
    "--accumulated-batches 3",
    "adafactor": f"parti --preset parti_tiny {TEXTS} --batch-size 5 "
    "--optimizer adafactor --label-rate 0.5",
    "mesh": f"parti --preset parti_tiny {TEXTS} --batch-size 4 --mesh data:1 "
    "--layout data_parallel",
    "coca": f"coca --preset coca_tiny {PICTURES} --vocab {{0}}/vocab/vocabulary.model "
    "--batch-size 5 --average 0.8",
    "upsampler": f"upsampler --preset wdsr_tiny {PICTURES} --image-size 12 "
    f"{ADVERSARIAL} {AVERAGED}",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Pictures with captions, and what is made of them before a model is trained."""
    folder = tmp_path_factory.mktemp("long")
    for split in ("train", "validation"):
        (folder / "set" / split).mkdir(parents=True)
        for number, pixels in enumerate(pictures(14)):
            path = folder / "set" / split / f"disc{number}.png"
            Image.fromarray((255 * pixels).astype("uint8")).save(path)
            path.with_suffix(".txt").write_text(f"a disc of kind {number}\n")
    data = f"--data {folder}/set"
    for command in (
        f"train vocab {data} --size 280 --workdir {folder}/vocab",
        f"train tokenizer --preset vit_vqgan_tiny {data} --steps 1 --batch-size 3 "
        f"--steps-per-epoch 1 --patchwise-steps 0 --workdir {folder}/tokenizer",
        f"encode --tokenizer {folder}/tokenizer {data} --out {folder}/tokens",
    ):
        assert main(command.split()) == 0
    return folder


def train(folder, kind, workdir, number=0, step=0, around=(), **options):
    """Trains two epochs of three steps; returns the status and the last line said."""
    command = TRAININGS[kind].format(folder).split()
    command += ["--steps", "6", "--steps-per-epoch", "3", "--warmup-steps", "2"]
    command = ["train", *command, "--workdir", str(workdir)]
    done = subprocess.run(
        [*around, sys.executable, "-c", SCRIPT, str(int(number)), str(step), *command],
        capture_output=True,
        text=True,
        check=False,
        **options,
    )
    return done.returncode, (done.stderr.strip().splitlines() or [""])[-1]


def state(workdir):
    """All that the newest checkpoint holds."""
    path = max((workdir / "checkpoints").glob("[0-9]*.npz"))
    with np.load(path) as arrays:
        return path.name, dict(arrays)


@pytest.mark.parametrize("kind", TRAININGS)
def test_a_stopped_and_killed_run_ends_as_if_it_had_not_been(folder, tmp_path, kind):
    """Weights, optimiser, averages, schedule, order of the data, and seeds."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    status, said = train(folder, kind, whole)
    assert status == 0, said
    status, said = train(folder, kind, cut, signal.SIGTERM, 2)
    assert status == 143, said
    assert "Stopped by SIGTERM: " in said
    assert "step 2 is in" in said
    status, said = train(folder, kind, cut, signal.SIGKILL, 5)
    assert status == -signal.SIGKILL, said
    for path in cut.rglob("*"):  # as a clock that went backwards since has it
        os.utime(path, (4_000_000_000, 4_000_000_000))
    status, said = train(folder, kind, cut)
    assert status == 0, said
    (name, expected), (found_name, found) = state(whole), state(cut)
    assert found_name == name
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        np.testing.assert_allclose(found[key], value, atol=1e-5, err_msg=key)
    assert not list(cut.rglob(".part-*"))
    assert (cut / "model" / "model.weights.h5").exists()


def small_files():
    """No file grows beyond what a record of the logs takes, as on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))


def test_ctrl_c_costs_no_step(folder, tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert train(folder, "vim", whole)[0] == 0
    status, said = train(folder, "vim", cut, signal.SIGINT, 2)
    assert status == 130, said
    words = "Stopped by Ctrl-C: epoch 1, step 2 is in .*. The same command goes on"
    assert re.match(words, said)
    assert train(folder, "vim", cut)[0] == 0
    for key, value in state(whole)[1].items():
        np.testing.assert_allclose(state(cut)[1][key], value, atol=1e-5)


def test_a_full_disk_costs_no_more_than_the_epoch(folder, tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert train(folder, "vim", whole)[0] == 0
    train(folder, "vim", cut, signal.SIGKILL, 5)
    before = state(cut)
    status, said = train(folder, "vim", cut, preexec_fn=small_files)
    assert status == 2, said
    assert said.startswith("keras-parti: ")
    assert "large" in said or "space" in said
    assert not list(cut.rglob(".part-*"))
    for key, value in before[1].items():
        np.testing.assert_array_equal(state(cut)[1][key], value)
    assert train(folder, "vim", cut)[0] == 0
    for key, value in state(whole)[1].items():
        np.testing.assert_allclose(state(cut)[1][key], value, atol=1e-5)


def test_a_folder_that_cannot_be_written_is_one_line(folder, tmp_path):
    mount = f'mount -t tmpfs -o ro tmpfs {tmp_path} && exec "$@"'
    around = ["unshare", "-rm", "sh", "-c", mount, "sh"]
    if not shutil.which("unshare") or subprocess.run([*around, "true"]).returncode:
        pytest.skip("this system lets nobody mount")
    status, said = train(folder, "vim", tmp_path / "run", around=around)
    assert (status, "Read-only file system" in said) == (2, True), said


def test_numbers_that_are_none_end_the_run_before_they_are_saved(folder, tmp_path):
    train(folder, "vim", tmp_path, signal.SIGKILL, 5)
    name, arrays = state(tmp_path)
    path = tmp_path / "checkpoints" / name
    broken = {
        k: np.full_like(v, np.inf) if v.ndim > 1 and v.dtype == np.float32 else v
        for k, v in arrays.items()
    }
    np.savez(path, **broken)
    status, said = train(folder, "vim", tmp_path)
    assert status == 2
    assert "Training stopped at step 4: `loss` must be finite. Received: nan" in said
    assert state(tmp_path)[0] == name


def test_a_broken_checkpoint_gives_way_or_is_named(folder, tmp_path):
    assert train(folder, "vim", tmp_path)[0] == 0
    expected = state(tmp_path)[1]
    older, newer = sorted((tmp_path / "checkpoints").glob("[0-9]*.npz"))
    os.truncate(newer, newer.stat().st_size // 2)
    assert train(folder, "vim", tmp_path)[0] == 0
    for key, value in expected.items():
        np.testing.assert_allclose(state(tmp_path)[1][key], value, atol=1e-5)
    for path in (older, newer):
        os.truncate(path, 100)
    status, said = train(folder, "vim", tmp_path)
    assert status == 2
    assert "No checkpoint in" in said
    assert "Choose another workdir" in said


def test_pictures_that_vanish_end_the_run(folder, tmp_path):
    shutil.copytree(folder / "set", tmp_path / "set")
    shutil.copytree(folder / "vocab", tmp_path / "vocab")
    process = stopped(tmp_path, "upsampler", tmp_path / "run")
    shutil.rmtree(tmp_path / "set")
    process.send_signal(signal.SIGCONT)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 2, said
    assert "can be read" in said.decode().splitlines()[-1]


def test_two_processes_do_not_train_in_one_folder(folder, tmp_path):
    process = stopped(folder, "vim", tmp_path / "run")
    try:
        status, said = train(folder, "vim", tmp_path / "run")
        assert status == 2
        assert "Another process trains in" in said
    finally:
        process.kill()
        process.wait()
    assert train(folder, "vim", tmp_path / "run")[0] == 0  # no lock is left behind


def stopped(folder, kind, workdir):
    """A process that stands still in its second step."""
    command = ["train", *TRAININGS[kind].format(folder).split()]
    command += ["--steps", "600", "--steps-per-epoch", "3", "--workdir", str(workdir)]
    stop = [sys.executable, "-c", SCRIPT, str(int(signal.SIGSTOP)), "2", *command]
    process = subprocess.Popen(stop, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    _, status = os.waitpid(process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)
    return process
