"""What the guides say is so: their links, options and lines hold, their blocks run."""

import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from guides import DOCS, PAGES, blocks, commands, line_of, places, stand_ins
from PIL import Image, ImageDraw
from test_links import TARGET, anchor

from keras_parti.cli.parser import build_parser

# Stops at what fails, and ends what was started in the background.
BEGIN = "set -euo pipefail\ntrap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT\n"

# The first makes what the others go on with.
FIRST, *OTHERS = (
    DOCS / f"{name}.md" for name in ("own_pictures", "scale", "serve", "port", "extend")
)

each = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)


@each
def test_every_command_of_a_guide_parses(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for words in commands(page):
        for word in words:  # what was given, and what the commands before would write
            path = Path(re.sub(r":[\d.]+$", "", word))
            if re.fullmatch(
                r"[\w-]+\.(config|ckpt|md|tsv|png|jpg)|.+\.model", path.name
            ):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
            elif re.match(r"(runs|saved_models|results)/|pictures$", word):
                path.mkdir(parents=True, exist_ok=True)
        assert build_parser().parse_args(words).run


@each
def test_every_python_block_of_a_guide_compiles(page):
    for language, code in blocks(page):
        if language == "python":
            compile(code, page.name, "exec")


@each
def test_every_line_that_a_guide_names_holds_what_it_says(page):
    wrong = [
        f"{path}: `{text}` stands in line {found}, not {line}"
        for text, path, line in places(page)
        if str(found := line_of(text, path)) != line
    ]
    assert not wrong, "\n".join([*wrong, "python tests/guides.py writes them anew."])


@each
def test_links_to_headings_of_other_pages_lead_there(page):
    for target in TARGET.findall(page.read_text(encoding="utf-8")):
        path, _, heading = target.partition("#")
        if heading and path.endswith(".md") and "://" not in target:
            text = (page.parent / path).read_text(encoding="utf-8")
            headings = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
            assert f"#{heading}" in {anchor(h) for h in headings}, target


def test_the_index_names_every_page():
    links = TARGET.findall((DOCS / "README.md").read_text(encoding="utf-8"))
    named = {link for link in links if "/" not in link and link.endswith(".md")}
    assert named == {page.name for page in PAGES} - {"README.md"}


def test_a_reader_of_the_papers_finds_what_they_name():
    """Twenty questions, each answered by a row of `papers.md`."""
    rows = (DOCS / "papers.md").read_text(encoding="utf-8").splitlines()
    for there, what in (
        ("equation 1", "the loss of the codes"),
        ("section 3.2", "β = 0.25"),
        ("section 3.2", "8192 codes"),
        ("section 3.2", "factorised codes"),
        ("section 3.2", "ℓ2-normalised codes"),
        ("section 3.3", "weights of the loss"),
        ("section 3.3", "logit-Laplace"),
        ("table 2", "sizes of a tower"),
        ("table 2", "sizes of VIM"),
        ("equation 2", "each id from those before it"),
        ("section 5.1", "a cosine down to a half"),
        ("table 6", "acceptance rate"),
        ("table 7", "linear probe"),
        ("section 2.2", "1024 image tokens"),
        ("section 2.2", "convolution-shaped sparse attention"),
        ("table 1", "sizes, 350M to 20B"),
        ("equation 1", "classifier-free guidance"),
        ("section 2.4", "16 samples of a prompt"),
        ("table 5", "guidance scale 1.2"),
        ("section 3", "first moments in int8"),
        ("section 3", "learning rate 4.5e-5"),
        ("figure 4", "nearest pixels"),
        ("DALL-E, B.1", "11×11"),
        ("CoCa, equation 4", "λ_Cap = 2"),
    ):
        found = [r for r in rows if r.startswith(f"| {there} |") and what in r]
        assert len(found) == 1, (there, what, found)


def test_stand_ins_are_found_in_the_guides():
    """A row of the index's table that no guide needs is left from another time."""
    text = "".join(code for page in (FIRST, *OTHERS) for _, code in blocks(page))
    for words, _ in stand_ins():
        assert re.search(_pattern(words), text), words


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder in which the first guide was followed."""
    from test_enhancing_transformers import state_dict
    from torch_files import tensors_of, write_stream

    folder = tmp_path_factory.mktemp("own")
    draw_shapes(folder / "pictures")
    write_stream(folder / "vitvq_base.ckpt", *tensors_of(state_dict()))
    follow(FIRST, folder)
    return folder


@pytest.mark.slow
def test_the_first_guide_runs(trained):
    assert (trained / "saved_models" / "mine" / "1" / "saved_model.pb").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("page", OTHERS, ids=lambda page: page.stem)
def test_a_guide_runs(page, trained, tmp_path):
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    follow(page, tmp_path)


def follow(page, folder):
    """Runs the blocks of a guide in a folder, in order, in one shell."""
    if not shutil.which("bash") or not shutil.which("curl"):
        pytest.skip("The guides are written for bash and curl.")
    script = BEGIN
    for language, code in blocks(page):
        if language == "sh":
            script += code
        elif language == "python":
            script += f"python - <<'END_OF_BLOCK'\n{code}END_OF_BLOCK\n"
    for words, instead in stand_ins():
        script = re.sub(_pattern(words), instead or _free_port(), script)
    path = Path(sys.executable).parent
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
        env={**os.environ, "PATH": f"{path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{done.stdout[-4000:]}\n{done.stderr[-4000:]}"


def draw_shapes(folder):
    """Draws thirty captioned pictures."""
    folder.mkdir()
    for colour in ("red", "green", "blue", "gold", "black"):
        for shape in ("ellipse", "rectangle"):
            for size in (4, 6, 8):
                picture = Image.new("RGB", (20, 20), "white")
                pen = ImageDraw.Draw(picture)
                box = (10 - size, 10 - size, 10 + size, 10 + size)
                getattr(pen, shape)(box, fill=colour)
                name = f"{colour}_{shape}_{size}"
                picture.save(folder / f"{name}.png")
                (folder / f"{name}.txt").write_text(f"a {colour} {shape}\n")


def _pattern(words):
    """A row's words as a regular expression, N standing for any number."""
    return re.escape(words).replace("N", r"[\d.e-]+")


def _free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return str(found.getsockname()[1])
