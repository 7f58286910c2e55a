"""Measures of trained models, and pictures of what they make.

Names are imported when first used, so that picture grids need no Keras.
"""

from keras_parti import lazy

_HOMES = {
    "ImageFeatures": "features",
    "InceptionFeatures": "inception",
    "PixelFeatures": "features",
    "Pictures": "pictures",
    "Statistics": "statistics",
    "draw_accepted": "acceptance",
    "draw_prompts": "prompt_run",
    "evaluate_linear_probe": "linear_probe",
    "evaluate_matching": "matching",
    "evaluate_reconstruction": "reconstruction",
    "evaluate_retrieval": "retrieval",
    "evaluate_upscaling": "upscaling",
    "explain_page": "explain",
    "frechet_distance": "distances",
    "grid": "gallery",
    "inception_score": "distances",
    "kernel_distance": "distances",
    "load_images": "pictures",
    "picture_statistics": "fid",
    "precision_recall": "distances",
    "read_labelled": "linear_probe",
    "read_prompts": "parti_prompts",
    "strip": "gallery",
    "text_attention": "attention",
    "token_probabilities": "attention",
    "word_attention": "attention",
    "write_prompt_report": "prompt_report",
}
__all__ = sorted(_HOMES)
__getattr__, __dir__ = lazy.attach(__name__, _HOMES)
