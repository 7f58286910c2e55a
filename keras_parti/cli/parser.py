"""The arguments of `keras-parti`: what can be said, and what `--help` tells of it."""

from keras_parti import __version__
from keras_parti.cli.evaluation_parser import add_evaluate, add_explain
from keras_parti.cli.options import (
    DATA,
    KEEP,
    NUM_SAMPLES,
    Parser,
    add_command,
    add_sampling,
    add_tokenizer,
    add_where,
    file,
    folder,
    integer,
    new_folder,
    number,
    option,
    picture_file,
    required,
)
from keras_parti.cli.plan_parser import add_plan
from keras_parti.cli.training_parser import add_train
from keras_parti.cli.upsampler_parser import add_upscale

DESCRIPTION = """\
Pictures from prompts, by autoregressive text-to-image: a ViT-VQGAN turns pictures into
grids of ids and back, a Parti writes such ids for a text. From captioned pictures to a
served model, each step is one command; a step that was interrupted goes on when the
same command is given again."""

EPILOG = """\
see some pictures:
  keras-parti demo
  keras-parti demo "red apple in google style" "octopus in fluent style"

the whole way, on the emoji that this library brings a builder for:
  keras-parti train vocab     --data emoji_captions/small --workdir runs/vocab
  keras-parti train tokenizer --data emoji_captions/small --preset vit_vqgan_emoji \\
                              --workdir runs/tokenizer
  keras-parti encode          --data emoji_captions/small --tokenizer runs/tokenizer \\
                              --out runs/tokens
  keras-parti train parti     --data runs/tokens --vocab runs/vocab/vocabulary.model \\
                              --preset parti_emoji --workdir runs/parti
  keras-parti export          --tokenizer runs/tokenizer --parti runs/parti \\
                              --vocab runs/vocab/vocabulary.model \\
                              --out saved_models/mine
  keras-parti serve           saved_models/mine
  keras-parti generate        "red apple in google style" --server 127.0.0.1:8500 \\
                              --name mine --out apple.png

`keras-parti COMMAND --help` lists the options of a command."""


def build_parser():
    """Returns the parser of the whole command.

    A parsed command has `run`, "module:function" below `keras_parti.cli`, and
    `needs_tensorflow`.
    """
    parser = Parser(prog="keras-parti", description=DESCRIPTION, epilog=EPILOG)
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_demo(commands)
    _add_generate(commands)
    add_train(commands)
    _add_encode(commands)
    _add_export(commands)
    _add_convert(commands)
    _add_serve(commands)
    add_evaluate(commands)
    add_explain(commands)
    add_upscale(commands)
    add_plan(commands)
    command = add_command(
        commands, "presets", "sizes:presets", "list the named model sizes"
    )
    command.set_defaults(needs_tensorflow=False)
    return parser


def _add_demo(commands):
    command = add_command(
        commands,
        "demo",
        "draw:demo",
        "draw pictures with the model that comes with the repository",
        "Starts a server with the shipped model on this machine's loopback, asks it "
        "for pictures over gRPC, and writes them as one PNG grid. Without a prompt: "
        "the best of eight pictures for each of eight prompts. With prompts: the four "
        "best of sixteen for each. Ranked by its CoCa, and enlarged to 128×128.",
        'keras-parti demo "red apple in google style"',
    )
    command.add_argument(
        "prompts", nargs="*", metavar="PROMPT", help="what to draw; may be empty"
    )
    option(command, "--seed", "N", "seed of the first picture", integer(), 0)
    option(command, "--out", "FILE.png", "the grid", picture_file, "demo.png")


def _add_generate(commands):
    command = add_command(
        commands,
        "generate",
        "draw:generate",
        "draw pictures of prompts, with a model folder or a server",
        "Draws pictures of prompts and writes them as one PNG grid, the best first. An "
        "empty prompt draws without condition; one that is too long is cut, and said "
        "to be.",
        'keras-parti generate "red apple in google style" --model saved_models/emoji '
        "--out apple.png\n"
        'keras-parti generate "a fox" "" --server 127.0.0.1:8500 --num-samples 16 '
        "--out grid.png",
    )
    command.add_argument("prompts", nargs="+", metavar="PROMPT", help="what to draw")
    add_where(command)
    option(
        command,
        "--num-samples",
        "N",
        "pictures drawn for each prompt",
        integer(1, 4096),
        NUM_SAMPLES,
    )
    option(
        command,
        "--keep",
        "K",
        "best pictures shown of these (default 4, or all if fewer are drawn)",
        integer(1),
    )
    add_sampling(command)
    option(command, "--seed", "N", "seed of the first picture", integer(), 0)
    option(
        command,
        "--size",
        "N",
        "pixels a side, of a model with an upsampler: 2 or 4 times its own",
        integer(1, 2**20),
    )
    required(command, "--out", "FILE.png", "the grid to write", picture_file)


def _add_encode(commands):
    command = add_command(
        commands,
        "encode",
        "train:encode",
        "turn a picture set into a token cache",
        "Encodes the pictures of all splits and writes their ids, captions and labels, "
        "for `keras-parti train parti` and `vim`. Finished shards are kept when run "
        "again. Started several times, the processes share the work.",
        "keras-parti encode --tokenizer runs/tokenizer --data emoji_captions/small "
        "--out runs/tokens",
    )
    add_tokenizer(command)
    required(command, "--data", "NAME", DATA)
    required(command, "--out", "DIR", "the cache's folder", new_folder)
    command.add_argument(
        "--format",
        choices=["tfrecord", "npz"],
        default="tfrecord",
        help="npz can be read without TensorFlow (default tfrecord)",
    )
    option(command, "--batch-size", "N", "pictures encoded at a time", integer(1), 32)
    option(
        command,
        "--shards",
        "N",
        "files a split (default one in 4,096 pictures, at least 4)",
        integer(1),
    )
    option(
        command,
        "--crops",
        "N",
        "random crops of each picture of split train; 0 encodes it as it is",
        integer(0),
        0,
    )


