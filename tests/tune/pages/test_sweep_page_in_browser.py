"""The page of a sweep in a real browser: silent, sorted and chosen from by keyboard."""

import pytest

from semprior.pages.write import write_page
from tests.browser import browser
from tests.tune.pages.searched import NAMES, searched
from tune.launch.target import Target
from tune.pages.detections import Wanted
from tune.pages.gathered import gather
from tune.pages.page import sweep_page

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    folder = tmp_path_factory.mktemp("browser")
    data = gather(searched(folder))
    write_page(sweep_page(data, Target(), 3, Wanted(), None), folder / "page.html")
    with browser(folder / "profile") as open_page:
        yield open_page(folder / "page.html")


def test_it_renders_in_silence(reader, tmp_path):
    assert reader.page.locator(".chart svg.main-svg").count() >= 5
    assert reader.page.locator(".parcoords").count() == 1
    for name in NAMES:
        assert reader.page.get_by_text(name, exact=True).count()
    reader.page.screenshot(path=tmp_path / "page.png", full_page=True)
    assert (tmp_path / "page.png").stat().st_size > 50_000
    assert (reader.errors, reader.requests) == ([], [])


def test_the_ranking_is_sorted_and_hints_show_settings(reader):
    table = reader.page.locator("section:has(#ranking) table")
    places = table.locator("tbody tr > :first-child")
    table.get_by_role("button", name="point_score").press("Enter")
    ascending = places.all_inner_texts()
    table.get_by_role("button", name="point_score").press("Enter")
    assert places.all_inner_texts() == ascending[::-1]
    table.locator("[data-tip]", has_text="0001").hover()
    assert "clusters.count = 7" in reader.page.locator("#tip").inner_text()


def test_any_two_dimensions_are_chosen_by_keyboard(reader):
    choice = reader.page.locator(".choice")
    assert choice.locator(".chosen:visible .main-svg").count() >= 1
    first = choice.locator(".chosen:visible .xtitle").text_content()
    choice.get_by_role("combobox").focus()
    for _ in range(8):
        reader.page.keyboard.press("ArrowDown")
    choice.locator(".chosen:visible .xtitle").wait_for()
    assert choice.locator(".chosen:visible").count() == 1
    titles = [choice.locator(f".chosen:visible .{name}").text_content() for name in ("xtitle", "ytitle")]
    assert " and ".join(titles) == choice.locator("option").nth(8).text_content()
    assert titles[0] != first
    assert (reader.errors, reader.requests) == ([], [])
