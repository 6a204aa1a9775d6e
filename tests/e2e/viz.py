"""Kedro-Viz as a user sees it: its server, and a headless Chromium."""

import json
import os
import shutil
import signal
from contextlib import contextmanager

import pytest
from playwright.sync_api import sync_playwright


@contextmanager
def serving(project, *options):
    """The address of ``kedro viz run``, whose server is ended with all that it started."""
    # Or the next that is free; Kedro-Viz takes no high ones, which the system would give.
    port = 5000 + os.getpid() % 40000
    command = ("viz", "run", "--no-browser", "--include-hooks", f"--port={port}", *options)
    process = project.start(*command, start_new_session=True)
    try:
        lines = []
        while "http://127.0.0.1:" not in (line := process.stdout.readline()):
            lines.append(line)
            assert line, "".join(lines)
        yield line.strip().rstrip("/")
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.communicate()


@contextmanager
def browsing(address, **settings):
    """A page of Kedro-Viz, and the errors of its console; nothing leaves this machine.

    Args:
        settings: What Kedro-Viz remembers of its user, such as the theme.
    """
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("there is no chromium: apt-get install chromium")
    errors = []
    with sync_playwright() as playwright:
        # In a container it runs as root, where Chromium has no sandbox.
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1500, "height": 950}, device_scale_factor=1.5)
        page.route(
            lambda url: not url.startswith(address), lambda route: route.abort("namenotresolved")
        )
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: message.type == "error" and errors.append(message.text))
        remembered = json.dumps({"showFeatureHints": False, **settings})
        page.add_init_script(f"localStorage.KedroViz ??= JSON.stringify({remembered})")
        page.goto(address)
        page.wait_for_selector(".pipeline-node")
        yield page, errors
        browser.close()


def click(page, name):
    """Find an entry in the list, and open its panel."""
    page.get_by_placeholder("Search").fill(name)
    page.get_by_role("button", name=name, exact=True).click()
    page.locator(".pipeline-metadata__title", has_text=name).wait_for()
