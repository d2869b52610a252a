"""Take the pictures of the docs: the top of a real run's report, on a desk and on a phone, as Chromium shows it.

Run: `make picture`, or `python docs/images/take.py [RUN]`.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

FOLDER = Path(__file__).parent
SCREENS = {"desktop": (1280, 1240), "phone": (390, 844)}


def main() -> None:
    """One picture a screen."""
    command = [sys.executable, "-m", "goldpath.cli.main", "report", *sys.argv[1:2]]
    report = Path(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip())
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("error: no Chromium here. Install it: `apt-get install chromium`.")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        for name, (width, height) in SCREENS.items():
            page = browser.new_page(viewport={"width": width, "height": height}, device_scale_factor=1.5)
            page.goto(report.as_uri())
            page.screenshot(path=FOLDER / f"report-{name}.png")
            print(FOLDER / f"report-{name}.png")
        browser.close()


if __name__ == "__main__":
    main()
