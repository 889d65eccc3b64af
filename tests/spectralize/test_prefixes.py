"""Prefixes with a date in them: what they cover, what they tell, and what they refuse."""

from datetime import UTC, date, datetime

import pytest
from pydantic import ValidationError

from spectralize.keys import is_wanted, key_to_time
from spectralize.prefixes import PrefixTemplate
from spectralize.sources import Source

UPLOADED = datetime(2024, 6, 20, 12, tzinfo=UTC)


def source(**changes: object) -> Source:
    return Source.model_validate({"name": "test", "bucket": "bucket", "profiles": ("mel128_22k",)} | changes)


@pytest.mark.parametrize(
    ("template", "root", "on_day"),
    [
        ("", "", ""),
        ("field/", "field/", "field/"),
        ("field/%Y/%m/%d/", "field/", "field/2024/06/03/"),
        ("%Y%m%d", "", "20240603"),
        ("a/%Y/%Y%m%d/x", "a/", "a/2024/20240603/x"),
        ("a/%Y-%m/%d/%H/", "a/", "a/2024-06/03/"),
        ("100%%/%Y/", "100%/", "100%/2024/"),
        ("a.b+(c)/%Y/", "a.b+(c)/", "a.b+(c)/2024/"),
    ],
)
def test_a_template_is_its_root_and_its_days(template: str, root: str, on_day: str) -> None:
    parsed = PrefixTemplate.parse(template)
    assert (parsed.root, parsed.on(date(2024, 6, 3))) == (root, on_day)
    assert parsed.matches(on_day + "14/x.wav" if "%H" in template else on_day + "x.wav")


@pytest.mark.parametrize("template", ["field/%Q/", "field/%", "%Y/%j/", "%-d/"])
def test_a_directive_that_is_no_date_is_refused(template: str) -> None:
    with pytest.raises(
        ValidationError, match="is no part of a date: there are %Y, %m, %d, %H, and %% for a percent sign"
    ):
        source(prefix=template)


def test_keys_below_the_root_that_hold_no_date_are_ignored() -> None:
    dated = source(prefix="a.b/%Y/%Y%m%d/")
    assert is_wanted("a.b/2024/20240603/x.wav", dated)
    assert not is_wanted("a.b/latest/x.wav", dated)
    assert not is_wanted("aXb/2024/20240603/x.wav", dated)
    assert not is_wanted("a.b/2023/20240603/x.wav", dated), "the two years differ"


def test_the_date_in_the_prefix_is_the_days_unless_a_pattern_knows_better() -> None:
    dated = source(prefix="field/%Y/%m/%d/", timezone="Europe/Berlin")
    found = key_to_time("field/2024/06/03/x.wav", dated, UPLOADED)
    assert (found.at, found.origin) == (datetime(2024, 6, 2, 22, tzinfo=UTC), "key")
    pattern = r"_(?P<year>\d{4})(?P<month>\d{2})(?P<day>\d{2})_(?P<hour>\d{2})"
    precise = dated.model_copy(update={"time_patterns": (pattern,)})
    assert key_to_time("field/2024/06/03/x_20240604_05.wav", precise, UPLOADED).at == datetime(
        2024, 6, 4, 3, tzinfo=UTC
    )
    monthly = source(prefix="field/%Y/%m/")
    assert key_to_time("field/2024/06/x.wav", monthly, UPLOADED).origin == "last_modified"


def test_a_date_in_the_prefix_that_does_not_exist_is_flagged() -> None:
    found = key_to_time("field/2024/02/31/x.wav", source(prefix="field/%Y/%m/%d/"), UPLOADED)
    assert (found.at, found.origin) == (UPLOADED, "last_modified")
    assert found.flag is not None
    assert "is no time" in found.flag


def test_the_sensor_looks_at_the_last_days_in_the_sources_own_zone() -> None:
    late_evening = datetime(2024, 6, 3, 23, tzinfo=UTC)
    dated = source(prefix="field/%Y/%m/%d/", sense_days=2, timezone="Asia/Tokyo")
    assert dated.recent_prefixes(late_evening) == ["field/2024/06/03/", "field/2024/06/04/"]
    assert source(prefix="field/%Y/", sense_days=3).recent_prefixes(late_evening) == ["field/2024/"]
    assert source(prefix="field/").recent_prefixes(late_evening) == ["field/"]
