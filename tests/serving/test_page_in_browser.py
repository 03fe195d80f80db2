"""The page, in a browser: typed into, scrolled, dropped on, filtered, on a phone, in the dark."""

from __future__ import annotations

import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from serving_toys import encoded, engine_of, opened, picture

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BROWSER = os.environ.get("LATEEN_BROWSER") or next(filter(None, map(shutil.which, BROWSERS)), None)
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
]  # fmt: skip
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}

pytest.importorskip("playwright", reason="needs playwright: pip install 'lateen[dev]'")
pytest.importorskip("uvicorn")
pytestmark = pytest.mark.skipif(
    BROWSER is None, reason=f"no browser is installed ({', '.join(BROWSERS)}, or $LATEEN_BROWSER)"
)


class Server:
    """A server of the drawn photographs, in a thread."""

    def __init__(self, app: Any, port: int = 0) -> None:
        import uvicorn

        config = uvicorn.Config(app, port=port, log_level="error", ws="none", lifespan="on")
        self.app, self._server = app, uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run)
        self._thread.start()
        while not self._server.started:
            assert self._thread.is_alive()
            time.sleep(0.01)
        self.port: int = self._server.servers[0].sockets[0].getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(20)


@pytest.fixture(scope="module")
def server(made: Path) -> Iterator[Server]:
    from lateen.serving import ServeSettings, create_app

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LATEEN_CACHE", str(made / "cache"))
        running = Server(create_app(opened(made, calibrated=True), ServeSettings(rate=0)))
        yield running
        running.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as tools:
        running = tools.chromium.launch(executable_path=BROWSER, args=ARGUMENTS)
        yield running
        running.close()


Open = Callable[..., Any]


@pytest.fixture
def visit(browser: Any, server: Server) -> Iterator[Open]:
    """A page of a visitor's; what goes wrong in its script fails the test."""
    contexts, wrong, foreign = [], [], []

    def opening(path: str = "/", *, quiet: bool = False, **settings: Any) -> Any:
        context = browser.new_context(**settings)
        contexts.append(context)
        context.grant_permissions(["clipboard-read", "clipboard-write"])
        page = context.new_page()
        page.set_default_timeout(8000)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda r: foreign.append(r.url) if outside(r.url, server) else None)
        if not quiet:
            page.on("console", lambda m: wrong.append(m.text) if m.type == "error" else None)
        page.goto(server.address + path)
        return page

    yield opening
    for each in contexts:
        each.close()
    assert not wrong
    assert not foreign


def outside(url: str, server: Server) -> bool:
    return not url.startswith((server.address, "blob:", "data:"))


def search(page: Any, words: str) -> None:
    page.fill("#words", words)
    page.press("#words", "Enter")


def until(page: Any, true: str) -> None:
    """Wait for an expression; asked from here, as the page lets no text be run as a script."""
    for _ in range(400):
        if page.evaluate(true):
            return
        time.sleep(0.02)
    raise AssertionError(f"never true: {true}")


def tiles(page: Any, count: int) -> Any:
    until(page, f"document.querySelectorAll('.tile').length === {count}")
    return page.locator(".tile")


def loaded(page: Any) -> None:
    """Every picture in sight is there."""
    first = "[...document.querySelectorAll('.tile img')].slice(0, 6)"
    until(page, f"{first}.every(i => i.naturalWidth > 0)")


def settled(page: Any) -> None:
    """What was asked for is there, whatever it is."""
    shown = "#grid:not([aria-busy=true]) .tile, #labels:not([aria-busy=true]) .label, h1"
    until(page, f"[...document.querySelectorAll('{shown}')].some(e => e.checkVisibility())")


def fits(page: Any) -> bool:
    widths = "(({scrollWidth, clientWidth}) => scrollWidth <= clientWidth)"
    return bool(page.evaluate(f"{widths}(document.documentElement)"))


