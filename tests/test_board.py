"""TensorBoard itself finds and shows what a run of Parti writes.

    python tests/test_board.py WORKDIR/logs docs/images/tensorboard.png

takes a picture of its page.
"""

import contextlib
import io
import json
import re
import subprocess
import sys
import time
import urllib.request

import keras
import pytest
from PIL import Image
from test_page import Browser, with_browser
from test_prompt_report import side_by_side
from test_training_parti import run, vocabulary, write_cache  # noqa: F401

from keras_parti.training.board import Board, write_hparams
from keras_parti.training.film import Film, held_out_batch

SCALARS = {
    "epoch_loss",
    "epoch_learning_rate",
    "epoch_gradient_norm",
    "epoch_tokens_per_second",
    "epoch_mfu",
    "loss_by_position/first_row",
    "loss_by_category/none",
}
IMAGES = {"film", "attention", "loss_by_position"}


@contextlib.contextmanager
def board(logs):
    """The address of a TensorBoard on a free port."""
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(logs)]
    command += ["--port", "0", "--load_fast", "false", "--reload_interval", "1"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            for line in process.stderr:
                if match := re.search(r"http://localhost:\d+/", line):
                    break
            yield match[0]
        finally:
            process.kill()


def asked(url, path, body=None):
    """The answer of TensorBoard's own interface."""
    request = urllib.request.Request(
        f"{url}data/plugin/{path}",
        body and json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as reply:
        return json.load(reply)


@pytest.fixture(scope="module")
def logs(small_chain, vocabulary, tmp_path_factory):  # noqa: F811
    folder = tmp_path_factory.mktemp("run")
    own = small_chain.tokenizer.fingerprint()
    cache = write_cache(folder / "cache", 5, tokenizer=own)
    write_hparams(folder / "logs", {"steps": 6, "schedule": "cosine"})
    shown = ["cat in toy style", "star in toy style"]
    held_out = held_out_batch(cache, vocabulary)
    film = Film(small_chain.tokenizer, vocabulary, shown, folder / "logs", held_out)
    run(folder, cache, vocabulary, callbacks=[film])
    return folder / "logs"


@with_browser
def test_tensorboard_shows_curves_pictures_and_settings(logs):
    with board(logs) as url, contextlib.closing(Browser()) as browser:
        opened(browser, url, "epoch_mfu|film")
        for kind, expected in (("scalars", SCALARS), ("images", IMAGES)):
            runs = asked(url, f"{kind}/tags").values()
            assert {tag for tags in runs for tag in tags} >= expected
        cards = {card.text.partition("\n")[0] for card in browser.all("card-view")}
        assert cards >= {"epoch_mfu", "film"}
        browser.driver.get(f"{url}?darkMode=false#hparams")
        browser.wait(lambda: "cosine" in browser.find("main").text, 60)
        errors = [
            e for e in browser.driver.get_log("browser") if "SEVERE" in e["level"]
        ]
        assert errors == []


@pytest.mark.slow  # TensorBoard takes some seconds to start
def test_settings_of_runs_stand_beside_their_figures(tmp_path):
    for run_name, steps in (("a", 5), ("b", 7)):
        logs = tmp_path / run_name / "logs"
        data = [("cache/small", 0.4), ("cache/full", 0.6)]
        settings = {"steps": steps, "data": data, "average": None, "augment": True}
        for _ in range(2):  # a run that was killed notes them again
            write_hparams(logs, settings)
        board_of_run = Board(logs)
        model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
        model.compile("sgd", "mse")
        board_of_run.set_model(model)
        board_of_run.on_train_begin()
        for epoch in range(2):
            board_of_run.on_epoch_end(epoch, {"loss": steps - epoch})
        board_of_run.on_train_end()
    loss = {"group": "train", "tag": "epoch_loss"}
    wanted = {
        "sliceSize": 9,
        "allowedStatuses": ["STATUS_UNKNOWN"],
        "colParams": [{"hparam": "steps"}, {"metric": loss}],
    }
    with board(tmp_path) as url:
        end = time.monotonic() + 60
        while len(asked(url, "scalars/tags")) < 2:
            assert time.monotonic() < end
            time.sleep(0.1)
        rows = asked(url, "hparams/session_groups", wanted)["sessionGroups"]
    found = {
        row["hparams"].pop("steps"): (row["hparams"], row["metricValues"])
        for row in rows
    }
    assert set(found) == {5, 7}
    for steps, (others, metrics) in found.items():
        assert others == {"data": "cache/small:0.4 cache/full:0.6", "augment": True}
        (last,) = [m["value"] for m in metrics if m["name"] == loss]
        assert last == steps - 1


def opened(browser, url, tags):
    """Opens the page of time series with some tags, and waits for a card of them."""
    browser.driver.get(f"{url}?darkMode=false&smoothing=0&tagFilter={tags}#timeseries")
    ready = """return [...document.querySelectorAll("card-view img, card-view svg")]
        .filter(e => e.tagName === "svg" || e.naturalWidth > 0).length"""
    browser.wait(lambda: browser.run(ready), 60)


def take_picture(logs, out):
    halves = []
    with board(logs) as url, contextlib.closing(Browser(900, 1080)) as browser:
        for tags in ("^(film|attention)$", "^epoch_(loss|tokens_per_second|mfu)$"):
            opened(browser, url, tags)
            if not halves:
                # Without the settings at the right there is room for cards.
                button = "document.querySelector('button.settings-button')"
                browser.run(f"{button}.click()")
            time.sleep(2)
            content = browser.driver.get_screenshot_as_png()
            halves.append(Image.open(io.BytesIO(content)).convert("RGB"))
    side_by_side(halves).quantize(128).save(out, optimize=True)


if __name__ == "__main__":
    take_picture(*sys.argv[1:])
