"""sb-server's page in Debian's chromium: what somebody types, sees, stops and reads. `make test-page` runs it.

Pictures of it are left in build/page: light and dark, wide and as a phone shows it.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from binding_models import convert  # noqa: E402
from running_server import Server  # noqa: E402

PICTURES = ROOT / "build" / "page"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return convert(ROOT / "examples" / "small", tmp_path_factory.mktemp("page") / "small-spikes.gguf", "--outtype", "q4_0", "--spike")


@pytest.fixture(scope="module")
def server(model):
    with Server(model, model.parent / "server.log", "--slots") as s:
        yield s


@pytest.fixture(scope="module")
def browser():
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1280,800"):  # the sandbox: not for root
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService("/usr/bin/chromedriver"))
    driver.set_page_load_timeout(30)
    yield driver
    driver.quit()


@pytest.fixture
def page(browser, server):
    """Freshly loaded; nothing may have been said on the console when the test is over."""
    browser.get_log("browser")
    browser.get(server.url)
    yield Page(browser)
    said = [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE" and "status of 4" not in entry["message"]]
    assert said == []


class Page:
    def __init__(self, browser):
        self.browser = browser
        self.until(lambda: "million weights" in self.text("facts"))

    def until(self, condition, seconds: float = 20):
        WebDriverWait(self.browser, seconds, 0.03).until(lambda _: condition())

    def __getitem__(self, name):
        return self.browser.find_element(By.ID, name)

    def text(self, name) -> str:
        return self[name].text

    def words(self) -> str:
        """Of the last message."""
        return self.browser.execute_script("return [...document.querySelectorAll('.words')].at(-1)?.textContent ?? ''")

    def roles(self) -> list[str]:
        return [m.get_attribute("class").split()[1] for m in self.browser.find_elements(By.CLASS_NAME, "message")]

    def set(self, **values) -> None:
        self.browser.execute_script("document.getElementById('settings').open = true")
        for name, value in values.items():
            self[name].clear()
            self[name].send_keys(str(value))

    def ask(self, text: str) -> None:
        self["text"].send_keys(text + Keys.ENTER)

    def writing(self) -> bool:
        return self["stop"].is_displayed()


def busy_slots(server: Server) -> int:
    return sum(slot["is_processing"] for slot in server.get("/slots"))


# --- the chat -----------------------------------------------------------------------------------------------------------

def test_it_says_which_model_this_is_and_what_it_takes(page):
    assert page.text("model") == "small-spikes.gguf"
    facts = page.text("facts")
    assert "4.6 million weights" in facts and "context without bound" in facts and "MiB for each of 4 slots" in facts


def test_an_answer_comes_piece_by_piece_and_the_conversation_goes_on(page):
    page.set(most=400, temperature=0)
    page.browser.execute_script(
        "window.seen = new Set();"
        "new MutationObserver(() => seen.add(document.querySelector('.assistant .words')?.textContent)).observe(document.getElementById('log'), {childList: true, subtree: true})")
    page.ask("How do I install a package?")
    page.until(lambda: page.words() and not page.writing())
    pieces = page.browser.execute_script("return [...seen].filter(Boolean)")
    assert len(pieces) > 1 and all(page.words().startswith(piece) for piece in pieces)
    assert "tokens/s" in page.browser.find_element(By.CLASS_NAME, "note").text
    page.ask("And then?")
    page.until(lambda: len(page.roles()) == 4 and not page.writing())
    assert page.roles() == ["user", "assistant"] * 2
    known = int(page.browser.find_elements(By.CLASS_NAME, "note")[1].text.split("read, ")[1].split()[0])
    assert known > 10  # the first question was not read again


def test_stop_ends_the_answer_and_frees_the_slot(page, server):
    page.set(most=200000)
    page.ask("Count")
    page.until(lambda: len(page.words()) > 20)
    page["stop"].click()
    page.until(lambda: not page.writing(), 3)
    stopped = page.words()
    page.until(lambda: busy_slots(server) == 0, 3)
    assert page.words() == stopped and page.browser.find_element(By.CLASS_NAME, "note").text == "stopped"


def test_shift_enter_begins_a_line_and_a_refusal_is_the_servers_sentence(page):
    page["text"].send_keys("one", Keys.SHIFT, Keys.ENTER, Keys.NULL, "two")
    assert page["text"].get_attribute("value") == "one\ntwo" and page.roles() == []
    page.set(temperature="-1")
    page.ask("")
    page.until(lambda: page["error"].is_displayed())
    assert "temperature" in page.text("error")
    assert page["text"].get_attribute("value") == "one\ntwo" and page.roles() == []  # nothing is lost


def test_texts_are_texts(page):
    """Of either side; scripts of others have no chance."""
    page.set(most=4)
    page.ask("<img src=x onerror=document.title='bad'><b>bold</b>")
    page.until(lambda: len(page.roles()) == 2 and not page.writing())
    assert page.browser.find_elements(By.CSS_SELECTOR, "#log img, #log b, #log script") == [] and "bad" not in page.browser.title
    page.browser.execute_script("const s = document.createElement('script'); s.textContent = 'window.ran = 1'; document.body.append(s)")
    assert page.browser.execute_script("return window.ran") is None
    page.browser.get_log("browser")  # the refused script


# --- the spikes ----------------------------------------------------------------------------------------------------------

def drawn(page, canvas: str) -> int:
    """Pixels that are not empty."""
    return page.browser.execute_script(
        f"const c = document.getElementById('{canvas}'); const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
        "let n = 0; for (let i = 3; i < d.length; i += 4) n += d[i] > 0; return n")


def test_the_spikes_fill_while_the_answer_is_written(page, server):
    page.set(most=200000)
    page.ask("def f(")
    page.until(lambda: page.text("counted") not in ("–", ""))
    counted = int(page.text("counted").replace(",", ""))
    page.until(lambda: int(page.text("counted").replace(",", "")) > counted)
    assert page.writing()
    page["stop"].click()
    page.until(lambda: not page.writing())
    time.sleep(0.6)
    assert page.text("silent").endswith("%") and float(page.text("mean")) > 0 and drawn(page, "bars") > 100 and drawn(page, "map") > 1000
    before = drawn(page, "map")
    page.browser.execute_script("const s = document.getElementById('input'); s.value = '3 ffn_down'; s.dispatchEvent(new Event('change'))")
    page.until(lambda: "ffn_down" in page.text("of-input"))
    assert drawn(page, "map") != before
    got = server.get("/spikes?layer=3&input=ffn_down")
    (of_input,) = (i for i in got["inputs"] if (i["layer"], i["input"]) == (3, "ffn_down"))
    assert page.text("silent") == f"{100 * got['silent_share']:.1f}%" and page.text("of-input").startswith(f"{100 * of_input['silent_share']:.1f}%")


def test_a_model_without_spikes_has_no_such_part(browser, model, tmp_path):
    with Server(model, tmp_path / "log", "--override-kv", "spikingbrain.spike.enable=bool:false") as plain:
        browser.get(plain.url)
        page = Page(browser)
        assert not page["spikes"].is_displayed()
        page.set(most=5)
        page.ask("Hello")
        page.until(lambda: len(page.roles()) == 2 and not page.writing())
        assert page.words() and not page["error"].is_displayed()


def test_a_key_is_asked_for(browser, model, tmp_path):
    with Server(model, tmp_path / "log", "--api-key", "secret") as guarded:
        browser.get(guarded.url)
        WebDriverWait(browser, 10).until(lambda b: b.find_element(By.ID, "key").is_displayed())
        assert "API Key" in browser.find_element(By.ID, "error").text
        browser.find_element(By.ID, "key").send_keys("secret" + Keys.TAB)
        page = Page(browser)
        assert not page["error"].is_displayed() and page["spikes"].is_displayed()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width, height", [(1280, 800), (390, 844)])
def test_pictures(page, scheme, width, height):
    """For the eye; asserted is that nothing hangs over the edge."""
    page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]})
    page.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500})
    try:
        page.set(most=110, temperature=0)
        page.browser.execute_script("document.getElementById('settings').open = false")
        page.ask("How do I install a package?")
        page.until(lambda: page.roles() and not page.writing())
        time.sleep(0.6)
        PICTURES.mkdir(parents=True, exist_ok=True)
        assert page.browser.execute_script("return document.documentElement.scrollWidth") <= width
        page.browser.save_screenshot(str(PICTURES / f"{scheme}-{width}.png"))
    finally:
        page.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