def test_words_typed_find_photographs_and_the_address_keeps_them(visit: Open) -> None:
    page = visit()
    assert page.evaluate("document.activeElement.id") == "words"
    assert page.locator("h1", has_text="36 photographs").is_visible()
    page.keyboard.type("red")
    page.keyboard.press("Enter")
    found = tiles(page, 12)
    loaded(page)
    assert "red-" in found.first.locator("img").get_attribute("alt")
    assert page.url.endswith("/?q=red")
    assert "among 36 photographs" in page.text_content("#status")
    assert page.title().startswith("red – ")
    assert "hardly show it" in page.text_content("#end")
    search(page, "blue")
    page.wait_for_url("**/?q=blue")
    until(page, "document.querySelector('.tile img')?.alt.startsWith('blue-')")
    page.go_back()
    page.wait_for_url("**/?q=red")
    until(page, "document.querySelector('.tile img')?.alt.startsWith('red-')")
    assert page.input_value("#words") == "red"
    page.click("#copy")
    page.locator("#copy", has_text="Link copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == page.url


def test_nothing_moves_when_pictures_arrive(visit: Open) -> None:
    page = visit("/?q=red")
    tiles(page, 12)
    before = page.evaluate("[...document.querySelectorAll('.tile')].map(t => t.offsetTop)")
    loaded(page)
    assert page.evaluate("[...document.querySelectorAll('.tile')].map(t => t.offsetTop)") == before


def test_nothing_like_it_is_said_in_words_and_the_nearest_shown_if_asked_for(visit: Open) -> None:
    page = visit("/?q=red+%2B+green+%2B+blue")
    page.locator("h1", has_text="Nothing like that here").wait_for()
    assert "below 50.0 %" in page.text_content("#nothing-words")
    page.click("#anyway")
    page.wait_for_url("**all=1*")
    assert tiles(page, 36).count() == 36


def test_the_grid_grows_as_one_scrolls(visit: Open, server: Server) -> None:
    page = visit(viewport={"width": 700, "height": 500})
    page.route("**/page.js*", lambda route: route.fulfill(
        body=route.fetch().text().replace("const PAGE = 48", "const PAGE = 8"),
        content_type="text/javascript",
    ))  # fmt: skip
    page.goto(f"{server.address}/?q=red&all=1")
    page.wait_for_selector(".tile")
    for _ in range(40):
        page.mouse.wheel(0, 900)
        if page.locator(".tile").count() == 36:
            break
        page.wait_for_timeout(50)
    assert tiles(page, 36)
    names = page.eval_on_selector_all(".tile a", "all => all.map(a => a.href)")
    assert len(set(names)) == 36
    assert not page.is_visible("#more")


@pytest.mark.parametrize("way", ["choose", "drop", "paste"])
def test_a_picture_finds_what_is_like_it(visit: Open, tmp_path: Path, way: str) -> None:
    page = visit()
    data = encoded(picture("green", size=(1600, 1200), seed=50), "JPEG")
    path = tmp_path / "mine.jpg"
    path.write_bytes(data)
    if way == "choose":
        with page.expect_file_chooser() as chooser:
            page.click("#choose")
        chooser.value.set_files(path)
    else:
        page.evaluate(
            """([bytes, way]) => {
              const transfer = new DataTransfer();
              transfer.items.add(new File([new Uint8Array(bytes)], "a.jpg", {type: "image/jpeg"}));
              const event = way === "drop"
                ? new DragEvent("drop", {dataTransfer: transfer, cancelable: true, bubbles: true})
                : new ClipboardEvent("paste", {clipboardData: transfer, cancelable: true});
              window.dispatchEvent(event);
            }""",
            [list(data), way],
        )
    until(page, "document.querySelector('.tile img')?.alt.startsWith('green-')")
    assert page.is_visible("#picture")
    assert not page.is_visible("#copy")  # no link can say a picture of one's own
    search(page, "blue")
    until(page, "document.querySelector('#status b')?.textContent.includes('blue')")
    page.click("#remove")
    page.wait_for_url("**/?q=blue")
    assert not page.is_visible("#picture")
    until(page, "document.querySelector('.tile img')?.alt.startsWith('blue-')")


def test_what_is_no_picture_is_told(visit: Open, tmp_path: Path) -> None:
    page = visit(quiet=True)
    (tmp_path / "notes.jpg").write_text("no picture")
    page.set_input_files("#file", tmp_path / "notes.jpg")
    page.locator("#problem", has_text="picture cannot be read").wait_for()
    search(page, "red")
    page.locator("#problem", has_text="picture cannot be read").wait_for()
    page.click("#remove")
    tiles(page, 12)
    assert page.text_content("#problem") == ""


def test_folder_and_date_filter(visit: Open) -> None:
    page = visit("/?q=red")
    tiles(page, 12)
    page.select_option("#folder", "Italy")
    page.wait_for_url("**folder=Italy*")
    page.locator("#status", has_text="among 18 photographs").wait_for()
    page.fill("#since", "2021-01-01")
    page.wait_for_url("**since=2021-01-01*")
    until(page, "!document.querySelector('#status').textContent.includes('among 18')")
    assert page.get_attribute("#since", "min") == "2018-05-31"
    page.reload()
    assert page.input_value("#folder") == "Italy"
    page.fill("#until", "2020-01-01")
    page.locator("h1", has_text="No photographs").wait_for()
    page.click("#clear")
    tiles(page, 12)
    assert page.url.endswith("/?q=red")


def test_labels_sort_photographs(visit: Open) -> None:
    page = visit()
    page.click("#to-labels")
    page.keyboard.type("red, green, blue")
    page.keyboard.press("Enter")
    page.wait_for_selector(".label")
    heads = page.locator(".label h2").all_text_contents()
    assert heads == ["red12 · 33.3 %", "green12 · 33.3 %", "blue12 · 33.3 %"]
    assert "labels=red" in page.url
    page.locator(".label").nth(2).locator(".tile a").first.click()
    assert page.text_content("#view-name").startswith("blue-")
    page.keyboard.press("Escape")
    page.click("#to-find")
    assert page.locator(".label").count() == 0


def test_one_label_is_too_few(visit: Open) -> None:
    page = visit("/?labels=red", quiet=True)
    page.locator("#problem", has_text="labels").wait_for()


def test_a_photograph_is_seen_large_by_keyboard_alone(visit: Open) -> None:
    page = visit("/?q=red")
    tiles(page, 12)
    page.focus(".tile a")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement === document.querySelectorAll('.tile a')[1]")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Enter")
    assert page.evaluate("document.querySelector('#view').open")
    names = [page.text_content("#view-name")]
    page.keyboard.press("ArrowRight")
    names.append(page.text_content("#view-name"))
    facts = page.text_content("#view-facts")
    for word in ("probability", "cosine", "taken", "folder", "size"):
        assert word in facts
    until(page, "document.querySelector('#view-image').src.includes('/api/image/')")
    page.keyboard.press("ArrowLeft")
    assert page.text_content("#view-name") == names[0] != names[1]
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Escape")
    until(page, "!document.querySelector('#view').open")
    until(page, "document.activeElement === document.querySelectorAll('.tile a')[1]")
    page.keyboard.press("Enter")
    page.click("#view-like")
    page.wait_for_url(re.compile("like="))
    tiles(page, 35)
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "words"


