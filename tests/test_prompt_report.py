"""The page of many prompts works in a real browser, and fetches nothing.

    python tests/test_prompt_report.py RESULTS/report.html docs/images/report.png

takes a picture of a page, in light and in dark.
"""

import contextlib
import io
import json
import re
import sys
from pathlib import Path

import pytest
from PIL import Image
from test_page import Browser, with_browser
from test_parti_prompts import paint

from keras_parti.evaluation.parti_prompts import Prompt
from keras_parti.evaluation.prompt_report import write_prompt_report
from keras_parti.evaluation.prompt_run import draw_prompts, read_records

TEXTS = [
    "a fox",
    "two foxes",
    "</script><b>no",
    "a dog",
    "red dogs",
    "Füchse 🦊",
    "fog",
]
KINDS = [("Animals", "Basic"), ("Arts & Co", "Quantity"), ("Animals", "Quantity")]
PROMPTS = [Prompt(i, t, *KINDS[i % 3], "n" * i) for i, t in enumerate(TEXTS)]
SHOWN = "return [...document.querySelectorAll('#grid .words')].map(e => e.textContent)"


def other(texts, seed):
    return paint([f"{text}!" for text in texts], seed)


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """A page of one run, one of two."""
    one, two = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")
    draw_prompts(paint, PROMPTS, one, num_samples=5, seed=11, model="xenon")
    draw_prompts(other, PROMPTS, two, num_samples=5, seed=11, model="yttrium")
    write_prompt_report(one, PROMPTS, 5, keep=3, note="Of throughput, not of quality.")
    write_prompt_report(two, PROMPTS, 5, against=one)
    return one / "report.html", two / "report.html"


def test_the_page_is_one_file_and_its_data_stays_data(pages):
    text = pages[0].read_text(encoding="utf-8")
    assert not re.findall(r'(?:src|href|action)="(?!data:)[^"]', text)
    assert not re.findall(r"url\(|@import|fetch\(|XMLHttpRequest", text)
    assert text.count("</script>") == 2
    assert len(text) < 200_000


@pytest.fixture(scope="module")
def browser():
    with contextlib.closing(Browser()) as browser:
        yield browser


@contextlib.contextmanager
def opened(browser, path):
    """The page, fresh; it has fetched nothing and nothing went wrong in it."""
    browser.driver.get_log("browser")
    browser.driver.get(path.as_uri())
    yield browser
    assert [e["message"] for e in browser.driver.get_log("browser")] == []
    names = "return performance.getEntriesByType('resource').map(e => e.name)"
    assert [n for n in browser.run(names) if not re.match("data:|blob:", n)] == []


@with_browser
def test_filters_choose_by_category_challenge_and_words(browser, pages):
    with opened(browser, pages[0]) as page:
        assert page.run(SHOWN) == TEXTS
        assert page.find("#note").text == "Of throughput, not of quality."
        options = [o.text for o in page.all("#category option")]
        assert options == ["all (7)", "Animals (5)", "Arts & Co (2)"]
        page.find("#category").send_keys("Animals")
        assert page.run(SHOWN) == [TEXTS[i] for i in (0, 2, 3, 5, 6)]
        page.find("#challenge").send_keys("Quantity")
        assert page.run(SHOWN) == [TEXTS[i] for i in (2, 5)]
        assert page.find("#count").text == "2 of 7 prompts"
        page.find("#search").send_keys("füch")
        assert page.run(SHOWN) == ["Füchse 🦊"]


@with_browser
def test_the_best_is_shown_first_and_the_others_on_demand(browser, pages):
    records = read_records(pages[0].parent)
    ranked = {
        i: sorted((r for r in records if r["index"] == i), key=lambda r: -r["score"])
        for i in range(7)
    }
    with opened(browser, pages[0]) as page:
        page.find("#order").send_keys("best score")
        by_best = sorted(range(7), key=lambda i: -ranked[i][0]["score"])
        assert page.run(SHOWN) == [TEXTS[i] for i in by_best]
        page.all("#grid button")[2].click()
        expected = ranked[by_best[2]]
        assert page.find("#all-words").text == TEXTS[by_best[2]]
        assert "The best 3 of 5" in page.find("#all-kind").text
        shown = [item.text.split() for item in page.all("#all-grid li")]
        assert [(int(w[1]), w[2]) for w in shown] == [
            (r["seed"], f"{r['score']:.2f}") for r in expected[:3]
        ]
        page.press("\ue00c")
        assert not page.find("#all").is_displayed()
        page.find("#tab-scores").click()
        row = page.find("#by-category tbody tr")
        assert row.text.startswith("Animals 5 25 ")
        row.find_element("css selector", "button").click()
        assert page.find("#count").text == "5 of 7 prompts"


