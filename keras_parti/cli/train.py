"""`keras-parti train`, `encode` and `export`: from pictures to a model to serve."""

import dataclasses
import tempfile
from pathlib import Path

from keras_parti import sampling
from keras_parti.cli import notes
from keras_parti.cli.options import run_options
from keras_parti.data.datasets import open_set
from keras_parti.data.folder import summarize
from keras_parti.data.token_cache import read_manifest
from keras_parti.files import check_writable, written_whole
from keras_parti.models import (
    VIM,
    WDSR,
    ClassToImage,
    CoCa,
    Parti,
    TextEncoder,
    TextToImage,
    ViTVQGAN,
)
from keras_parti.models.base import WEIGHTS_FILE
from keras_parti.text import Vocabulary
from keras_parti.training.coca import train_coca
from keras_parti.training.detokenizer import detokenizer as freeze_ids
from keras_parti.training.detokenizer import train_detokenizer
from keras_parti.training.film import Film, held_out_batch
from keras_parti.training.parti import train_parti
from keras_parti.training.preparation import (
    caption_fields,
    encode_set,
    train_set_vocabulary,
)
from keras_parti.training.text_encoder import train_text_encoder
from keras_parti.training.tokenizer import Losses, train_tokenizer
from keras_parti.training.upsampler import train_upsampler
from keras_parti.training.vim import load_classes, read_classes, train_vim
from keras_parti.training.workdir import model_dir


def vocab(args):
    """Trains a vocabulary on the captions of a picture set."""
    path = args.workdir / "vocabulary.model"
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder, path.name)
        count = train_set_vocabulary(args.data, found, args.size)
        content, size = found.read_bytes(), Vocabulary.from_file(found).size
    what = f"{path}: {size:,} pieces, from {count:,} captions."
    if not path.exists():
        notes.note(args)
        with written_whole(path) as part:
            part.write_bytes(content)
        print(f"Wrote {what}")
    elif path.read_bytes() == content:
        print(f"Already there is {what}")
    else:  # a model that was trained on it could not be exported any more
        raise ValueError(
            f"{path} is another vocabulary than that of --data {args.data} "
            f"--size {args.size}. Choose another --workdir, or delete it."
        )
    print(
        f"Next: keras-parti train tokenizer --data {args.data} --preset NAME "
        "--workdir runs/tokenizer"
    )


def tokenizer(args):
    """Trains a ViT-VQGAN, or goes on with it."""
    open_set(args.data)  # or is refused, before there is a folder
    notes.begin(args)
    model = ViTVQGAN.from_preset(args.preset, dtype=args.dtype)
    train_tokenizer(
        model,
        args.data,
        args.workdir,
        **run_options(args),
        **_loss_options(args, model),
        final_share=args.final_share,
        patchwise_steps=args.patchwise_steps,
        patchwise_learning_rate=args.patchwise_learning_rate,
        patch_start=args.patch_start,
        revive_codes=not args.no_revive_codes,
        merge_similarity=args.merge_codes,
        augment=args.augment,
    )
    print(
        f"The tokenizer is in {args.workdir}. Next: keras-parti encode "
        f"--tokenizer {args.workdir} --data {args.data} --out runs/tokens"
    )


def detokenizer(args):
    """Trains a decoder for a tokenizer, or goes on with it."""
    decoder = {}
    if args.preset:
        config = dataclasses.asdict(ViTVQGAN.preset_config(args.preset))
        decoder = {n: v for n, v in config.items() if n.startswith("decoder_")}
    if args.decoder_layers:
        decoder["decoder_layers"] = args.decoder_layers
    if args.output:
        decoder["output"] = args.output
    start = ViTVQGAN.load_dir(model_dir(args.tokenizer))
    open_set(args.data)
    notes.begin(args)
    model = freeze_ids(start, args.dtype, **decoder)
    train_detokenizer(
        model,
        args.data,
        args.workdir,
        **run_options(args),
        **_loss_options(args, model),
        final_share=args.final_share,
    )
    print(
        f"The detokenizer is in {args.workdir}, for all ids of {args.tokenizer}. Next: "
        f"keras-parti export --tokenizer {args.workdir} --parti DIR --vocab FILE "
        "--out saved_models/mine"
    )


def upsampler(args):
    """Trains a WDSR, or goes on with it."""
    tokenizer = None
    if args.tokenizer:
        tokenizer = ViTVQGAN.load_dir(model_dir(args.tokenizer))
    if args.l1_weight is None:
        args.l1_weight = 0.0 if tokenizer else 1.0
    if args.l2_weight is None:
        args.l2_weight = 1.0 if tokenizer else 0.0
    open_set(args.data)
    notes.begin(args)
    model = WDSR.from_preset(args.preset, dtype=args.dtype)
    if args.initial:
        model.load_weights(model_dir(args.initial) / WEIGHTS_FILE)
    train_upsampler(
        model,
        args.data,
        args.workdir,
        tokenizer,
        args.image_size,
        **run_options(args),
        **_loss_options(args, model),
    )
    print(
        f"The upsampler is in {args.workdir}. Next: keras-parti upscale FILE "
        f"--upsampler {args.workdir} --out large"
    )


