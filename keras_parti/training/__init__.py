"""Training by `model.fit`: what the command, the examples and users share."""

from keras_parti import lazy

_HOMES = {
    "Devices": "strategies",
    "Losses": "tokenizer",
    "Upsampling": "upsampler",
    "batches": "parti",
    "check_compiles": "xla",
    "compile_coca": "coca",
    "compile_parti": "parti",
    "compile_text_encoder": "text_encoder",
    "compile_vim": "vim",
    "detokenizer": None,
    "encode_set": "preparation",
    "fit": "workdir",
    "model_dir": "workdir",
    "read_classes": "vim",
    "scope": "strategies",
    "strategy": "strategies",
    "train_coca": "coca",
    "train_detokenizer": "detokenizer",
    "train_parti": "parti",
    "train_set_vocabulary": "preparation",
    "train_text_encoder": "text_encoder",
    "train_tokenizer": "tokenizer",
    "train_upsampler": "upsampler",
    "train_vim": "vim",
}
__all__ = sorted(_HOMES)
__getattr__, __dir__ = lazy.attach(__name__, _HOMES)
