"""Makes the README's pictures of Kedro-Viz anew, from what ``make run`` has left in this folder.

.venv/bin/pytest tests/e2e/screenshots.py
"""

from tests.e2e.conftest import REPOSITORY, Project
from tests.e2e.viz import browsing, click, serving

IMAGES = REPOSITORY / "docs/images"
MENUS = 136
"""Pixels on the left."""
SETTLED = 1500
"""Milliseconds until nothing moves any more."""


def test_pictures_of_the_flowchart_and_of_a_plot_are_made(monkeypatch):
    monkeypatch.setenv("PYTHONHASHSEED", "1")  # by it Kedro-Viz orders layers that no arrow orders
    panels = {"graph": True, "sidebar": False, "miniMap": False}
    project = Project(REPOSITORY)
    with serving(project) as address, browsing(address, theme="light", visible=panels) as (page, _):
        page.add_style_tag(content="[class^=update-reminder] {display: none !important}")
        page.set_viewport_size({"width": 1280, "height": 740})
        page.get_by_role("button", name="Reset zoom").click()
        page.mouse.move(700, 1)
        page.wait_for_timeout(SETTLED)
        chart = {"x": MENUS, "y": 0, "width": 1280 - MENUS, "height": 740}
        page.screenshot(path=IMAGES / "viz-flowchart.png", clip=chart)
        page.get_by_role("button", name="Show menu").click()
        click(page, "score_plot")
        page.get_by_role("button", name="Expand preview").click()
        # The click has scrolled what lies behind the panel.
        page.evaluate("document.querySelectorAll('*').forEach(each => each.scrollTo(0, 0))")
        page.mouse.move(700, 1)
        page.wait_for_timeout(SETTLED)
        page.screenshot(path=IMAGES / "viz-score-plot.png")

    assert all(image.stat().st_size < 250_000 for image in IMAGES.glob("viz-*.png"))