def text_encoder(args):
    """Trains the text encoder of a Parti, or goes on with it."""
    caches, config, vocabulary = _captioned(args, TextEncoder)
    notes.begin(args)
    model = TextEncoder(config, dtype=args.dtype)
    train_text_encoder(
        model,
        caches,
        vocabulary,
        args.workdir,
        **run_options(args),
        mask_rate=args.mask_rate,
        contrastive_weight=args.contrastive_weight,
    )
    print(
        f"The text encoder is in {args.workdir}. Next: keras-parti train parti "
        f"--preset {args.preset} --text-encoder {args.workdir} --workdir runs/parti ..."
    )


def parti(args):
    """Trains a Parti, or goes on with it."""
    caches, config, vocabulary = _captioned(args, Parti)
    if args.show and (not args.tokenizer or args.mesh is not None):
        raise ValueError("--show needs --tokenizer DIR, and no --mesh.")
    if args.tokenizer:
        tokenizer = ViTVQGAN.load_dir(model_dir(args.tokenizer))
        found = tokenizer.fingerprint()
        for cache in caches:
            expected = read_manifest(cache)["tokenizer"]
            if found != expected:
                raise ValueError(
                    f"{cache} holds tokens of tokenizer {expected}; "
                    f"{args.tokenizer} is {found}. Encode the pictures with it."
                )
    on_mesh = args.mesh is not None
    if on_mesh:
        layout = _mesh_layout(args)
    notes.begin(args)
    model = Parti(config, dtype="float32" if on_mesh else args.dtype)
    model.rematerialise = args.rematerialise
    # Read before a checkpoint of this run, if there is one, takes their place.
    if args.text_encoder:
        TextEncoder.load_dir(model_dir(args.text_encoder)).give_encoder(model)
    if args.initial:
        model.load_weights(model_dir(args.initial) / WEIGHTS_FILE)
    options = run_options(args) | {
        "schedule": args.schedule,
        "label_rate": args.label_rate,
    }
    if on_mesh:
        from keras_parti.mesh.training import train_on_mesh

        del options["verbose"]
        train_on_mesh(
            model.config,
            layout,
            caches,
            vocabulary,
            args.workdir,
            **options,
            initial=model,
            dtype=args.dtype,
            rematerialise=args.rematerialise,
        )
    else:
        callbacks = []
        if args.show:
            logs = args.workdir / "logs"
            held_out = held_out_batch(next(iter(caches)), vocabulary)
            callbacks.append(Film(tokenizer, vocabulary, args.show, logs, held_out))
        train_parti(
            model,
            caches,
            vocabulary,
            args.workdir,
            **options,
            optimizer=args.optimizer,
            average=args.average,
            accumulated_batches=args.accumulated_batches,
            peak_flops=args.peak_tflops and 1e12 * args.peak_tflops,
            callbacks=callbacks,
        )
    print(
        f"The Parti is in {args.workdir}. Next: keras-parti export --tokenizer "
        f"{args.tokenizer or 'DIR'} --vocab {args.vocab} --parti {args.workdir} "
        "--out saved_models/mine"
    )


def coca(args):
    """Trains a CoCa, or goes on with it."""
    config = CoCa.preset_config(args.preset)
    vocabulary = Vocabulary.from_file(args.vocab, config.text_length)
    size = max(config.text_vocab_size, vocabulary.size)
    config = _fit_config(config, {"text_vocab_size": size}, args.preset)
    tokenizer = None
    if args.tokenizer:
        tokenizer = ViTVQGAN.load_dir(model_dir(args.tokenizer))
    for name, _ in args.data:
        open_set(name)
    notes.begin(args)
    model = CoCa(config)
    train_coca(
        model,
        dict(args.data),
        vocabulary,
        args.workdir,
        **run_options(args),
        tokenizer=tokenizer,
        reconstructed=args.reconstructed,
        shift=args.shift,
        flip_rate=args.flip_rate,
        average=args.average,
        together=args.together,
    )
    print(
        f"The CoCa is in {args.workdir}. Next: keras-parti export --coca "
        f"{args.workdir} --parti DIR --tokenizer DIR --vocab {args.vocab} "
        "--out saved_models/mine"
    )


def _mesh_layout(args):
    from keras_parti.mesh import Layout

    if args.average or args.accumulated_batches > 1:
        raise ValueError(
            "A mesh keeps no --average and has no --accumulated-batches. "
            f"Received: --mesh {args.mesh} with one of them"
        )
    if args.layout is None:
        raise ValueError(
            f"--mesh needs --layout, such as two_d. Received: --mesh {args.mesh}"
        )
    print("On a mesh the optimizer is adafactor.")
    return Layout(args.mesh, args.layout)


