"""What is installed from the wheel is the whole library, and works on its own."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
MODEL = ROOT / "saved_models" / "emoji"
BUILT = os.environ.get("KERAS_PARTI_WHEEL")  # a wheel that is there already
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
LEFT_OUT = {".pyc", ".so"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The path of a wheel that is built of a copy: a build leaves files behind."""
    if BUILT:
        return Path(BUILT).resolve()
    folder = tmp_path_factory.mktemp("wheel")
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(ROOT / "keras_parti", folder / "keras_parti", ignore=ignored)
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    command = [*PIP, "wheel", "--no-deps", "--no-index", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", folder / "dist", folder], check=True)
    (path,) = (folder / "dist").glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The folder of an environment with the wheel, and a folder far from the tree.

    What the library requires is that of this environment, by a `.pth` file, in which
    an editable installation does not count.
    """
    folder = tmp_path_factory.mktemp("installed")
    pip = environment(folder)
    scheme = {"base": folder / "venv", "platbase": folder / "venv"}
    packages = Path(sysconfig.get_path("purelib", "venv", scheme))
    (packages / "required.pth").write_text(sysconfig.get_path("purelib") + "\n")
    command = [*pip, "install", "--no-deps", "--no-index", "--ignore-installed"]
    subprocess.run([*command, wheel], check=True)
    return folder


def environment(folder):
    """Makes an empty environment in a folder; returns the command of its pip."""
    venv.create(folder / "venv", with_pip=False)
    return [*PIP, "--python", folder / "venv" / "bin" / "python"]


def run(folder, *command):
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [folder / "venv" / "bin" / command[0], *command[1:]],
        cwd=folder,
        env={**environment, "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_wheel_holds_every_file_of_the_package_and_no_other(wheel):
    package = [p for p in (ROOT / "keras_parti").rglob("*") if p.is_file()]
    wanted = {
        p.relative_to(ROOT).as_posix() for p in package if p.suffix not in LEFT_OUT
    }
    with zipfile.ZipFile(wheel) as file:
        found = {name for name in file.namelist() if ".dist-info/" not in name}
    assert found == wanted


def test_the_wheel_says_what_it_needs_and_its_licence(wheel):
    with zipfile.ZipFile(wheel) as file:
        (name,) = (n for n in file.namelist() if n.endswith("/METADATA"))
        metadata = file.read(name).decode()
        assert any(n.endswith("/LICENSE") for n in file.namelist())
    assert "Requires-Python: >=3.11" in metadata
    assert "Requires-Dist: keras>=" in metadata
    assert "License: Apache-2.0" in metadata or "License-Expression: Apache" in metadata


def test_the_installed_command_answers_from_another_folder(installed):
    assert "parti_20b" in run(installed, "keras-parti", "presets")
    assert "usage: keras-parti" in run(installed, "keras-parti", "--help")


def test_the_installed_package_is_its_own_and_builds_a_model(installed):
    script = """
import keras_parti, pathlib, sys
from keras_parti.models import ViTVQGAN
from keras_parti.serving.page import page
from keras_parti.evaluation.prompt_report import PAGE
from keras_parti.web import read_page
place = pathlib.Path(keras_parti.__file__).resolve()
assert place.is_relative_to(pathlib.Path(sys.prefix).resolve()), place
assert b"<html" in page("emoji") and "--accent:" in read_page(PAGE)
print(ViTVQGAN.from_preset("vit_vqgan_tiny").count_params())
"""
    assert run(installed, "python", "-c", script).split() == ["10568"]


@pytest.mark.slow
def test_the_lock_file_and_the_wheel_are_all_it_takes(wheel, tmp_path):
    """Nothing is borrowed: what setup.py forgets to require is missing here."""
    pip = environment(tmp_path)
    lock = ["--requirement", ROOT / "requirements.lock"]
    subprocess.run([*pip, "install", *lock], check=True)
    subprocess.run([*pip, "install", "--no-deps", "--no-index", wheel], check=True)
    subprocess.run([*pip, "check"], check=True)
    assert "parti_20b" in run(tmp_path, "keras-parti", "presets")
    script = """
import keras_parti
packages = [getattr(keras_parti, name) for name in keras_parti.__all__]
for package in packages:
    for name in getattr(package, "__all__", ()):
        try:
            getattr(package, name)
        except ModuleNotFoundError as error:
            assert error.name == "jax", name  # an extra, which parts of mesh are for
"""
    run(tmp_path, "python", "-c", script)
    draw = ["generate", "red apple in google style", "--num-samples", "1"]
    run(tmp_path, "keras-parti", *draw, "--model", MODEL, "--out", "apple.png")
    with Image.open(tmp_path / "apple.png") as picture:
        assert min(picture.size) >= 64
