"""Where a model has a CoCa, evaluations say what it thinks of the chosen pictures."""

import json

import numpy as np
import pytest
from PIL import Image
from small_chain import PROMPTS
from test_fid import HEADER
from test_parti_prompts import many, paint
from test_retrieval import Painter, run, splits  # noqa: F401
from test_whole_chain import far_from_start, with_parts

from keras_parti import cli
from keras_parti.evaluation import Pictures
from keras_parti.evaluation.prompt_report import write_prompt_report
from keras_parti.evaluation.prompt_run import draw_prompts, read_records
from keras_parti.models import CoCa
from keras_parti.serving.export import export


@pytest.fixture(scope="module")
def ranked(small_chain, tmp_path_factory):
    """A chain with a CoCa, and the folder of its export."""
    reranker = CoCa.from_preset("coca_tiny", image_size=8, text_length=7).reranker()
    chain = with_parts(small_chain, reranker=far_from_start(reranker))
    return chain, export(chain, tmp_path_factory.mktemp("exported") / "ranked", 2, 1)


def chosen(out):
    """The best picture of each prompt of a run: arrays, and their prompts."""
    best = {}
    for record in read_records(out):
        kept = best.setdefault(record["index"], record)
        best[record["index"]] = max(kept, record, key=lambda r: r["score"])
    paths = [out / "pictures" / record["file"] for record in best.values()]
    images = np.stack([np.asarray(Image.open(path)) for path in paths])
    return images, [record["prompt"] for record in best.values()]


@pytest.mark.slow
def test_prompts_and_fid_report_the_mean_of_the_chosen(ranked, tmp_path, capsys):
    chain, folder = ranked
    prompts = [*PROMPTS[::2], "green pear", "apple", "red apple"]
    rows = "".join(f"{prompt}\tAnimals\tBasic\t\n" for prompt in prompts)
    (tmp_path / "p.tsv").write_text(HEADER + rows, encoding="utf-8")
    (tmp_path / "photos").mkdir()
    for number, prompt in enumerate(prompts):
        path = tmp_path / "photos" / f"{number}.png"
        Image.new("RGB", (32, 32), (number, 3, 5)).save(path)
        path.with_suffix(".txt").write_text(prompt, encoding="utf-8")
    common = ["--model", str(folder), "--num-samples", "3"]
    for kind, options in (
        ("parti-prompts", ["--prompts", str(tmp_path / "p.tsv")]),
        ("fid", ["--against", str(tmp_path / "photos"), "--features", "pixels"]),
    ):
        out = tmp_path / kind
        command = ["evaluate", kind, *common, *options, "--out", str(out)]
        assert cli.main(command) == 0
        assert "mean CoCa score" in capsys.readouterr().out
        results = json.loads((out / "results.json").read_text())
        found = results.get("coca_score") or results["all"]["all prompts"]["best_score"]
        assert found == pytest.approx(chain.score(*chosen(out)).mean(), abs=1e-5)


def test_retrieval_reports_chosen_true_and_shuffled(splits, tmp_path):  # noqa: F811
    pictures = Pictures.join(list(splits.values()))

    def score(images, prompts):
        said = np.array([len(prompt) for prompt in prompts])
        return images.mean(axis=(1, 2, 3)) * said

    options = {"num_samples": 1, "best_of": (1,), "num_queries": 5}
    results = run(Painter(pictures, 1.0), splits, tmp_path, score=score, **options)
    assert set(results["coca_score"]) == set(results["features"]["pixels"]["sets"])
    at = results["coca_score"]["heldout_style"]
    assert at["value"] == at["ceiling"]  # a perfect painter and tokenizer
    assert at["value"] != at["shuffled"]
    table = (tmp_path / "table.md").read_text()
    assert (
        f"| {at['value']:.3f} | {at['ceiling']:.3f} | {at['shuffled']:.3f} |" in table
    )
    without = run(Painter(pictures, 1.0), splits, tmp_path, **options)
    assert "coca_score" not in without
    assert "CoCa" not in (tmp_path / "table.md").read_text()


@pytest.mark.parametrize(
    ("score", "words"), [("coca", "cosine"), ("likelihood", "log-likelihood")]
)
def test_a_score_is_called_what_it_is(score, words, tmp_path):
    draw_prompts(paint, many(5), tmp_path, num_samples=2, score=score)
    results = write_prompt_report(tmp_path, many(5), 2)
    assert results["run"]["score"] == score
    for name in ("table.md", "report.html"):
        text = (tmp_path / name).read_text(encoding="utf-8")
        assert words in text
        assert ("mean CoCa score" in text) == (score == "coca")
    other = {"coca": "likelihood", "likelihood": "coca"}[score]
    with pytest.raises(ValueError, match=f"score='{score}'"):
        draw_prompts(paint, many(5), tmp_path, num_samples=2, score=other)


def test_a_score_of_another_kind_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"must be one of .*Received: 'beauty'"):
        draw_prompts(paint, many(5), tmp_path, score="beauty")
