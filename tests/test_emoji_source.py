"""Where the emoji come from: packages read without being unpacked, or refused."""

import dataclasses
import hashlib
import io
import json
import os
import tarfile

import pytest

from keras_parti.data import emoji_source


def make_archive(path, members):
    with tarfile.open(path, "w:gz") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


@pytest.fixture
def package(tmp_path):
    """A small package with a right checksum, and its archive."""
    made = dataclasses.replace(emoji_source.PACKAGES[0], sha256="")
    path = tmp_path / made.archive
    about = json.dumps({"name": made.name, "version": made.version}).encode()
    members = {
        "package/package.json": about,
        "package/img/google/64/a.png": b"picture",
        "package/img/google/sheets/b.png": b"not wanted",
    }
    make_archive(path, members)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return dataclasses.replace(made, sha256=sha256), path


def test_an_archive_is_read_without_being_unpacked(package, tmp_path, monkeypatch):
    monkeypatch.setenv(emoji_source.FOLDER_VARIABLE, str(tmp_path))
    source = emoji_source.read_packages("not used", package[:1])
    assert source.verified
    assert set(source.files["google"]) == {"package.json", "img/google/64/a.png"}
    assert os.listdir(tmp_path) == [package[0].archive]


@pytest.mark.parametrize("name", ["package/../../evil.png", "/etc/evil.png", ".."])
def test_an_archive_that_climbs_out_is_refused(name, tmp_path):
    path = tmp_path / "a.tgz"
    make_archive(path, {name: b"x"})
    with pytest.raises(ValueError, match="unsafe path"):
        emoji_source.read_archive(emoji_source.PACKAGES[0], path)


def test_a_wrong_checksum_is_refused(package, tmp_path, monkeypatch):
    monkeypatch.setenv(emoji_source.FOLDER_VARIABLE, str(tmp_path))
    package[1].write_bytes(package[1].read_bytes() + b"x")
    with pytest.raises(ValueError, match=r"SHA-256 is .* expected"):
        emoji_source.read_packages("not used", package[:1])


def test_a_truncated_archive_is_refused(package):
    package[1].write_bytes(package[1].read_bytes()[:-50])
    with pytest.raises(ValueError, match="damaged archive"):
        emoji_source.read_archive(*package)


def test_a_wrong_version_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv(emoji_source.FOLDER_VARIABLE, str(tmp_path))
    folder = tmp_path / "emoji-datasource-google"
    folder.mkdir()
    (folder / "package.json").write_text(
        '{"name": "emoji-datasource-google", "version": "15.1.2"}'
    )
    with pytest.raises(ValueError, match=r"16\.0\.0.*Received: .*15\.1\.2"):
        emoji_source.read_packages("not used")


def test_a_folder_without_the_packages_says_what_to_put_there(tmp_path, monkeypatch):
    monkeypatch.setenv(emoji_source.FOLDER_VARIABLE, str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"npm pack emoji-datasource-google@16"):
        emoji_source.read_packages("not used")


def test_without_npm_the_error_says_how_to_give_a_folder(tmp_path, monkeypatch):
    monkeypatch.delenv(emoji_source.FOLDER_VARIABLE, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"not installed.*KERAS_PARTI_EMOJI"):
        emoji_source.read_packages(tmp_path)


def npm_that(tmp_path, monkeypatch, script):
    npm = tmp_path / "bin" / "npm"
    npm.parent.mkdir()
    npm.write_text("#!/bin/sh\n" + script)
    npm.chmod(0o755)
    monkeypatch.delenv(emoji_source.FOLDER_VARIABLE, raising=False)
    monkeypatch.setenv("PATH", f"{npm.parent}:{os.environ['PATH']}")


def test_without_network_the_error_carries_npms_words(tmp_path, monkeypatch):
    npm_that(tmp_path, monkeypatch, "echo 'ENOTFOUND registry' >&2; exit 1\n")
    with pytest.raises(OSError, match=r"ENOTFOUND registry.*KERAS_PARTI_EMOJI"):
        emoji_source.read_packages(tmp_path / "kept")
    assert not list((tmp_path / "kept").iterdir())


def test_a_fetched_archive_is_kept_and_not_fetched_again(
    package, tmp_path, monkeypatch
):
    package, path = package
    npm_that(tmp_path, monkeypatch, f"mv {path} .\n")
    kept = tmp_path / "kept"
    for _ in range(2):  # the second time `mv` would find nothing
        source = emoji_source.read_packages(kept, [package])
    assert source.verified
    assert os.listdir(kept) == [package.archive]
