"""The arguments of `keras-parti evaluate`."""

from keras_parti.cli.coca_parser import add_matching_evaluation
from keras_parti.cli.options import (
    DATA,
    KEEP,
    NUM_SAMPLES,
    add_command,
    add_dtype,
    add_lpips,
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
    shard,
)
from keras_parti.cli.upsampler_parser import add_upscaling_evaluation


def add_evaluate(commands):
    """Adds `evaluate` and its kinds."""
    evaluate = commands.add_parser(
        "evaluate",
        help="measure a tokenizer, or a model's text control",
        description="Measures a trained model and writes results.json, table.md and "
        "strips of pictures.",
    )
    kinds = evaluate.add_subparsers(required=True, metavar="KIND")
    _add_parti_prompts(kinds)
    _add_fid(kinds)

    command = add_command(
        kinds,
        "reconstruction",
        "measure:reconstruction",
        "PSNR, SSIM, LPIPS and codebook usage of a tokenizer",
        "Encodes and decodes the pictures of a split, and compares, beside a thumbnail "
        "enlarged and all white.",
        "keras-parti evaluate reconstruction --tokenizer runs/tokenizer "
        "--data emoji_captions/small --out results/reconstruction",
    )
    add_tokenizer(command)
    required(command, "--data", "NAME", DATA)
    option(command, "--split", "SPLIT", "which pictures", str, "validation")
    command.add_argument(
        "--show",
        metavar="N",
        type=integer(0),
        nargs="+",
        help="places in the split, from 0, of the pictures that the strip shows "
        "(default: ten, evenly spread)",
    )
    add_lpips(command)
    required(command, "--out", "DIR", "where to write", new_folder)

    command = add_command(
        kinds,
        "retrieval",
        "measure:retrieval",
        "whether pictures show what their prompts say",
        "Draws pictures of captions and looks for each among all pictures of the set: "
        "right is a picture of the same name, style and tone. Takes some seconds for "
        "each prompt and guidance scale; goes on where it was interrupted.",
        "keras-parti evaluate retrieval --model saved_models/emoji "
        "--data emoji_captions/small --out results/retrieval",
    )
    add_where(command)
    required(command, "--data", "NAME", DATA)
    required(command, "--out", "DIR", "where to write", new_folder)
    words = "pictures drawn for a prompt"
    option(command, "--num-samples", "N", words, integer(1), NUM_SAMPLES)
    command.add_argument(
        "--guidance-scale",
        metavar="S",
        type=number(0, 30),
        nargs="+",
        default=[1.5, 1.0, 3.0],
        help="scales to compare, 0 to 30; the first is that of the main figures "
        "(default 1.5 1.0 3.0)",
    )
    option(command, "--count", "N", "prompts of each set at most", integer(1), 100)
    command.add_argument(
        "--features",
        nargs="+",
        metavar="NAME",
        choices=["joined", "image", "pixels"],
        default=["joined", "image", "pixels"],
        help="how pictures are compared: joined, image, pixels; all but pixels need "
        "the extra `evaluation` (default joined image pixels)",
    )
    option(command, "--seed", "N", "seed of prompts and pictures", integer(), 0)

    add_upscaling_evaluation(kinds)
    add_matching_evaluation(kinds)


def _add_parti_prompts(kinds):
    command = add_command(
        kinds,
        "parti-prompts",
        "prompts:parti_prompts",
        "draw PartiPrompts, and make a page to look at them",
        "Draws every prompt of the file and writes the pictures, results.json, "
        "table.md and report.html, one page with all of it. Goes on where it was "
        "interrupted; processes that share a folder draw a shard each. With --against "
        "the page also sets two runs side by side and counts which pictures people "
        "prefer, blind.",
        "keras-parti evaluate parti-prompts --model saved_models/emoji "
        "--out results/prompts\n"
        "keras-parti evaluate parti-prompts --server 127.0.0.1:8500 --num-samples 16 "
        "--shard 0/4 \\\n  --prompts PartiPrompts.tsv --out results/prompts",
    )
    add_where(command)
    option(
        command,
        "--prompts",
        "FILE.tsv",
        "the prompts; by default the published file, fetched once and checked",
        file,
    )
    required(command, "--out", "DIR", "the run's folder", new_folder)
    option(
        command,
        "--count",
        "N",
        "prompts, evenly over the file; left out, all",
        integer(1),
    )
    option(command, "--num-samples", "N", "pictures of a prompt", integer(1, 4096), 1)
    option(command, "--keep", "K", "best of these on the page", integer(1), KEEP)
    add_sampling(command)
    option(command, "--seed", "N", "seed of the first picture", integer(), 0)
    option(command, "--shard", "I/N", "draw prompts I, I+N, ... only", shard, "0/1")
    option(command, "--against", "DIR", "another run, to set beside it", folder)
    option(command, "--note", "TEXT", "what the page says of the run")


