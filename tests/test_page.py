"""The page draws in a real browser.

    python tests/test_page.py docs/images/page.png

takes the picture of it in the README, with the shipped model.
"""

import base64
import contextlib
import io
import re
import shutil
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from keras_parti.serving.page import page
from keras_parti.serving.pictures import read_picture
from keras_parti.serving.server import Server

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
NEEDED = "needs a browser: apt-get install chromium chromium-driver"

browsing = [
    pytest.mark.slow,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason=NEEDED),
]


class Browser:
    """A headless browser, with the words that the tests need."""

    def __init__(self, width=1100, height=1000):
        from selenium import webdriver

        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM
        for word in ("headless=new", "no-sandbox", "disable-dev-shm-usage"):
            options.add_argument(f"--{word}")
        options.add_argument(f"--window-size={width},{height}")
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
        self.run = self.driver.execute_script
        self.command = self.driver.execute_cdp_cmd
        self.close = self.driver.quit

    def find(self, selector):
        return self.driver.find_element("css selector", selector)

    def all(self, selector):
        return self.driver.find_elements("css selector", selector)

    def write(self, **values):
        """Fills inputs in, as by typing."""
        for name, value in values.items():
            field = self.find(f"#{name}")
            field.clear()
            field.send_keys(str(value))

    def press(self, *keys):
        """Presses keys wherever the focus is."""
        from selenium.webdriver.common.action_chains import ActionChains

        ActionChains(self.driver).send_keys(*keys).perform()

    def wait(self, condition, seconds=300):
        end = time.monotonic() + seconds
        while not (value := condition()):
            assert time.monotonic() < end, self.find("main").text
            time.sleep(0.02)
        return value

    def drawn(self):
        """Waits for the end of a drawing; returns what the page says of it."""
        self.wait(lambda: not self.all("#pictures[aria-busy]"))
        return self.find("#news").text

    def pictures(self):
        """The pictures that are shown: (seed, bytes of the file), in order."""
        found = []
        for button in self.all("#pictures button"):
            if button.is_displayed():
                image = button.find_element("css selector", "img")
                source = image.get_attribute("src").partition(",")[2]
                seed = int(image.get_attribute("alt").rpartition("seed ")[2])
                found.append((seed, base64.b64decode(source)))
        return found


@pytest.fixture(scope="module")
def browser():
    with contextlib.closing(Browser()) as browser:
        yield browser


@pytest.fixture(scope="module")
def server(exported):
    with Server(
        exported.parent, port=0, rest_port=0, page=True, warm_up=False
    ) as server:
        yield server


@pytest.fixture
def opened(browser, server):
    """The page, fresh; nothing may have gone wrong in it at the end."""
    browser.driver.get_log("browser")
    browser.driver.get(f"http://{server.rest_address}/")
    yield browser
    wrong = [e["message"] for e in browser.driver.get_log("browser")]
    assert not [words for words in wrong if "status of 4" not in words]


def with_browser(function):
    for mark in browsing:
        function = mark(function)
    return function


@with_browser
def test_pictures_are_those_of_the_seeds_and_the_best_come_first(
    opened, exported_client
):
    opened.write(
        prompt="red fox in google style", samples=5, keep=2, seed=11, guidance=3
    )
    opened.press("\ue007")  # Enter
    assert opened.drawn().startswith("The best 2 of 5 in ")
    expected = exported_client.generate(
        ["red fox in google style"], 5, 5, guidance_scale=3.0, seed=11
    )
    shown = opened.pictures()
    assert len(shown) == len(opened.all("#pictures button.best")) == 2
    opened.find("#all").click()
    everything = opened.pictures()
    assert everything[:2] == shown
    assert sorted(seed for seed, _ in everything) == [11, 12, 13, 14, 15]
    for (_, content), image in zip(everything, expected["images"][0], strict=True):
        assert (read_picture(content) == image).all()
    opened.find("#all").click()
    assert opened.pictures() == shown


@with_browser
def test_pictures_come_one_by_one(opened):
    """What the page says and shows grows while it draws."""
    opened.run(
        "window.seen = []; new MutationObserver(() => window.seen.push("
        "[document.getElementById('news').textContent, document.querySelectorAll("
        "'#pictures img').length])).observe(document.getElementById('news'), "
        "{childList: true})"
    )
    opened.write(prompt="a fox", samples=6, keep=6)
    opened.find("#draw").click()
    assert opened.drawn().startswith("6 of 6 in ")
    seen = opened.run("return window.seen")
    assert [seen[0][1], *(count for _, count in seen[1:7])] == [0, 1, 2, 3, 4, 5, 6]
    assert seen[3][0] == "3 of 6 …"


@with_browser
def test_all_of_it_works_by_keyboard(opened):
    tab, enter, escape, right = "\ue004", "\ue007", "\ue00c", "\ue014"
    assert opened.run("return document.activeElement.id") == "prompt"
    opened.press("a fox", tab, tab)
    assert opened.run("return document.activeElement.id") == "samples"
    opened.press("64", enter)  # what a field held is selected on entering it
    opened.wait(lambda: opened.all("#pictures img"))
    opened.press(escape)
    assert opened.drawn().startswith("Stopped. ")
    count = len(opened.all("#pictures li"))
    assert 0 < count < 64
    assert count == len(opened.all("#pictures img"))
    opened.run("document.querySelector('#pictures button').focus()")
    opened.press(enter)
    assert opened.find("#large").is_displayed()
    assert opened.find("#save").get_attribute("download").startswith("a-fox-seed-")
    opened.press(escape)
    assert not opened.find("#large").is_displayed()
    assert opened.run("return document.activeElement.tagName") == "BUTTON"
    opened.run("document.querySelector('[value=smooth]').focus()")
    opened.press(right)
    style = "return getComputedStyle(document.querySelector('img')).imageRendering"
    assert opened.run(style) == "pixelated"