@with_browser
def test_a_blind_vote_is_kept_summed_saved_and_joined(browser, pages, tmp_path):
    place = {"behavior": "allow", "downloadPath": str(tmp_path)}
    left, right = "\ue012", "\ue014"
    with opened(browser, pages[1]) as page:
        page.run("localStorage.clear()")
        page.driver.refresh()
        page.command("Browser.setDownloadBehavior", place)
        page.find("#tab-compare").click()
        page.find("#rater").send_keys("Ada")
        page.find("#ask-prompt").click()
        words = page.find("main").text  # blind
        assert not {"xenon", "yttrium"} & set(words.split())
        shown = {}  # the left picture of each prompt
        for number in range(7):
            prompt = page.find("#ask-prompt").text
            shown[prompt] = page.find("#left").get_attribute("src")
            assert "more realistic" in page.find("#question").text
            page.press(left)
            assert "fits the words" in page.find("#question").text
            page.press(right if number % 2 else left)
        assert page.find("#finished").is_displayed()
        assert sorted(shown) == sorted(TEXTS)
        page.driver.refresh()  # what was said is kept
        page.find("#tab-compare").click()
        assert page.find("#progress").text.startswith("7 of 7 judged by Ada")
        page.find("#download").click()
        saved = tmp_path / "votes-Ada.json"
        page.wait(saved.is_file, 30)
        votes = json.loads(saved.read_text())
        mine = votes["raters"]["Ada"]
        runs = page.run("return data.runs.map(r => r.shown)")
        for prompt, on_left in shown.items():
            index = str(TEXTS.index(prompt))
            preferred = runs[mine[index]["realism"]][index][0]
            assert on_left.endswith(preferred)
        # Two more raters, who always prefer run 0, one of them with the runs swapped.
        for name, first in (("Bo", 0), ("Cy", 1)):
            theirs = {str(i): {"realism": first, "match": first} for i in range(7)}
            ids = votes["runs"][:: 1 if name == "Bo" else -1]
            file = tmp_path / f"{name}.json"
            file.write_text(json.dumps({"runs": ids, "raters": {name: theirs}}))
            page.find("#files").send_keys(str(file))
        page.find("#reveal").click()
        table = page.find("#sums table").text.splitlines()
        total = next(line for line in table if line.startswith("all"))
        for_zero = 14 + sum(vote["realism"] == 0 for vote in mine.values())
        share = f"{100 * for_zero / 21:.1f}"
        assert total.startswith(f"all 21 {for_zero} ({share} %) {21 - for_zero} (")
        assert total.endswith(" 7 0 0")  # two of three raters prefer run 0 everywhere


@with_browser
def test_votes_on_other_runs_are_refused(browser, pages, tmp_path):
    with opened(browser, pages[1]) as page:
        page.find("#tab-compare").click()
        file = tmp_path / "wrong.json"
        file.write_text(json.dumps({"runs": ["a", "b"], "raters": {"x": {}}}))
        page.find("#files").send_keys(str(file))
        page.wait(lambda: "no votes on these" in page.find("#progress").text, 10)


def take_picture(path, out):
    with contextlib.closing(Browser(900, 1080)) as browser:
        halves = []
        for scheme in ("light", "dark"):
            feature = {"name": "prefers-color-scheme", "value": scheme}
            browser.command("Emulation.setEmulatedMedia", {"features": [feature]})
            browser.command("Emulation.setScrollbarsHidden", {"hidden": True})
            browser.driver.get(Path(path).resolve().as_uri())
            if scheme == "dark":
                browser.find("#tab-scores").click()
            else:
                browser.find("#order").send_keys("best score")
                browser.run("document.activeElement.blur()")
                browser.run("document.querySelector('.bar').scrollIntoView()")
            content = browser.driver.get_screenshot_as_png()
            halves.append(Image.open(io.BytesIO(content)).convert("RGB"))
    side_by_side(halves).quantize(128).save(out, optimize=True)


def side_by_side(halves):
    """Two pictures of one size as one."""
    width, height = halves[0].size
    both = Image.new("RGB", (2 * width, height))
    for number, half in enumerate(halves):
        both.paste(half, (number * width, 0))
    return both


if __name__ == "__main__":
    take_picture(*sys.argv[1:])
