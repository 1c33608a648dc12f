"""Pages: whatever comes from a file stays text."""

import json
from html.parser import HTMLParser

import jinja2
import pytest

from comedian.report.page import clock, render_page

HOSTILE = "</script><img src=x onerror=alert(1)> & ' \" \u2028"


class Reader(HTMLParser):
    """Collects the elements' names, and the text of title, heading and scripts."""

    def __init__(self, page: str):
        super().__init__()
        self.tags, self.texts, self.inside = [], {}, None
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.inside = dict(attributes).get("id", tag)
        self.tags.append(self.inside)

    def handle_endtag(self, tag):
        self.inside = None

    def handle_data(self, text):
        self.texts[self.inside] = self.texts.get(self.inside, "") + text


def test_hostile_text_stays_text():
    data = {"label": HOSTILE, HOSTILE: [1, 0.5, None]}
    page = Reader(render_page("base.html", title=HOSTILE, subtitle=HOSTILE, data=data))
    assert "img" not in page.tags and page.tags.count("script") + page.tags.count("data") == 2
    assert page.texts["title"] == page.texts["h1"] == HOSTILE
    assert json.loads(page.texts["data"]) == data


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_data_that_a_browser_could_not_parse_is_refused(number):
    with pytest.raises(ValueError):
        render_page("base.html", title="", subtitle="", data=[number])


def test_what_is_left_out_is_an_error():
    with pytest.raises(jinja2.UndefinedError, match="subtitle"):
        render_page("base.html", title="", data=[])


def test_each_page_has_its_own_nonce():
    pages = {render_page("base.html", title="", subtitle="", data=[]) for _ in range(2)}
    assert len(pages) == 2


@pytest.mark.parametrize(
    "time_s, text", [(34.6, "0:34.6"), (59.96, "1:00.0"), (0.04, "0:00.0"), (754.25, "12:34.3"), (6000, "100:00.0")]
)
def test_times_are_rounded(time_s, text):
    assert clock(time_s) == text