@with_browser
def test_what_is_wrong_is_said_kindly(opened, server):
    opened.write(prompt="a fox", samples=2, guidance=31)
    opened.press("\ue007")
    assert opened.find("#guidance:invalid")
    assert not opened.all("#pictures li")
    # Past the browser's own check, the words are the server's.
    opened.run("document.querySelector('#guidance').max = 99")
    opened.press("\ue007")
    opened.drawn()
    assert opened.find("#wrong").text.startswith(
        "The server cannot draw this: guidance_scale must lie in [0"
    )
    assert opened.find("#news").text == "No picture was drawn."
    assert opened.find("#wrong").get_attribute("role") == "alert"
    opened.write(guidance=3)
    opened.press("\ue007")
    assert opened.drawn().startswith("2 of 2")
    assert not opened.find("#wrong").is_displayed()
    opened.write(prompt="pear " * 200, samples=1)
    opened.press("\ue007")
    assert "its end was cut off" in opened.drawn()


@with_browser
def test_a_server_that_is_gone_is_said_to_be(browser, exported):
    with Server(
        exported.parent, port=0, rest_port=0, page=True, warm_up=False
    ) as server:
        browser.driver.get(f"http://{server.rest_address}/")
    browser.write(prompt="a fox")
    browser.press("\ue007")
    browser.drawn()
    assert "does not answer" in browser.find("#wrong").text
    assert not browser.all("#pictures li")


@with_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_can_be_read_in_light_and_in_dark(opened, scheme):
    """Contrast of WCAG 2, level AA: 4.5 for words."""
    feature = {"name": "prefers-color-scheme", "value": scheme}
    opened.command("Emulation.setEmulatedMedia", {"features": [feature]})
    opened.run("document.getElementById('wrong').hidden = false")
    colours = opened.run("""
        return [...document.querySelectorAll(
            "h1, h1 small, label, summary, input, button, #news, #wrong, a")].map(e => {
          let ground = e, style = getComputedStyle(e);
          while (getComputedStyle(ground).backgroundColor === "rgba(0, 0, 0, 0)")
            ground = ground.parentElement;
          return [e.id || e.tagName, style.color,
                  getComputedStyle(ground).backgroundColor];
        })""")
    opened.command("Emulation.setEmulatedMedia", {"features": []})
    grounds = set()
    for name, ink, ground in colours:
        assert contrast(ink, ground) >= 4.5, (name, ink, ground)
        grounds.add(luminance(ground) > 0.5)
    assert (scheme == "light") in grounds


def luminance(colour):
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4
        for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one, other):
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@with_browser
def test_it_fits_a_telephone_and_fetches_from_its_server_alone(opened, server):
    size = {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}
    opened.command("Emulation.setDeviceMetricsOverride", size)
    opened.write(prompt="a fox", samples=3)
    opened.press("\ue007")
    opened.drawn()
    assert opened.run("return document.documentElement.scrollWidth") <= 360
    opened.command("Emulation.clearDeviceMetricsOverride", {})
    names = "return performance.getEntriesByType('resource').map(e => e.name)"
    origin = f"http://{server.rest_address}/"
    fetched = [n for n in opened.run(names) if not n.startswith("data:")]
    assert fetched
    assert all(name.startswith(origin) for name in fetched)


def test_the_page_is_one_file_for_the_model_it_is_given():
    text = page('a"<b>&c').decode()
    assert '<html lang="en" data-model="a&quot;&lt;b&gt;&amp;c">' in text
    assert not re.findall(r'(?:src|href|action)="(?!data:)[^"]', text)
    assert "url(" not in text
    assert "@import" not in text


def take_picture(path):
    """Draws with the shipped model, in light and in dark, side by side."""
    halves = []
    with (
        Server(Path(__file__).parents[1] / "saved_models" / "emoji", port=0,
               rest_port=0, page=True) as server,
        contextlib.closing(Browser(720, 940)) as browser,
    ):  # fmt: skip
        for scheme in ("light", "dark"):
            feature = {"name": "prefers-color-scheme", "value": scheme}
            browser.command("Emulation.setEmulatedMedia", {"features": [feature]})
            browser.command("Emulation.setScrollbarsHidden", {"hidden": True})
            browser.driver.get(f"http://{server.rest_address}/")
            browser.write(samples=12, keep=8, prompt="red apple in fluent style")
            browser.press("\ue007")
            browser.drawn()
            content = browser.driver.get_screenshot_as_png()
            halves.append(Image.open(io.BytesIO(content)).convert("RGB"))
    width, height = halves[0].size
    both = Image.new("RGB", (2 * width, height))
    for number, half in enumerate(halves):
        both.paste(half, (number * width, 0))
    both.quantize(128).save(path, optimize=True)


if __name__ == "__main__":
    take_picture(sys.argv[1])
