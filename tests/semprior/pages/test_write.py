"""A page is one file: escaped, without any address to fetch from, and with what people need who do not see it."""

import base64
import hashlib
import html
import io
import os
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from plotly.graph_objects import Figure, Scatter

from semprior.errors import StorageError
from semprior.pages.blocks import Cell, Chart, Column, Mark, Page, Picture, Pictures, Section, Strip, Table, Text
from semprior.pages.write import LARGEST_SIDE, image_uri, render_page, write_page
from tests.semprior.pages.made_up import NAMES, page


class Elements(HTMLParser):
    """The elements of a page in their order, each with its attributes, and the texts between them."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.found, self.texts, self.inside = [], [], ""
        self.feed(content)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        self.inside = tag

    def handle_data(self, data):
        if self.inside not in ("script", "style"):
            self.texts.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.found if name == tag]


@pytest.fixture(scope="module")
def content():
    return render_page(page())


def small(*blocks) -> Elements:
    return Elements(render_page(Page("A page", "", (Section("A section", blocks),))))


def test_names_are_text(content):
    elements = Elements(content)
    assert NAMES[0] in "".join(elements.texts)
    assert all("onerror" not in attributes for _, attributes in elements.found)
    scripts = elements.all("script")
    assert [script.get("type") for script in scripts] == ["application/json"] * 2 + ["application/octet-stream", None]
    for name in (NAMES[1], NAMES[2], NAMES[3]):
        assert f"\u2068{name}\u2069" in "".join(elements.texts)
    assert "\u202e" not in content and r"a\u202egnp.exe" in "".join(elements.texts)


def test_a_name_in_a_chart_ends_no_script_and_is_no_tag(content):
    (curves, _) = re.findall(r'<script type="application/json" id="chart-\d">(.*?)</script>', content)
    assert "<" not in curves
    assert r"\u0026lt;script\u0026gt;" in curves
    plain = Figure(Scatter(x=[1], y=[1], name="<img src=x onerror=alert(1)><b>bold</b>"))
    rendered = render_page(Page("", "", (Section("", (Chart(plain, "A chart."),)),)))
    (text,) = re.findall(r'"name":"(.*?)"', rendered) or re.findall(r'"name": "(.*?)"', rendered)
    assert text.startswith(r"\u0026lt;img") and r"\u003cb\u003ebold" in text


def test_nothing_is_fetched_and_only_known_scripts_run(content):
    elements = Elements(content)
    addresses = [
        value for _, attributes in elements.found for name, value in attributes.items() if name in ("href", "src")
    ]
    assert addresses and all(value.startswith(("#", "data:")) for value in addresses)
    (policy,) = [meta["content"] for meta in elements.all("meta") if meta.get("http-equiv")]
    assert "default-src 'none'" in policy and "connect-src 'none'" in policy
    script = content[content.rindex("<script>") + 8 : content.rindex("</script>")]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"'sha256-{digest}'" in policy
    assert "unsafe-inline" not in policy.partition("script-src")[2]


def test_a_page_without_charts_holds_no_plotly(content):
    plain = render_page(Page("A page", "", (Section("Words", (Text("Nothing to draw."),)),)))
    assert len(plain) < 30_000 < len(content)
    assert "unsafe-eval" not in plain


def test_headings_lead_to_their_sections(content):
    elements = Elements(content)
    anchors = [heading["id"] for heading in elements.all("h2")]
    assert anchors == ["words", "facts", "numbers", "charts", "pictures", "facts-6", "section"]
    links = [link["href"] for link in elements.all("a") if link.get("class") != "skip"]
    assert links == [f"#{anchor}" for anchor in anchors]


def test_those_who_do_not_see_it_get_words(content):
    elements = Elements(content)
    pictures = [attributes["aria-label"] for _, attributes in elements.found if attributes.get("role") == "img"]
    assert pictures == ["Six curves.", "Three lines.", "A whole image.", "A part."]
    assert {"scope": "row"}.items() <= elements.all("th")[2].items()
    assert elements.all("html") == [{"lang": "en"}]
    assert "This chart in words" in content and "The numbers of this chart" in content


def test_numbers_are_sorted_by_their_values():
    rows = (("a", Cell("1 234", 1234.0)), ("b", "7"), ("c", Cell("-")), ("d", Cell("?", float("nan"))))
    elements = small(Table((Column("Name"), Column("Number", numeric=True)), rows))
    assert [cell.get("data-value") for cell in elements.all("td")] == ["1234.0", "7.0", None, None]


def test_a_row_of_another_length_is_refused():
    with pytest.raises(ValueError, match="2 columns"):
        Table((Column("One"), Column("Two")), (("a",),))


def test_an_image_is_held_once_and_as_it_is():
    image = np.random.default_rng(0).integers(0, 256, (40, 60), dtype=np.uint8)
    shown = (Picture(image, "One."), Picture(image.copy(), "The same.", crop=(5, 10, 20, 30), zoom=3))
    elements = small(Pictures((Strip("Strip", shown),)))
    (held,) = elements.all("image")
    stored = Image.open(io.BytesIO(base64.b64decode(held["href"].partition(",")[2])))
    assert np.array_equal(np.asarray(stored.convert("L")), image)
    part = elements.all("svg")[-1]
    assert (part["viewbox"], part["width"], part["height"]) == ("10 5 30 20", "90", "60")
    assert [use["href"] for use in elements.all("use")] == ["#image-0", "#image-0"]


def test_a_large_image_is_reduced_and_its_parts_are_not():
    image = np.zeros((2 * LARGEST_SIDE, 4 * LARGEST_SIDE), np.uint8)
    mark = Mark(199.5, 399.5, 8, "hit")
    shown = (
        Picture(image, "Whole.", marks=(mark,), zoom=0.5),
        Picture(image, "Part.", marks=(mark,), crop=(190, 390, 20, 20), zoom=3),
    )
    elements = small(Pictures((Strip("", shown),)))
    assert [(held["width"], held["height"]) for held in elements.all("image")] == [
        (str(LARGEST_SIDE), str(LARGEST_SIDE // 2)),
        ("20", "20"),
    ]
    circles = [
        (circle["cx"], circle["cy"], circle["r"]) for circle in elements.all("circle") if circle["class"] == "mark"
    ]
    assert circles == [("11", "11", "6"), ("100.0", "50.0", "2.0"), ("10.0", "10.0", "8")]
    assert elements.all("svg")[-2]["width"] == str(2 * LARGEST_SIDE)


@pytest.mark.parametrize("image", [np.zeros((4, 4), np.float32), np.zeros((4, 4, 4), np.uint8)])
def test_other_arrays_are_no_images(image):
    with pytest.raises(ValueError, match="cannot be shown"):
        image_uri(image)


def test_a_page_is_replaced_whole_or_not_at_all(tmp_path, full_disk):
    path = tmp_path / "page.html"
    write_page(page(), path)
    before = path.read_bytes()
    assert before.decode("utf-8").startswith("<!doctype html>")
    with full_disk(), pytest.raises(StorageError, match=r"page\.html"):
        write_page(Page("Another", "", ()), path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["page.html"]


def test_the_same_page_is_the_same_file(content):
    assert render_page(page()) == content


def test_only_a_page_that_is_asked_to_loads_itself_again(content):
    assert "data-reload" not in content.partition("<main")[0]
    again = render_page(page(reload_seconds=5))
    assert '<body data-reload="5">' in again
    assert "every 5 seconds" in html.unescape(again)