def _add_fid(kinds):
    command = add_command(
        kinds,
        "fid",
        "fid:fid",
        "FID, KID, precision, recall and Inception score",
        "Compares pictures with real ones by the features of a network. A SOURCE is a "
        "picture set or folder, with its split behind a colon, or an .npz file of "
        "statistics, which this command writes for both sides; several are joined. "
        "With --model or --server the pictures are drawn first, one for each caption "
        "of the real ones, and the command goes on where it was interrupted; with "
        "--tokenizer they are its reconstructions of the real ones.",
        "keras-parti evaluate fid --model saved_models/emoji "
        "--against emoji_captions/small:validation \\\n  --features image "
        "--image-size 64 --out results/fid\n"
        "keras-parti evaluate fid --images drawn --against coco:validation "
        "--crop near-centre \\\n  --count 30000 --features inception "
        "--weights pt_inception-2015-12-05-6726825d.pth --out results/fid\n"
        "keras-parti evaluate fid --tokenizer runs/tokenizer "
        "--against emoji_captions/small:validation \\\n  --out results/rfid\n"
        "keras-parti evaluate fid --images a/drawn.npz b/drawn.npz "
        "--against a/real.npz --out results/all",
    )
    where = add_where(command)
    where.add_argument(
        "--images", metavar="SOURCE", nargs="+", help="pictures that are there already"
    )
    where.add_argument(
        "--tokenizer",
        metavar="DIR",
        type=folder,
        help="reconstructions of a ViT-VQGAN, its workdir or model folder, at its size",
    )
    command.add_argument(
        "--against", metavar="SOURCE", nargs="+", required=True, help="real pictures"
    )
    required(command, "--out", "DIR", "where to write", new_folder)
    command.add_argument(
        "--features",
        choices=["inception", "keras-inception", "image", "pixels"],
        default="image",
        help="of which network: inception is the FID's, from --weights; "
        "keras-inception is fetched; image needs the extra `evaluation`; pixels "
        "nothing (default image)",
    )
    option(
        command,
        "--weights",
        "FILE",
        "pt_inception-2015-12-05-6726825d.pth, the FID's network",
        file,
    )
    add_dtype(
        command,
        "Of inception alone: bfloat16 is faster where the processor has it, and gives "
        "statistics of its own",
    )
    words = "side of the pictures (default 256; with --tokenizer its own)"
    option(command, "--image-size", "N", words, integer(8, 4096))
    command.add_argument(
        "--crop",
        choices=["centre", "near-centre"],
        default="centre",
        help="square of real pictures: in the middle, or random and near it, as the "
        "paper's protocol says (default centre)",
    )
    option(command, "--count", "N", "pictures; by default all", integer(2))
    option(command, "--num-samples", "N", "pictures drawn for a caption", integer(1), 1)
    add_sampling(command)
    option(command, "--seed", "N", "seed of choice and pictures", integer(0), 0)


def add_explain(commands):
    """Adds `explain`."""
    command = add_command(
        commands,
        "explain",
        "explaining:explain",
        "show on one page how a picture of a prompt came about",
        "Writes one PNG: the prompt, all samples with their scores, and the chosen "
        "one; with --parts also how probable each of its tokens was, and where it "
        "looked at each word.",
        'keras-parti explain "red apple in google style" --parts saved_models/parts '
        "--out why.png\n"
        'keras-parti explain "red apple in google style" --model saved_models/emoji '
        "--out why.png",
    )
    command.add_argument("prompt", metavar="PROMPT", help="what to draw; may be empty")
    add_where(command).add_argument(
        "--parts",
        metavar="DIR",
        type=folder,
        help="a folder of Keras parts, as `TextToImage.save` writes it",
    )
    words = "pictures to choose from"
    option(command, "--num-samples", "N", words, integer(1), NUM_SAMPLES)
    add_sampling(command)
    option(command, "--seed", "N", "seed of the first picture", integer(), 0)
    required(command, "--out", "FILE.png", "the page to write", picture_file)