def vim(args):
    """Trains a VIM, or goes on with it."""
    manifest = read_manifest(args.data)
    classes = read_classes(args.data, args.label) if args.label else None
    fitted = {
        "num_codes": manifest["num_codes"],
        "num_tokens": manifest["num_tokens"],
        "num_classes": len(classes) if classes else None,
        "class_dropout_rate": args.class_dropout_rate,
    }
    config = _fit_config(VIM.preset_config(args.preset), fitted, args.preset)
    notes.begin(args)
    model = VIM(config, dtype=args.dtype)
    train_vim(model, args.data, args.workdir, args.label, **run_options(args))
    print(
        f"The VIM is in {args.workdir}. Next: keras-parti export --tokenizer DIR "
        f"--vim {args.workdir} --out saved_models/mine"
    )


def encode(args):
    """Writes the token cache of all splits."""
    tokenizer = ViTVQGAN.load_dir(model_dir(args.tokenizer))
    counts = encode_set(
        tokenizer,
        args.data,
        args.out,
        args.format,
        args.batch_size,
        args.shards,
        args.crops,
    )
    for split, (encoded, kept, skipped) in counts.items():
        noun = "picture" if encoded == 1 else "pictures"
        were = "was" if kept == 1 else "were"
        print(f"{split}: {encoded} {noun} encoded, {kept} {were} there.")
        if skipped:
            print(f"{split}: skipped {summarize(skipped)}.")
    print(f"Wrote {args.out}, tokens of tokenizer {tokenizer.fingerprint()}.")
    print(
        f"Next: keras-parti train parti --data {args.out} --vocab "
        "runs/vocab/vocabulary.model --preset NAME --workdir runs/parti"
    )


def export(args):
    """Writes the next version of a model to serve."""
    card = args.card.read_text(encoding="utf-8") if args.card else None
    tokenizer = ViTVQGAN.load_dir(model_dir(args.tokenizer))
    write = _export_vim if args.vim else _export_parti
    version = write(args, tokenizer, card)
    size = sum(path.stat().st_size for path in version.rglob("*") if path.is_file())
    print(f"Wrote {version}, {size / 1e6:.1f} MB. Next: keras-parti serve {args.out}")


def _export_parti(args, tokenizer, card):
    from keras_parti.serving.export import export as write_version

    sampling.check_counts(args.num_samples, args.keep)
    if not args.vocab:
        raise ValueError("--parti needs --vocab FILE. Received: none")
    parti = Parti.load_dir(model_dir(args.parti))
    vocabulary = Vocabulary.from_file(args.vocab, parti.config.text_length)
    reranker = CoCa.load_dir(model_dir(args.coca)).reranker() if args.coca else None
    upsampler = WDSR.load_dir(model_dir(args.upsampler)) if args.upsampler else None
    chain = TextToImage(tokenizer, parti, vocabulary, reranker, upsampler)
    check_writable(args.out / "1")  # which makes the folder, once all else is right
    print("Tracing the signatures: half a minute or more ...")
    return write_version(
        chain,
        args.out,
        args.num_samples,
        args.keep,
        args.dtype,
        card,
        args.licence,
        _commands(args),
    )


def _commands(args):
    parts = (args.tokenizer, args.parti, args.vim, args.coca, args.upsampler)
    return notes.commands(parts, args.vocab)


def _export_vim(args, tokenizer, card):
    if args.coca or args.upsampler:
        raise ValueError("--coca and --upsampler go with --parti. Received: --vim")
    from keras_parti.serving.export_classes import export_classes

    chain = ClassToImage(tokenizer, VIM.load_dir(model_dir(args.vim)))
    classes = load_classes(args.vim)
    check_writable(args.out / "1")  # which makes the folder, once all else is right
    print("Tracing the signatures: half a minute or more ...")
    return export_classes(
        chain, args.out, classes, args.dtype, card, args.licence, _commands(args)
    )


def _captioned(args, model):
    """Returns the caches by weight, the config that fits them, and the vocabulary."""
    caches = dict(args.data)
    config = model.preset_config(args.preset)
    vocabulary = Vocabulary.from_file(args.vocab, config.text_length)
    fitted = caption_fields(next(iter(caches)), config, vocabulary)
    return caches, _fit_config(config, fitted, args.preset), vocabulary


def _fit_config(config, fitted, preset):
    """Returns a preset's config with the fields that the cache decides, and says so."""
    for name, value in fitted.items():
        before = getattr(config, name)
        if value != before:
            print(f"{name} is {value}, not {before} as in {preset}, to fit.")
    return dataclasses.replace(config, **fitted)


def _loss_options(args, model):
    """Returns the terms of a tokenizer's loss and the rest that only it has."""
    weights = {"l2": args.l2_weight}
    floor = None
    if getattr(args, "l1_weight", 0):
        weights["l1"] = args.l1_weight
    if getattr(model.config, "output", None) == "logit_laplace":
        weights["laplace"] = args.laplace_weight
        floor = args.log_scale_floor
    if args.perceptual:
        weights["perceptual"] = args.perceptual_weight
    if args.discriminator:
        weights["adversarial"] = args.adversarial_weight
    return {
        "accumulated_batches": args.accumulated_batches,
        "average": args.average,
        "terms": Losses(
            weights,
            floor,
            args.perceptual,
            args.discriminator,
            args.adversarial_start,
            args.r1_weight,
            args.r1_interval,
        ),
    }
