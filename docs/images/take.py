"""Take the pictures of the docs as Chromium shows them: a real run's report, on a desk and on a phone, its section on
memory; what `goldpath plan` and `goldpath doctor --gpus` print; and one A100 in all the ways to share it.

Run: `make picture`, or `python -m docs.images.take [RUN] [--only NAME]`, a name being `report-desktop` and so on.
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

from docs.images import a100

FOLDER = Path(__file__).parent
SCREENS = {"report-desktop": (1280, 1240), "report-phone": (390, 844)}
SECTIONS = {"memory-desktop": (1280, 900), "memory-phone": (390, 844)}
PLAN = ["plan", "train", "--model", "Llama-3.1-8B", "--method", "full", "--gpu", "A100-80GB"]
DOCTOR = ["doctor", "--gpus"]
REPORTS = (*SCREENS, *SECTIONS)
NAMES = (*REPORTS, "plan", "doctor-gpus", "a100")
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
        if wanted := [name for name in chosen if name in REPORTS]:
            report = Path(goldpath("report", *([asked.run] if asked.run else [])).strip())
            for name in wanted:
                take_report(browser, report, name)
        if "plan" in chosen:
            take_terminal(browser, "plan", PLAN, 126)
        if "doctor-gpus" in chosen:
            with a100.cluster() as kubeconfig:
                take_terminal(browser, "doctor-gpus", DOCTOR, 134, KUBECONFIG=str(kubeconfig))
        if "a100" in chosen:
            take_page(browser, "a100", a100.page())
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


def take_terminal(browser: Browser, name: str, words: list[str], columns: int, **environment: str) -> None:
    """A terminal, drawn by rich from the very characters that the command prints."""
    printed = goldpath(*words, FORCE_COLOR="1", COLUMNS=str(columns), **environment)
    console = Console(record=True, width=columns, file=io.StringIO())
    console.print(Text(f"$ goldpath {' '.join(words)}", style="bold"), "", Text.from_ansi(printed), sep="\n")
    take_page(browser, name, console.export_svg(title=f"goldpath {words[0]}"))


def take_page(browser: Browser, name: str, html: str) -> None:
    """What the page draws: its first picture, or the whole of it."""
    page = browser.new_page(viewport={"width": 1280, "height": 900}, device_scale_factor=SHARP)
    page.set_content(html)
    page.locator("svg, main").first.screenshot(path=FOLDER / f"{name}.png")
    print(FOLDER / f"{name}.png")


if __name__ == "__main__":
    main()
