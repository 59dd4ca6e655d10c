"""The page in a real browser: silent, usable by pointer and by keyboard, in both themes and on paper."""

import pytest

from semprior.pages.write import write_page
from tests.browser import browser, wait_until_drawn
from tests.semprior.pages.made_up import NAMES, SCORES, page

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """A function that opens a page in a new tab."""
    with browser(tmp_path_factory.mktemp("browser")) as open_page:
        yield open_page


@pytest.fixture(scope="module")
def reader(opened, tmp_path_factory):
    file = tmp_path_factory.mktemp("pages") / "page.html"
    write_page(page(), file)
    return opened(file)


@pytest.fixture
def numbers(reader):
    """The table of the section `Numbers`, as it was written."""
    reader.page.reload()
    wait_until_drawn(reader.page)
    return reader.page.locator("section:has(#numbers) table")


def column(table, number=1):
    return table.locator(f"tbody tr:not([hidden]) > :nth-child({number})").all_inner_texts()


def test_it_renders_in_silence(reader, tmp_path):
    assert reader.page.locator(".chart svg.main-svg").count() >= 2
    assert reader.page.locator(".parcoords").count() == 1
    assert NAMES[0] in reader.page.locator("h1").inner_text()
    reader.page.screenshot(path=tmp_path / "page.png", full_page=True)
    assert (tmp_path / "page.png").stat().st_size > 20_000
    assert (reader.errors, reader.requests) == ([], [])


def test_a_name_in_a_chart_is_shown_as_it_is(reader):
    assert NAMES[0] in reader.page.locator(".legendtext").all_text_contents()


def test_tables_are_sorted_by_keyboard(reader, numbers):
    numbers.locator("thead button").nth(1).focus()
    reader.page.keyboard.press("Enter")
    known = sorted(score for score in SCORES if score is not None)
    assert column(numbers, 2) == [f"{score:g}" for score in known] + [str(number) for number in range(20, 26)] + ["-"]
    assert numbers.locator("th").nth(1).get_attribute("aria-sort") == "ascending"
    reader.page.keyboard.press("Enter")
    assert column(numbers, 2)[:3] == ["25", "24", "23"]
    assert column(numbers, 2)[-1] == "-"


def test_tables_are_filtered(reader, numbers):
    reader.page.locator("section:has(#numbers) input[type=search]").fill("row 2")
    assert column(numbers) == [f"row {number}" for number in range(20, 26)]
    assert reader.page.locator("section:has(#numbers) output").inner_text() == "6 of 12 rows"


def test_hints_come_by_pointer_and_by_keyboard_and_go_with_escape(reader, numbers):
    hinted = numbers.locator("tbody [data-tip]").first
    tip = reader.page.locator("#tip")
    assert tip.is_hidden()
    hinted.scroll_into_view_if_needed()
    hinted.hover()
    assert tip.inner_text() == "hint 20\nof two lines"
    reader.page.mouse.move(0, 0)
    assert tip.is_hidden()
    hinted.focus()
    assert tip.is_visible()
    assert hinted.get_attribute("aria-describedby") == "tip"
    reader.page.keyboard.press("Escape")
    assert tip.is_hidden()


def test_charts_answer_the_pointer(reader):
    chart = reader.page.locator(".chart").first
    chart.scroll_into_view_if_needed()
    place = chart.locator(".scatterlayer .trace path.js-line").first.bounding_box()
    reader.page.mouse.move(place["x"] + place["width"] / 2, place["y"] + 5)
    reader.page.wait_for_selector(".hoverlayer .hovertext", timeout=10_000)


def test_themes_and_paper(reader, tmp_path):
    ground, ink = (
        "getComputedStyle(document.body).backgroundColor",
        "document.querySelector('.chart .xtick text').style.fill",
    )
    of_text = reader.page.evaluate(ink)
    assert reader.page.evaluate(ground) == "rgb(255, 255, 255)"
    reader.page.emulate_media(color_scheme="dark")
    assert reader.page.evaluate(ground) == "rgb(20, 23, 26)"
    reader.page.wait_for_function(f"{ink} != '{of_text}'", timeout=60_000)  # charts are drawn again
    reader.page.pdf(path=tmp_path / "page.pdf", format="A4")
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")
    reader.page.emulate_media(color_scheme="light")
    reader.page.wait_for_function(f"{ink} == '{of_text}'", timeout=60_000)
    assert reader.page.evaluate(ground) == "rgb(255, 255, 255)"


def test_a_live_page_loads_itself_again_and_stays_sorted(opened, tmp_path):
    file = tmp_path / "live.html"
    write_page(page(reload_seconds=3), file)
    live = opened(file)
    for _ in range(2):
        live.page.locator("section:has(#numbers) thead button").nth(1).click()
    write_page(page(reload_seconds=600), file)
    live.page.wait_for_selector("body[data-reload='600']", timeout=120_000)
    wait_until_drawn(live.page)
    assert column(live.page.locator("section:has(#numbers) table"), 2)[0] == "25"
    assert live.errors == []
    live.page.close()