def test_what_goes_wrong_is_told_and_tried_again(visit: Open, server: Server) -> None:
    page = visit(quiet=True)
    search(page, "- red")
    page.locator("#problem", has_text="not wanted").wait_for()
    assert page.get_attribute("#problem", "role") == "alert"
    page.route("**/api/search*", lambda route: route.abort())
    search(page, "red")
    page.locator("#problem", has_text="does not answer").wait_for()
    page.unroute("**/api/search*")
    page.click("#problem button")
    tiles(page, 12)
    assert page.text_content("#problem") == ""
    page.route("**/api/search*", lambda route: route.fulfill(
        status=429, json={"error": "This is more than one client may ask.", "remedy": "Wait."}
    ))  # fmt: skip
    search(page, "blue")
    page.locator("#problem", has_text="more than one client may ask. Wait.").wait_for()


def test_a_photograph_that_is_gone_says_so_in_its_place(visit: Open, server: Server) -> None:
    page = visit(quiet=True)
    gone = {"error": "a.jpg is not there any more.", "remedy": ""}
    page.route("**/api/thumbnail/**", lambda route: route.fulfill(status=410, json=gone))
    search(page, "red")
    tiles(page, 12)
    page.locator(".lost", has_text="not there any more").first.wait_for()


def test_a_server_that_is_busy_is_asked_for_pictures_again(visit: Open) -> None:
    page = visit(quiet=True)
    refused: list[str] = []

    def busy(route: Any) -> None:
        if len(refused) < 12:
            refused.append(route.request.url)
            route.fulfill(status=503, json={"error": "too many pictures", "remedy": ""})
        else:
            route.continue_()

    page.route("**/api/thumbnail/**", busy)
    search(page, "red")
    tiles(page, 12)
    loaded(page)
    assert len(refused) == 12
    assert page.locator(".lost").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone_nothing_is_wider_than_it(visit: Open, server: Server, scheme: str) -> None:
    page = visit(color_scheme=scheme, **PHONE)
    for path in ("/", "/?q=red", "/?q=red+%2B+green+%2B+blue", "/?labels=red%2C+blue", "/docs",
                 "/?labels="):  # fmt: skip
        page.goto(server.address + path)
        settled(page)
        assert fits(page), path
    page.goto(f"{server.address}/?q=red")
    tiles(page, 12)
    assert not page.is_visible("#folder")
    page.click("#unfold")
    assert page.is_visible("#folder") and fits(page)
    page.locator(".tile a").first.tap()
    assert page.evaluate("document.querySelector('#view').open") and fits(page)


