"""Look at a page in a real browser, as people with screens, phones, keys or paper do.

Runs in `.browser`: PAGE FOLDER, which gets it on paper and, with --picture, README's picture of it;
prints what was seen as JSON.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

HERE = Path(sys.prefix)
LOOKS = {
    "light": {"color_scheme": "light", "viewport": {"width": 1280, "height": 900}},
    "dark": {"color_scheme": "dark", "viewport": {"width": 1280, "height": 900}},
    "phone": {"color_scheme": "light", "viewport": {"width": 390, "height": 844},
              "has_touch": True},
}  # fmt: skip
# The plot whose points are looked at; each of them stands for a tensor.
PLOT = "section[aria-labelledby=layers] .plot"
TIP = "document.getElementById('tip').hidden ? null : document.getElementById('tip').textContent"


def look(browser: Browser, name: str, url: str) -> dict:
    """One look: what went wrong, what can't be read, whether it fits, and what points tell."""
    # The page's policy would keep axe out as well.
    with browser.new_context(**LOOKS[name], bypass_csp=True) as context:
        page = context.new_page()
        wrong, asked = _listen(page)
        page.goto(url)
        page.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
        page.add_script_tag(path=HERE / "axe.min.js")
        found = page.evaluate("axe.run({resultTypes: ['violations']})")["violations"]
        return {
            "wrong": wrong,
            "asked": asked,
            "violations": [f"{one['id']}: {node['html'][:200]}" for one in found
                           for node in one["nodes"]],
            "too_wide": page.evaluate("document.documentElement.scrollWidth > innerWidth"),
            "told": _touched(page) if name == "phone" else _hovered(page),
        }  # fmt: skip


def strict(browser: Browser, url: str, folder: Path) -> dict:
    """With its policy in force: does its script run; can all be done by keys; what is on paper."""
    with browser.new_context(viewport={"width": 1280, "height": 900}) as context:
        page = context.new_page()
        wrong, asked = _listen(page)
        page.goto(url)
        for _ in range(80):
            page.keyboard.press("Tab")
            if page.evaluate(f"document.activeElement.matches('{PLOT}')"):
                break
        told = []
        for key in ("ArrowRight", "ArrowRight", "End", "Escape"):
            page.keyboard.press(key)
            told.append(page.evaluate(TIP))
        page.pdf(path=folder / "paper.pdf", format="A4")
        return {"wrong": wrong, "asked": asked, "keys": told}


def picture(browser: Browser, url: str, place: Path) -> None:
    """The top of the page, as README has it."""
    with browser.new_context(viewport={"width": 1060, "height": 1190}) as context:
        page = context.new_page()
        page.goto(url)
        page.screenshot(path=place)


def _listen(page: Page) -> tuple[list[str], list[str]]:
    """What goes wrong, and what the page asks of anybody."""
    wrong: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("dialog", lambda dialog: (wrong.append(dialog.message), dialog.dismiss()))
    page.on("request", lambda request: asked.append(request.url.partition(":")[0]))
    return wrong, asked


def _plot(page: Page) -> tuple[float, float]:
    """Where the middle of the plot is, once it can be seen."""
    plot = page.locator(PLOT).first
    plot.evaluate("each => each.scrollIntoView({block: 'center', behavior: 'instant'})")
    box = plot.bounding_box()
    return box["x"] + 0.5 * box["width"], box["y"] + 0.5 * box["height"]


def _hovered(page: Page) -> str | None:
    page.mouse.move(*_plot(page))
    return page.evaluate(TIP)


def _touched(page: Page) -> str | None:
    page.touchscreen.tap(*_plot(page))
    return page.evaluate(TIP)


def main(place: str, folder: Path) -> None:
    """Look at a page in all ways."""
    url = Path(place).absolute().as_uri()
    os.environ["LD_LIBRARY_PATH"] = str(HERE / "chromium-lib/lib")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=HERE / "chromium", args=["--no-sandbox", "--no-zygote", "--disable-gpu"]
        )
        seen = {name: look(browser, name, url) for name in LOOKS}
        seen["strict"] = strict(browser, url, folder)
        if "--picture" in sys.argv:
            picture(browser, url, folder / "report.png")
        browser.close()
    print(json.dumps(seen))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
