"""Lets `python -m keras_parti` do what `keras-parti` does."""

import sys

from keras_parti.cli import main

if __name__ == "__main__":
    sys.exit(main())
