"""Take the pictures of the docs: a real run's report, on a desk and on a phone, its section on memory, and what
`goldpath plan` prints, as Chromium shows them.

Run: `make picture`, or `python docs/images/take.py [RUN] [--only NAME]`, a name being `report-desktop` and so on.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright
from rich.console import Console
from rich.text import Text

FOLDER = Path(__file__).parent
SCREENS = {"report-desktop": (1280, 1240), "report-phone": (390, 844)}
SECTIONS = {"memory-desktop": (1280, 900), "memory-phone": (390, 844)}
PLAN = ["plan", "train", "--model", "Llama-3.1-8B", "--method", "full", "--gpu", "A100-80GB"]
NAMES = (*SCREENS, *SECTIONS, "plan")
SHARP = 1.5
"""Pixels of a picture for one of the page."""


def main() -> None:
    """All pictures, or one."""
    parser = argparse.ArgumentParser()
    parser.add_argument("run", nargs="?", help="whose report; the latest without it")
    parser.add_argument("--only", choices=NAMES, action="append", help="leave the others as they are")
    asked = parser.parse_args()
    chosen = asked.only or NAMES
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("error: no Chromium here. Install it: `apt-get install chromium`.")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        if set(chosen) - {"plan"}:
            report = Path(goldpath("report", *([asked.run] if asked.run else [])).strip())
            for name in (name for name in chosen if name != "plan"):
                take_report(browser, report, name)
        if "plan" in chosen:
            take_plan(browser)
        browser.close()


def goldpath(*words: str, **environment: str) -> str:
    """What a command prints."""
    command = [sys.executable, "-m", "goldpath.cli.main", *words]
    env = {**os.environ, **environment}
    return subprocess.run(command, check=True, capture_output=True, text=True, env=env).stdout


def take_report(browser: Browser, report: Path, name: str) -> None:
    """The top of the page, or its section on memory."""
    width, height = {**SCREENS, **SECTIONS}[name]
    page = browser.new_page(viewport={"width": width, "height": height}, device_scale_factor=SHARP)
    page.goto(report.as_uri())
    file = FOLDER / f"{name}.png"
    if name in SECTIONS:
        page.locator("#memory").screenshot(path=file)
    else:
        page.screenshot(path=file)
    print(file)


def take_plan(browser: Browser) -> None:
    """The terminal, drawn by rich from the very characters that the command prints."""
    printed = goldpath(*PLAN, FORCE_COLOR="1", COLUMNS="126")
    console = Console(record=True, width=126, file=io.StringIO())
    console.print(Text(f"$ goldpath {' '.join(PLAN)}", style="bold"), "", Text.from_ansi(printed), sep="\n")
    page = browser.new_page(viewport={"width": 1280, "height": 900}, device_scale_factor=SHARP)
    page.set_content(console.export_svg(title="goldpath plan"))
    page.locator("svg").first.screenshot(path=FOLDER / "plan.png")
    print(FOLDER / "plan.png")


if __name__ == "__main__":
    main()
