"""The table of recordings as a page: what its address means, and what it shows of rows that were made up for it."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from dash.development.base_component import Component
from hypothesis import given
from hypothesis import strategies as st

from spectralize.errors import ReadError
from spectralize.explorer.callbacks.recordings import fields_of, listing_of
from spectralize.explorer.layout.recordings import (
    label_of,
    make_compare,
    make_error,
    make_page,
    make_results,
)
from spectralize.explorer.layout.recordings_filters import make_chips
from spectralize.explorer.layout.viewer import MOST_STRIPS
from spectralize.explorer.listing import COLUMNS, DEFAULT_COLUMNS, Listing
from spectralize.explorer.visits import read_query
from spectralize.reader.question import SORTS
from spectralize.reader.table import Choices, Row, Table
from spectralize.tables import OUTCOMES, TAG_COLUMNS

HOSTILE = "a\n<img src=x onerror=alert(1)>\u202e.wav"
VALUES: dict[str, Any] = dict.fromkeys(SORTS) | {
    "recorded_at": datetime(2021, 3, 4, 5, 6, 7, tzinfo=UTC), "duration_s": 75.5, "size_bytes": 1_536_000, "title": "<b>bold</b>",
    "samplerate_hz": 44_100, "bitrate": 128.0,
}  # fmt: skip
GOOD = Row(17, "b", "good.wav", "loaded", VALUES, "mel 128/22k", 99, None, None, is_gone=False)
BAD = Row(
    18, "b", HOSTILE, "rejected", VALUES, "mel128_22k", None, "not_audio", "no container\nor <codec>", is_gone=True
)
TABLE = Table((GOOD, BAD), 50, 130, {"loaded": 90, "rejected": 40})


def all_of(component: Component) -> Iterator[Component]:
    yield component
    yield from (item for item in component._traverse() if isinstance(item, Component))


def find(component: Component, **props: Any) -> list[Component]:
    return [
        item
        for item in all_of(component)
        if all(item.to_plotly_json()["props"].get(name) == value for name, value in props.items())
    ]


def texts(component: Component) -> list[str]:
    found: list[str] = []
    for item in all_of(component):
        children = getattr(item, "children", None)
        found += [child for child in (children if isinstance(children, list) else [children]) if isinstance(child, str)]
    return found


def show(listing: Listing | None = None, table: Table = TABLE, path: str = "/") -> Component:
    return make_results(Listing() if listing is None else listing, table, path)


def test_an_address_says_what_is_not_there_anyway() -> None:
    assert Listing().search == ""
    listing = Listing(
        q="so what", outcome=("loaded", "failed"), format=("mp3", "mov,mp4"), since="2021-01-02", longest=90.5, sort="title",
        desc=True, page=3, per=100, column=("title", "outcome"),
    )  # fmt: skip
    assert listing.search == (
        "?q=so+what&outcome=loaded&outcome=failed&format=mp3&format=mov%2Cmp4&since=2021-01-02&longest=90.5"
        "&column=title&column=outcome&sort=title&desc=1&page=3&per=100"
    )
    assert Listing.of(read_query(listing.search)) == listing
    assert Listing.of(read_query("?column=none")).column == ()
    assert Listing.of(read_query(Listing(column=()).search)).column == ()


days = st.dates().map(str)
listings = st.builds(
    Listing,
    q=st.text(max_size=50).map(lambda text: " ".join(text.replace("\0", " ").split())),
    outcome=st.sets(st.sampled_from(OUTCOMES)).map(lambda some: tuple(item for item in OUTCOMES if item in some)),
    profile=st.sampled_from(["", "mel128_22k"]),
    format=st.lists(st.sampled_from(["mp3", "mov,mp4,m4a", "a&b=c"]), unique=True).map(tuple),
    shortest=st.none() | st.floats(0, 1e12),
    longest=st.none() | st.floats(0, 1e12),
    column=st.lists(st.sampled_from(COLUMNS), unique=True).map(tuple),
    sort=st.sampled_from(SORTS),
    desc=st.booleans(),
    page=st.integers(1, 1000),
    per=st.sampled_from([25, 50, 100]),
)


@given(listing=listings)
def test_an_address_means_what_made_it(listing: Listing) -> None:
    assert Listing.of(read_query(listing.search)) == listing
    # Fields that are set by an address say nothing else, or the two would chase each other.
    assert listing_of(fields_of(listing), listing) == listing


def test_numbers_in_an_address_are_whole() -> None:
    assert Listing(shortest=86_400.25, longest=1_234_567.0).search == "?shortest=86400.25&longest=1234567"


def test_half_a_letter_is_no_error() -> None:
    # Text of a browser may hold one, which no address and no database does.
    search = Listing(q="a\ud800b").search
    assert search == "?q=a%3Fb"
    assert Listing.of(read_query("?q=a\ud800b")).q == "a?b"


@pytest.mark.parametrize(
    "query",
    [
        "?sort=key;drop", "?page=-3", "?page=1e99", "?page=nan", "?page=x", "?per=7", "?per=100000", "?outcome=good",
        "?since=2021-13-01", "?since=0001-01-01", "?until=9999-12-31", "?shortest=inf", "?shortest=-1", "?desc=yes", "?unknown=1",
    ],
)  # fmt: skip
def test_what_means_nothing_is_not_said(query: str) -> None:
    assert Listing.of(read_query(query)) == Listing()


def test_words_hold_no_nul() -> None:
    assert Listing.of(read_query("?q=so%00what%00")).q == "so what"


def test_what_is_asked_has_bounds() -> None:
    asked = Listing.of({"q": ("x" * 5_000,), "per": ("100",), "page": ("9" * 30,), "format": ("mp3",) * 60})
    question = asked.question()
    assert len(question.filters.text or "") == 200
    assert (question.limit, question.formats) == (100, ("mp3",))


def test_a_day_is_looked_for_to_its_end() -> None:
    filters = Listing(since="2021-03-04", until="2021-03-04").question().filters
    assert filters.recorded_from == datetime(2021, 3, 4, tzinfo=UTC)
    assert filters.recorded_to == datetime(2021, 3, 5, tzinfo=UTC)
    with pytest.raises(ReadError, match="until 2021-03-03: must not be before 2021-03-04"):
        Listing(since="2021-03-04", until="2021-03-03").question()
    assert Listing().question().filters.outcomes == OUTCOMES


def test_other_filters_begin_at_the_first_page_and_other_columns_do_not() -> None:
    before = Listing(q="a", sort="title", desc=True, page=4, per=50)
    assert listing_of(fields_of(replace(before, q="b")), before) == replace(before, q="b", page=1)
    assert listing_of(fields_of(replace(before, column=("codec",))), before) == replace(before, column=("codec",))
    assert before.sorted_by("title") == replace(before, desc=False, page=1)
    assert before.sorted_by("codec") == replace(before, sort="codec", desc=False, page=1)
    # What a browser sends of fields that were emptied.
    nothing = dict.fromkeys(fields_of(before)) | {"column": list(DEFAULT_COLUMNS)}
    assert listing_of(nothing, before) == replace(before, q="", page=1)


def test_hostile_text_is_shown_on_one_line_as_text() -> None:
    said = texts(show())
    assert "a\\n<img src=x onerror=alert(1)>\\u202e.wav" in said
    assert "<b>bold</b>" in said
    assert "not_audio: no container\\nor <codec>" in said
    assert not any(character in text for text in said for character in "\n\u202e")


def test_rows_lead_to_their_pages_and_show_their_pictures() -> None:
    page = show()
    assert {item.href for item in all_of(page) if str(getattr(item, "href", "")).startswith("/recordings/")} == {
        "/recordings/17", "/recordings/18",
    }  # fmt: skip
    [picture] = [item for item in all_of(page) if hasattr(item, "src")]
    assert picture.src == "/recordings/17/thumbnail.png?profile=mel+128%2F22k&v=99"
    assert picture.alt == ""
    assert picture.attributes["root"]["loading"] == "lazy"
    # What has no picture has nothing to compare.
    assert [item.value for item in all_of(page) if item._type == "Checkbox"] == ["17"]
    assert "No longer in the bucket" in texts(page)
    assert {"loaded", "rejected", "1:15.5", "1.54\N{NO-BREAK SPACE}MB", "2021-03-04 05:06:07"} <= set(texts(page))


def test_every_column_can_be_shown_and_says_how_it_is_sorted() -> None:
    page = show(Listing(column=COLUMNS, sort="artist", desc=True))
    heads = {
        item.children.id["column"]: item.to_plotly_json()["props"]["aria-sort"]
        for item in all_of(page)
        if item._type == "TableTh" and isinstance(item.children, Component)
    }
    assert tuple(heads) == ("key", *COLUMNS)
    assert set(TAG_COLUMNS) <= set(heads)
    assert heads == dict.fromkeys(heads, "none") | {"artist": "descending"}
    assert len({label_of(name) for name in heads}) == len(heads)


def test_pages_and_what_there_is_of_them() -> None:
    page = show(Listing(q="x", page=3), path="/recordings")
    [numbers] = find(page, id="recordings-pagination")
    assert (numbers.total, numbers.value, numbers.withControls) == (6, 3, False)
    hrefs = {
        item.children: item.href for item in all_of(page) if getattr(item, "href", None) and item._type == "Anchor"
    }
    assert hrefs["Previous"] == "/recordings?q=x&page=2"
    assert hrefs["Next"] == "/recordings?q=x&page=4"
    assert hrefs["Clear all filters"] == "/recordings"
    kept = Listing(q="x", page=3, column=("genre",), sort="genre")
    assert kept.unfiltered.search == "?column=genre&sort=genre"
    assert not kept.unfiltered.is_filtered
    assert find(page, id="recordings-total")[0].children == "130 recordings"
    # An address beyond the end: what is shown counts.
    [shown] = find(show(Listing(page=99)), id="recordings-shown")
    assert shown.data == [3, 25]


def test_empty_ones_say_what_to_do() -> None:
    nothing = Table((), 0, 0, dict.fromkeys(OUTCOMES, 0))
    assert "run its DAG" in " ".join(texts(show(table=nothing)))
    filtered = show(Listing(q="x"), nothing)
    assert find(filtered, href="/")[0].children == "Clear all filters"
    assert "run its DAG" not in " ".join(texts(filtered))
    error = make_error("profile 'a\nb': nothing", Listing(profile="a\nb"), "/")
    assert "profile 'a\\nb': nothing" in texts(error)
    assert find(error, href="/")


def test_fields_have_labels_and_what_the_address_says() -> None:
    listing = Listing(
        q="x", outcome=("failed",), profile="gone", format=("mp3",), since="2021-03-04", shortest=2.0, column=("year",)
    )
    page = make_page(
        listing, Choices(("mel128_22k",), ("b",), ("wav",), 3), make_chips({"failed": 12_345}), show(listing)
    )
    [search] = find(page, id="recordings-search")
    assert (search.value, search.label, search.inputProps["maxLength"]) == ("x", "Search", 200)
    [profile] = find(page, id="recordings-profile")
    assert (profile.value, profile.data) == ("gone", ["mel128_22k", "gone"])
    assert find(page, id="recordings-outcome")[0].value == ["failed"]
    assert "failed 12\N{NARROW NO-BREAK SPACE}345" in texts(page)
    assert find(page, id="recordings-columns")[0].value == ["year"]
    assert len(find(page, id="recordings-columns")[0].data) == len(COLUMNS)
    assert find(page, id="recordings-more")[0].open is True
    for item in all_of(page):
        if item._type in ("TextInput", "Select", "MultiSelect", "DateInput", "NumberInput"):
            assert getattr(item, "label", None) or item.to_plotly_json()["props"].get("aria-label"), item.id
    ids = [item.id for item in all_of(page) if isinstance(getattr(item, "id", None), str)]
    assert len(ids) == len(set(ids))


def test_two_can_be_compared() -> None:
    assert make_compare([]) == []
    assert "another" in make_compare(["1"])[0].children
    [link] = make_compare(["17", "3"])
    assert (link.children, link.href) == ("Compare (2)", "/compare?r=17&r=3")
    assert str(MOST_STRIPS) in make_compare([str(number) for number in range(MOST_STRIPS + 1)])[0].children