CONTRAST = """() => {
  const number = (c) => c.match(/[0-9.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (e) => {
    for (; e; e = e.parentElement) {
      const c = number(getComputedStyle(e).backgroundColor);
      if (c.length < 4 || c[3] === 1) return c;
    }
    return [255, 255, 255];
  };
  const bad = [];
  for (const e of document.querySelectorAll("body *")) {
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || e.closest(".tile, [hidden], noscript, .hidden, .drop, option")) continue;
    if (!e.checkVisibility()) continue;
    const [a, b] = [light(number(getComputedStyle(e).color)), light(behind(e))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) bad.push(`${e.tagName} ${e.textContent.trim().slice(0, 30)} ${ratio}`);
  }
  return bad;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_light_and_dark(visit: Open, server: Server, scheme: str) -> None:
    page = visit(color_scheme=scheme)
    dark = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    assert (dark == "rgb(20, 23, 26)") is (scheme == "dark")
    for path in ("/", "/?q=red", "/?q=red+%2B+green+%2B+blue", "/?labels=red%2C+blue", "/docs"):
        page.goto(server.address + path)
        settled(page)
        assert page.evaluate(CONTRAST) == [], path


def test_all_that_can_be_used_has_a_name(visit: Open, server: Server) -> None:
    page = visit("/?q=red")
    tiles(page, 12)
    page.locator(".tile a").first.click()
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll("button, a, input, select, img, dialog, ul.grid")]
          .filter((e) => e.checkVisibility())
          .filter((e) => !(e.getAttribute("aria-label") || e.getAttribute("aria-labelledby")
            || e.alt || e.textContent.trim() || e.labels?.length || e.querySelector("img[alt]")))
          .map((e) => e.outerHTML)"""
    )
    assert unnamed == []
    page.keyboard.press("Escape")
    page.goto(f"{server.address}/?q=red")
    tiles(page, 12)
    page.keyboard.press("Tab")
    assert page.text_content(":focus") == "Skip to the photographs"
    assert page.locator(":focus").is_visible()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.matches('.tile > a')")


def test_names_of_files_are_shown_and_never_run(visit: Open) -> None:
    page = visit()
    evil = {"id": "<img src=x onerror=alert(1)>.jpg", "path": "x", "score": 0.5,
            "captions": ["<script>alert(2)</script>"], "folder": "\"><b>x"}  # fmt: skip
    answer = {"hits": [evil], "query": "<i>red</i>", "among": 1, "cut_off": None, "nothing": False,
              "nearest": None, "next": None}  # fmt: skip
    page.route("**/api/search*", lambda route: route.fulfill(json=answer))
    page.route("**/api/thumbnail/**", lambda r: r.fulfill(body=encoded(picture("red"))))
    page.route("**/api/image/**", lambda r: r.fulfill(body=encoded(picture("red"))))
    search(page, "red")
    tiles(page, 1).locator("a").click()
    assert page.text_content("#view-name") == evil["id"]
    assert page.text_content("#view-caption") == evil["captions"][0]
    assert page.text_content("#status b") == "<i>red</i>"
    assert page.locator("#view-facts b").count() == 0


def test_a_visitor_without_the_token_types_it_once(browser: Any, made: Path) -> None:
    from lateen.serving import ServeSettings, create_app

    token = "a token of some length"
    running = Server(create_app(opened(made), ServeSettings(rate=0, token=token)))
    try:
        page = browser.new_context().new_page()
        page.goto(f"{running.address}/?q=red")
        page.fill("#token", "wrong one")
        page.keyboard.press("Enter")
        page.locator("text=That is another token").wait_for()
        page.fill("#token", token)
        page.keyboard.press("Enter")
        page.wait_for_selector("#words")
        search(page, "red")
        page.wait_for_selector(".tile img")
        other = browser.new_context().new_page()
        other.goto(f"{running.address}/?token={token}&q=red")
        other.wait_for_selector(".tile img")
        assert "token" not in other.url
        assert other.evaluate("document.cookie") == ""
        assert engine_of(running).count == 36
    finally:
        running.stop()
