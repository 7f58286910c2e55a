"""Where the photographs come from: the clients of two registries, or a user's folder.

The environment variable `KERAS_PARTI_PHOTOGRAPHS` names a folder that is used instead
of the network. For each package of the catalogue it may hold the archive, as `apt-get
download` and `pip download` write it, or a folder of the package's name with what the
archive unpacks to:

    mate-backgrounds_1.26.0-1_all.deb    mate-backgrounds/usr/share/backgrounds/...
    scikit_image-0.26.0-....whl          scikit-image/skimage/data/...
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

from tqdm import tqdm

from keras_parti.data.photograph_catalog import PHOTOGRAPHS

FOLDER_VARIABLE = "KERAS_PARTI_PHOTOGRAPHS"

# The largest photograph has 6 MB; anything far above is none of them.
MAX_FILE_BYTES = 32 * 2**20

DEBIAN = ("plasma-workspace-wallpapers", "mate-backgrounds", "lomiri-wallpapers-16.04")


def read_photographs(download_dir, photographs=PHOTOGRAPHS):
    """Finds, fetches, checks and reads the photographs, a package at a time.

    Args:
        download_dir: folder where fetched archives are kept and found again.
        photographs: the rows of the catalogue to read.

    Yields:
        Pairs of a `Photograph` and the bytes of its file.

    Raises:
        FileNotFoundError: the folder of the user lacks a package, a client is not
            installed, or a package no longer holds a photograph.
        OSError: a client could not fetch a package.
        ValueError: a file is another one than in the catalogue, or a damaged archive.
    """
    given = os.environ.get(FOLDER_VARIABLE)
    packages = list(dict.fromkeys(photo.package for photo in photographs))
    for package in tqdm(packages, desc="photographs", disable=None, leave=False):
        wanted = {p.path: p for p in photographs if p.package == package}
        if given:
            source = find(package, Path(given).expanduser())
        else:
            source = fetch(package, Path(download_dir).expanduser())
        contents = _read(source, wanted)
        for path, photo in wanted.items():
            content = contents.get(path)
            if content is None:
                raise FileNotFoundError(f"{source} holds no {path}.")
            found = hashlib.sha256(content).hexdigest()
            if found != photo.sha256:
                raise ValueError(
                    f"{path} in {source} is not the photograph of the catalogue: its "
                    f"SHA-256 is {found}, expected {photo.sha256}."
                )
            yield photo, content


def find(package, folder):
    """Returns the path of a package's archive or unpacked folder, in a folder.

    Raises:
        FileNotFoundError: neither is there.
    """
    stem = package if package in DEBIAN else package.replace("-", "_")
    archives = [*folder.glob(f"{stem}_*.deb"), *folder.glob(f"{stem}-*.whl")]
    unpacked = folder / package
    if archives or not unpacked.is_dir():
        if not archives:
            raise FileNotFoundError(f"{folder} holds no {package}. {_advice(package)}")
        return max(archives)
    return unpacked


def fetch(package, folder):
    """Returns the path of a package's archive in a folder, fetched if not there.

    Raises:
        FileNotFoundError: the client is not installed.
        OSError: it could not fetch the package.
    """
    try:
        return find(package, folder)
    except FileNotFoundError:
        folder.mkdir(parents=True, exist_ok=True)
    command = _command(package)
    if shutil.which(command[0]) is None:
        raise FileNotFoundError(
            f"The client `{command[0]}`, which fetches {package}, is not installed. "
            + _advice(package)
        )
    # Fetched beside its place and then moved, so that half an archive never lies there.
    with tempfile.TemporaryDirectory(dir=folder) as aside:
        reply = subprocess.run(
            command, cwd=aside, capture_output=True, text=True, check=False
        )
        fetched = list(Path(aside).iterdir())
        if reply.returncode or len(fetched) != 1:
            reason = (reply.stderr or reply.stdout).strip()[-400:] or "no message"
            raise OSError(f"`{' '.join(command)}` failed: {reason}. {_advice(package)}")
        os.replace(fetched[0], folder / fetched[0].name)
    return find(package, folder)


def _command(package):
    if package in DEBIAN:
        return ["apt-get", "download", package]
    pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet"]
    return [*pip, "--only-binary", ":all:", package]


def _advice(package):
    client = "apt-get download" if package in DEBIAN else "pip download --no-deps"
    return (
        f"Where the registry can be reached, run `{client} {package}` (needed: "
        + ", ".join(dict.fromkeys(photo.package for photo in PHOTOGRAPHS))
        + f"), put the files into one folder and set {FOLDER_VARIABLE} to it."
    )


def _read(source, wanted):
    """Reads the wanted files of a package into memory; nothing is written to disk."""
    if source.is_dir():
        paths = {path: source / path for path in wanted}
        return {k: p.read_bytes() for k, p in paths.items() if p.is_file()}
    try:
        if source.suffix == ".whl":
            with zipfile.ZipFile(source) as archive:
                inside = [i for i in archive.infolist() if i.filename in wanted]
                _check_sizes((i.filename, i.file_size) for i in inside)
                return {i.filename: archive.read(i) for i in inside}
        return _read_deb(source, wanted)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError) as error:
        raise ValueError(f"{source} is a damaged archive: {error}") from error


def _read_deb(source, wanted):
    if shutil.which("dpkg-deb") is None:
        raise FileNotFoundError(
            f"`dpkg-deb`, which reads {source}, is not installed. Unpack it elsewhere "
            f"into a folder of the package's name and set {FOLDER_VARIABLE}."
        )
    command = ["dpkg-deb", "--fsys-tarfile", os.fspath(source)]
    found = {}
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE) as process,
        tarfile.open(fileobj=process.stdout, mode="r|") as archive,
    ):
        for member in archive:
            path = member.name.removeprefix("./")
            if member.isfile() and path in wanted:
                _check_sizes([(path, member.size)])
                found[path] = archive.extractfile(member).read()
    return found


def _check_sizes(members):
    for name, size in members:
        if size > MAX_FILE_BYTES:
            raise ValueError(
                f"{name} has {size} bytes, at most {MAX_FILE_BYTES} are read."
            )
