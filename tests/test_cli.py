"""The command answers fast, in one line, and with the right exit status."""

import dataclasses
import inspect
import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

import keras_parti
from keras_parti import cli, sampling
from keras_parti.cli import draw, options, quiet
from keras_parti.cli.parser import build_parser
from keras_parti.evaluation.gallery import grid
from keras_parti.losses import LOSS_WEIGHTS
from keras_parti.models import Parti, TextToImage, ViTVQGAN
from keras_parti.presets import PARTI, VIT_VQGAN
from keras_parti.serving.card import check_card
from keras_parti.serving.client import Client
from keras_parti.serving.export import export
from keras_parti.text import Vocabulary, train_vocabulary
from keras_parti.training.detokenizer import train_detokenizer
from keras_parti.training.parti import train_parti
from keras_parti.training.tokenizer import Losses, train_tokenizer
from keras_parti.training.upsampler import train_upsampler

FIXTURE = Path(__file__).parent / "fixtures" / "emoji"
COMMANDS = [
    "",
    "demo",
    "generate",
    "train",
    "train vocab",
    "train tokenizer",
    "train detokenizer",
    "train parti",
    "train upsampler",
    "convert",
    "encode",
    "export",
    "serve",
    "evaluate",
    "evaluate fid",
    "evaluate parti-prompts",
    "evaluate reconstruction",
    "evaluate retrieval",
    "evaluate upscaling",
    "explain",
    "presets",
    "upscale",
]
LONG = ("pear " * 2000)[:10_000]
PROMPTS = ["red fox in google style", "", "Füchse, 狐, 🦊", LONG, "broken \udcff byte"]


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    path = tmp_path_factory.mktemp("chain") / "vocabulary.model"
    train_vocabulary([f"{c} fox" for c in ("red", "green", "blue")], path, 300)
    keras.utils.set_random_seed(5)
    parti = Parti.from_preset("parti_tiny")
    for weight in parti.weights:
        if len(weight.shape) > 1:
            weight.assign(weight * 3)  # untrained logits would be all but equal
    vocabulary = Vocabulary.from_file(path, parti.config.text_length)
    return TextToImage(ViTVQGAN.from_preset("vit_vqgan_tiny"), parti, vocabulary)


@pytest.fixture(scope="module")
def model(chain, tmp_path_factory):
    """The folder of an exported model."""
    return export(chain, tmp_path_factory.mktemp("models") / "tiny", 3, 2).parent


def said(capsys, *argv, status=2):
    """The one line that a failing command writes to standard error."""
    assert cli.main([str(word) for word in argv]) == status
    printed = capsys.readouterr()
    assert printed.err.startswith("keras-parti: ")
    assert printed.err.count("\n") == 1
    assert "Traceback" not in printed.out
    return printed.err


@pytest.fixture
def laid_out(tmp_path, monkeypatch):
    """A current folder with all that the examples of the help name."""
    monkeypatch.chdir(tmp_path)
    for name in [
        "tokenizer",
        "parti",
        "upsampler",
        "sharp",
        "vim",
        "tokens",
        "captioned",
        "labelled",
        "vocab",
    ]:
        Path("runs", name).mkdir(parents=True)
    for folder in ("saved_models/emoji", "saved_models/mine", "saved_models/parts"):
        Path(folder).mkdir(parents=True)
    for name in (
        "runs/vocab/vocabulary.model",
        "models.config",
        "vitvq_base.ckpt",
        "photo.jpg",
        "PartiPrompts.tsv",
        "pt_inception-2015-12-05-6726825d.pth",
    ):
        Path(name).touch()


def test_help_does_not_wait_for_keras():
    script = (
        "import sys; from keras_parti import cli\n"
        "assert cli.main(['--help']) == 0\n"
        "assert not {'tensorflow', 'keras', 'numpy'} & set(sys.modules)"
    )
    subprocess.run(
        [sys.executable, "-c", script], check=True, timeout=10, capture_output=True
    )