def _add_export(commands):
    command = add_command(
        commands,
        "export",
        "train:export",
        "write a trained chain as a SavedModel to serve",
        "Joins a vocabulary, a Parti and a tokenizer, or a VIM and a tokenizer, and "
        "writes them as the next version of a model that `keras-parti serve` and "
        "TensorFlow Serving serve.",
        "keras-parti export --tokenizer runs/tokenizer --parti runs/parti --vocab "
        "runs/vocab/vocabulary.model --out saved_models/mine\n"
        "keras-parti export --tokenizer runs/tokenizer --vim runs/vim --out "
        "saved_models/styles",
    )
    add_tokenizer(command)
    what = command.add_mutually_exclusive_group(required=True)
    option(what, "--parti", "DIR", "workdir or model folder of a Parti", folder)
    option(what, "--vim", "DIR", "workdir or model folder of a VIM", folder)
    words = "with --parti: vocabulary.model, from `keras-parti train vocab`"
    option(command, "--vocab", "FILE", words, file)
    words = "with --parti: workdir or model folder of a CoCa, which then ranks pictures"
    option(command, "--coca", "DIR", words, folder)
    words = "with --parti: workdir or model folder of a WDSR, which enlarges pictures"
    option(command, "--upsampler", "DIR", words, folder)
    required(
        command, "--out", "DIR", "the model's folder: its name is served", new_folder
    )
    option(
        command,
        "--num-samples",
        "N",
        "pictures that the signature generate_best draws",
        integer(1, 4096),
        NUM_SAMPLES,
    )
    option(command, "--keep", "K", "best pictures it returns", integer(1), KEEP)
    command.add_argument(
        "--dtype",
        choices=["float32", "bfloat16"],
        default="float32",
        help="how weights are stored; bfloat16 halves the size and changes pictures "
        "a little (default float32)",
    )
    option(
        command,
        "--card",
        "FILE",
        "an older card.md, or Markdown in its sections; the rest is written anew",
        file,
    )
    words = "of the weights, such as Apache-2.0, for card.md"
    option(command, "--licence", "NAME", words)


def _add_convert(commands):
    command = add_command(
        commands,
        "convert",
        "convert:convert",
        "make a tokenizer of weights of another implementation",
        "Reads the weights of a ViT-VQGAN that another implementation has trained, and "
        "writes a model folder with the same ids and pictures, which every --tokenizer "
        "takes. Accepted is thuanz123/enhancing-transformers (PyTorch), stage 1: a "
        "state dict or Lightning checkpoint as .safetensors, .pt, .pth or .ckpt; "
        "PyTorch is not needed, and nothing of the file is run. Codes must be "
        "normalized and one a token (neither residual nor Gumbel), which a file does "
        "not tell. Any other model is refused with the list of all differences.",
        "keras-parti convert --from enhancing-transformers --weights vitvq_base.ckpt "
        "--out runs/converted",
    )
    command.add_argument(
        "--from",
        dest="source",
        required=True,
        choices=["enhancing-transformers"],
        help="the implementation: enhancing-transformers",
    )
    required(command, "--weights", "FILE", "the weight file", file)
    required(command, "--out", "DIR", "the model's folder, new or empty", new_folder)
    words = "width of an attention head, which a file does not tell"
    option(command, "--head-dim", "N", words, integer(1), 64)


def _add_serve(commands):
    command = add_command(
        commands,
        "serve",
        "draw:serve",
        "serve exported models over gRPC and REST",
        "Serves the newest version of an exported model by TensorFlow Serving's "
        "protocol, until Ctrl-C or SIGTERM; requests at work are finished first. A "
        "version that is added to the folder takes over without a failed request.",
        "keras-parti serve saved_models/emoji --page\n"
        "keras-parti serve saved_models/emoji --port 9000 --name pictures\n"
        "keras-parti serve --config models.config",
    )
    command.add_argument(
        "model",
        metavar="DIR",
        type=folder,
        nargs="?",
        help="folder of versions 1, 2, ...",
    )
    option(
        command,
        "--config",
        "FILE",
        "instead of DIR, a models.config with names, folders and version policies",
        file,
    )
    option(command, "--name", "NAME", "the model's name (default that of DIR)", str)
    port = integer(0, 65535)
    option(
        command, "--port", "N", "gRPC's; 0 takes a free one, and says it", port, 8500
    )
    option(command, "--rest-port", "N", "REST's; likewise", port, 8501)
    option(
        command,
        "--host",
        "HOST",
        "address to listen on; 0.0.0.0 lets other machines in",
        str,
        "127.0.0.1",
    )
    command.add_argument(
        "--page",
        action="store_true",
        help="serve a page to type prompts into, at / of REST's port",
    )
    option(
        command,
        "--batch-rows",
        "N",
        "rows that concurrent requests are joined into at most; 0 joins none",
        integer(0, 4096),
        16,
    )
    option(
        command,
        "--queue",
        "N",
        "requests that may wait; others are refused as RESOURCE_EXHAUSTED",
        integer(0, 4096),
        64,
    )
    option(
        command,
        "--rest-timeout",
        "S",
        "seconds that a request over REST may wait for its turn; then it gets 504",
        number(0.001, 86400.0),
        120.0,
    )
    command.add_argument(
        "--no-warm-up",
        action="store_true",
        help="be ready at once, and slower at the first requests",
    )