@pytest.mark.parametrize("words", COMMANDS)
def test_every_command_has_help_with_examples_that_parse(words, laid_out, capsys):
    assert cli.main([*words.split(), "--help"]) == 0
    text = capsys.readouterr().out.replace("\\\n", " ")
    assert "usage: keras-parti" in text
    examples = re.findall(r"^  (keras-parti .+)$", text, re.MULTILINE)
    assert examples or words in ("train", "evaluate", "presets")
    for example in examples:
        assert build_parser().parse_args(shlex.split(example)[1:]).run


def test_presets_lists_names_and_sizes(capsys):
    assert cli.main(["presets"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name, preset in {**VIT_VQGAN, **PARTI}.items():
        (line,) = [line for line in lines if name in line.split()]
        assert f"{preset.params:,}" in line.split()
        assert line.endswith(preset.source)


def test_the_sampling_options_are_those_of_the_library():
    ranges = {name: row[1:3] for name, row in options.SAMPLING.items()}
    defaults = {name: row[3] for name, row in options.SAMPLING.items()}
    assert ranges == sampling.RANGES
    assert defaults == sampling.DEFAULTS
    # A client's are written down as well, because it starts without Keras.
    best = (sampling.NUM_SAMPLES, sampling.KEEP)
    assert best == (options.NUM_SAMPLES, options.KEEP)
    assert inspect.signature(Client).parameters["best"].default == best
    generate = inspect.signature(Client.generate).parameters
    assert generate["num_samples"].default == sampling.NUM_SAMPLES


@pytest.mark.parametrize(
    ("line", "function"),
    [
        (
            "train tokenizer --data x --preset vit_vqgan_tiny --workdir x",
            train_tokenizer,
        ),
        (
            "train detokenizer --data x --tokenizer runs/tokenizer --workdir x",
            train_detokenizer,
        ),
        (
            "train parti --data runs/tokens --preset parti_tiny --workdir x "
            "--vocab runs/vocab/vocabulary.model",
            train_parti,
        ),
        (
            "train upsampler --data x --preset wdsr_tiny --workdir x",
            train_upsampler,
        ),
    ],
)
def test_training_defaults_are_those_of_the_library(line, function, laid_out):
    args = build_parser().parse_args(line.split())
    offered = {
        name: parameter.default
        for name, parameter in inspect.signature(function).parameters.items()
        if isinstance(parameter.default, int | float)
        and not isinstance(parameter.default, bool)
    }
    assert {name: getattr(args, name) for name in offered} == offered
    if function in (train_tokenizer, train_detokenizer):
        assert {n: getattr(args, f"{n}_weight") for n in LOSS_WEIGHTS} == LOSS_WEIGHTS
        terms = dataclasses.asdict(Losses())
        del terms["weights"]
        assert {name: getattr(args, name) for name in terms} == terms


GENERATE = ["generate", "a fox", "--server", "localhost:1", "--out", "a.png"]


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["draw"], "demo"),
        (["generate", "--out", "a.png"], "PROMPT"),
        (["generate", "a fox", "--out", "a.png"], "--model --server"),
        (["generate", "a fox", "--model", "nowhere", "--out", "a.png"], "no folder"),
        (["serve", "nowhere"], "no folder nowhere"),
        (["serve"], "either DIR or --config FILE"),
        (["serve", ".", "--port", "65536"], "0 to 65,535"),
        ([*GENERATE, "--guidance-scale", "31"], "0 to 30. Received: 31"),
        ([*GENERATE, "--guidance-scale", "-1"], "0 to 30"),
        ([*GENERATE, "--temperature", "10.5"], "0 to 10"),
        ([*GENERATE, "--temperature", "nan"], "0 to 10"),
        ([*GENERATE, "--top-p", "1.5"], "0 to 1"),
        ([*GENERATE, "--top-k", "-1"], "top-k"),
        ([*GENERATE, "--top-k", "many"], "integer"),
        ([*GENERATE, "--seed", str(1 << 63)], "seed"),
        ([*GENERATE, "--keep", "17"], "keep=17"),
        ([*GENERATE, "--out", "a.bmp"], r"\.png"),
        ([*GENERATE, "--server", "localhost"], "HOST:PORT"),
        (
            ["train", "tokenizer", "--preset", "huge", "--data", "x", "--workdir", "x"],
            "vit_vqgan_emoji",
        ),
        (
            ["train", "parti", "--preset", "huge", "--data", ".", "--workdir", "x"],
            "parti_emoji",
        ),
        (["train", "vocab", "--data", "emoji", "--workdir", "x"], "emoji_captions/"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(argv, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert re.search(words, said(capsys, *argv))
    assert not list(tmp_path.glob("*.png"))


def test_debug_shows_the_traceback():
    with pytest.raises(ValueError, match="keep=17"):
        cli.main([*GENERATE, "--keep", "17", "--debug"])


def test_a_missing_package_is_named(monkeypatch, capsys):
    def missing(debug):
        raise ModuleNotFoundError("No module named 'tensorflow'")

    monkeypatch.setattr(quiet, "import_tensorflow", missing)
    assert "'tensorflow'" in said(capsys, *GENERATE)


def test_an_empty_model_folder_is_said_to_be(tmp_path, capsys):
    words = said(capsys, "generate", "a", "--model", tmp_path, "--out", "a.png")
    assert "no version folders" in words


def test_a_half_written_model_folder_is_said_to_be(tmp_path, capsys):
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "saved_model.pb").write_bytes(b"\xff half of it")
    ports = ["--port", 0, "--rest-port", 0]
    for command in (
        ["serve", tmp_path, *ports],
        ["generate", "a", "--model", tmp_path],
    ):
        end = [] if command[0] == "serve" else ["--out", tmp_path / "a.png"]
        assert "version 7 is not whole" in said(capsys, *command, *end)


def test_a_port_in_use_is_said_to_be(model, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        words = said(capsys, "serve", model, "--port", port)
    assert f"port {port}" in words
    assert "in use" in words


def test_a_server_that_is_gone_is_said_to_be(tmp_path, capsys):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        address = f"127.0.0.1:{closed.getsockname()[1]}"
    argv = ["generate", "a", "--server", address, "--out", tmp_path / "a.png"]
    assert f"No server answers at {address}" in said(capsys, *argv)


def test_a_server_without_the_model_is_said_to_be(model, tmp_path, capsys):
    with draw.serving(model) as (server, _):
        argv = ["generate", "a", "--server", server.address, "--name", "other"]
        words = said(capsys, *argv, "--out", tmp_path / "a.png")
    assert "Servable not found for request: Latest(other)." in words
    assert f"{server.address} has no such model or version. Give the name" in words
    assert "by --name" in words


def test_any_prompt_is_drawn_and_cut_ones_are_reported(chain, model, tmp_path, capsys):
    path = tmp_path / "new" / "a.png"
    flags = ["--num-samples", "3", "--keep", "2", "--seed", "7", "--out", str(path)]
    assert cli.main(["generate", *PROMPTS, "--model", str(model), *flags]) == 0
    out = capsys.readouterr().out
    drawn = chain.generate([*PROMPTS[:-1], "broken \ufffd byte"], 3, 2, seed=7)
    assert "Drawing the best 2 of 3 pictures for each of 5 prompts ...\n" in out
    assert f"its {drawn['prompt_tokens'][3]:,} tokens" in out
    assert out.count("cut off") == drawn["truncated"].sum() >= 2
    assert "(no prompt)" in out
    assert len(max(out.splitlines(), key=len)) < 200
    captions = [p or "(no prompt)" for p in PROMPTS for _ in range(2)]
    images = drawn["images"].reshape(-1, 12, 12, 3)
    np.testing.assert_array_equal(Image.open(path), grid(images, 2, captions))


@pytest.mark.slow
def test_a_version_a_model_and_a_server_draw_the_same(model, tmp_path, capsys):
    paths = [tmp_path / f"{name}.png" for name in ("version", "model", "server")]
    begin, end = ["generate", "a fox", "--num-samples", "2"], ["--out"]
    with draw.serving(model) as (server, _):
        for path, where in zip(
            paths,
            (
                ["--model", model / "1"],
                ["--model", model],
                ["--server", server.address, "--name", "tiny"],
            ),
            strict=True,
        ):
            assert cli.main([*begin, *map(str, where), *end, str(path)]) == 0
    assert len({path.read_bytes() for path in paths}) == 1


@pytest.mark.parametrize("prompts", [[], ["--", ""], ["--", "--help"]])
def test_the_demo_writes_a_grid_and_says_where(
    prompts, model, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(draw, "shipped_model", lambda: model)
    monkeypatch.setattr("keras_parti.cli.draw.DEMO_SIZE", None)  # no upsampler
    assert cli.main(["demo", *prompts]) == 0
    out = capsys.readouterr().out
    best = "the best 4 of 16 pictures ..." if prompts else "the best 1 of 8 pictures"
    assert out.count(f"Drawing {best}") == 1
    assert str(tmp_path / "demo.png") in out
    for prompt in prompts[1:] or draw.DEMO_PROMPTS:
        assert (prompt or "(no prompt)") in out
    assert Image.open("demo.png").width > 4 * 160


def test_the_demo_without_its_model_says_where_it_was_looked_for(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(keras_parti, "__file__", str(tmp_path / "a" / "__init__.py"))
    assert str(tmp_path / "saved_models" / "emoji") in said(capsys, "demo")


@pytest.mark.slow
def test_the_commands_lead_from_pictures_to_pictures(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERAS_PARTI_EMOJI", str(FIXTURE))
        builder = keras_parti.data.EmojiCaptions(config="small", data_dir="data")
        builder.download_and_prepare()
    data = str(builder.data_dir)
    flags = ["--steps", "4", "--steps-per-epoch", "2", "--batch-size", "5"]

    def run(*argv):
        assert cli.main(list(argv)) == 0
        return capsys.readouterr().out

    run("train", "vocab", "--data", data, "--workdir", "v", "--size", "290")
    tokenizer = ["train", "tokenizer", "--data", data, "--preset", "vit_vqgan_tiny"]
    run(*tokenizer, "--workdir", "t", *flags)
    encode = ["encode", "--tokenizer", "t", "--data", data, "--out", "c"]
    assert "train: 10 pictures encoded, 0 were there." in run(*encode)
    assert "train: 0 pictures encoded, 10 were there." in run(*encode)
    parti = ["train", "parti", "--data", "c", "--preset", "parti_tiny", *flags]
    parti += ["--vocab", "v/vocabulary.model", "--tokenizer", "t"]
    assert "Epoch 2/2" in run(*parti, "--workdir", "p")
    assert "Epoch" not in run(*parti, "--workdir", "p")

    ViTVQGAN.from_preset("vit_vqgan_tiny").save_dir("other")
    other = [word if word != "t" else "other" for word in parti]
    assert "Encode the pictures with it" in said(capsys, *other, "--workdir", "q")

    chain = ["--tokenizer", "t", "--parti", "p", "--vocab", "v/vocabulary.model"]
    Path("words.md").write_text("Drawn by a test.")
    for _ in range(2):
        run("export", *chain, "--out", "models/mine", "--card", "words.md")
    card = Path("models/mine/2/card.md").read_text()
    check_card(card)
    assert "Drawn by a test." in card
    assert card.count("keras-parti train parti --data c ") == 1
    run("generate", "red apple", "--model", "models/mine", "--out", "apple.png")
    assert Image.open("apple.png").width > 160

    run("evaluate", "reconstruction", *encode[1:5], "--out", "r")
    assert Path("r/strip.png").exists()
    retrieval = ["evaluate", "retrieval", "--model", "models/mine", "--data", data]
    small = ["--num-samples", "2", "--count", "2", "--features", "pixels"]
    small += ["--guidance-scale", "1"]
    assert "training captions (2)" in run(*retrieval, "--out", "e", *small)


def test_what_a_function_of_a_dataset_raises_is_said_in_its_words():
    tf = pytest.importorskip("tensorflow")

    def read(error):
        def fail():
            raise error

        run = tf.data.Dataset.range(1).map(
            lambda _: tf.numpy_function(fail, [], "int64")
        )
        with pytest.raises(tf.errors.OpError) as caught:
            list(run)
        return caught.value

    assert cli.explain(read(ValueError("no\n picture"))) == "no picture"
    assert cli.explain(read(ZeroDivisionError("a bug"))) is None
    assert cli.explain(KeyError("a bug")) is None
