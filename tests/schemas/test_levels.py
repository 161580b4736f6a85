"""`series`, `carry_days` and `unique` of a definition: what is taken, what is refused, and what may change."""

import json
from typing import Any

import pytest

from schemas.errors import BadInputError, RefusedError
from schemas.meter import Meter, parse_meter
from schemas.meter_changes import check_change

SEATS = {
    "name": "seats",
    "unit": "seat",
    "aggregation": "last",
    "dimensions": [{"name": "plan", "type": "string"}, {"name": "workspace", "type": "string"}],
}
USERS = SEATS | {"name": "users", "aggregation": "unique_count", "unique": "workspace"}


def meter(body: dict[str, Any] = SEATS, **changes: Any) -> Meter:
    return parse_meter(json.dumps(body | changes).encode(), "seats.json")


def refusal(body: dict[str, Any] = SEATS, **changes: Any) -> BadInputError:
    with pytest.raises(BadInputError) as caught:
        meter(body, **changes)
    assert caught.value.where == "seats.json"
    return caught.value


@pytest.mark.parametrize("aggregation", ["avg", "min", "max", "first", "last"])
@pytest.mark.parametrize("series", [[], ["workspace"], ["workspace", "plan"]])
def test_a_gauge_may_have_series(aggregation: str, series: list[str]) -> None:
    found = meter(aggregation=aggregation, series=series)
    assert found.series == tuple(series)
    assert found.needs_usage


@pytest.mark.parametrize("aggregation", ["sum", "count", "rate"])
def test_series_on_another_meter_is_refused(aggregation: str) -> None:
    error = refusal(aggregation=aggregation, series=["workspace"])
    assert "series is for gauges only" in error.what
    assert error.expected == "aggregation avg, first, last, max, min, or no series"
    assert error.found == f"aggregation {aggregation}"
    assert "series is for gauges" in refusal(USERS, series=[]).what


def test_series_of_an_undeclared_dimension_are_refused() -> None:
    error = refusal(series=["workspace", "region"])
    assert error.what == "series names 'region', which is no declared dimension"
    assert (error.expected, error.found) == ("of the dimensions plan, workspace", "'region'")
    assert "a meter with dimensions" in refusal(dimensions=[], series=["plan"]).expected
    # The subject names a series without being named.
    assert "'subject'" in refusal(series=["subject"]).what


def test_doubled_series_are_refused() -> None:
    error = refusal(series=["plan", "workspace", "plan"])
    assert error.what == "series names 'plan' twice"
    assert (error.expected, error.found) == ("each dimension at most once", "plan, workspace, plan")


@pytest.mark.parametrize("series", ["workspace", 1, [1], {"workspace": 1}, [None], True])
def test_series_of_another_type_are_refused(series: object) -> None:
    assert "$.series" in refusal(series=series).what


@pytest.mark.parametrize("days", [1, 31, 366])
def test_a_series_may_be_carried(days: int) -> None:
    assert meter(series=[], carry_days=days).carry_days == days


@pytest.mark.parametrize("days", [0, -1, 367])
def test_carry_days_out_of_range_are_refused(days: int) -> None:
    error = refusal(series=[], carry_days=days)
    assert (error.what, error.expected, error.found) == ("carry_days is out of range", "1 to 366", str(days))


@pytest.mark.parametrize("days", ["31", 1.5, True])
def test_carry_days_of_another_type_are_refused(days: object) -> None:
    assert "$.carry_days" in refusal(series=[], carry_days=days).what


def test_carry_days_without_series_are_refused() -> None:
    error = refusal(carry_days=31)
    assert error.what == "carry_days needs series, which says what is carried"
    assert error.found == "no series"


@pytest.mark.parametrize("aggregation", ["avg", "min", "max", "first", "sum"])
def test_carry_days_of_another_aggregation_than_last_are_refused(aggregation: str) -> None:
    series = {"series": []} if aggregation != "sum" else {}
    error = refusal(aggregation=aggregation, carry_days=31, **series)
    assert error.what == "carry_days is for meters of aggregation last only"
    assert error.found == f"aggregation {aggregation}"


def test_unique_goes_with_unique_count_alone() -> None:
    assert meter(USERS).unique == "workspace"
    error = refusal(USERS, unique=None)
    assert (error.what, error.found) == ("aggregation unique_count needs unique", "no unique")
    error = refusal(unique="workspace")
    assert error.what == "unique is for meters of aggregation unique_count only"
    assert error.found == "aggregation last"


@pytest.mark.parametrize("name", ["user", "", "subject", "Workspace"])
def test_unique_of_an_undeclared_dimension_is_refused(name: str) -> None:
    error = refusal(USERS, unique=name)
    assert error.what == f"unique names {name!r}, which is no declared dimension"
    assert error.expected == "of the dimensions plan, workspace"


def test_a_null_is_a_member_that_is_not_set() -> None:
    assert meter(series=None, carry_days=None, unique=None) == meter()


def test_a_definition_without_them_is_stored_as_before() -> None:
    stored = json.loads(meter().to_json())
    assert not {"series", "carry_days", "unique"} & stored.keys()
    body = SEATS | {"series": ["workspace"], "carry_days": 7}
    assert parse_meter(meter(body).to_json(), "stored") == meter(body)
    assert json.loads(meter(body).to_json())["series"] == ["workspace"]
    assert parse_meter(meter(USERS).to_json(), "stored") == meter(USERS)


def test_the_version_depends_on_series_where_they_are_set() -> None:
    versions = {meter(series=series).version for series in (None, [], ["plan"], ["plan", "workspace"])}
    assert len(versions) == 4
    # The order names the same series; what is carried is in no table.
    assert meter(series=["workspace", "plan"]).version == meter(series=["plan", "workspace"]).version
    assert meter(series=[], carry_days=7).version == meter(series=[]).version
    assert meter(USERS).version != meter(USERS, unique="plan").version


def test_series_and_carry_days_may_change_and_unique_may_not() -> None:
    forms = [meter(), meter(series=[]), meter(series=["plan"]), meter(series=["plan"], carry_days=3)]
    for old in forms:
        for new in forms:
            check_change(old, new)
    with pytest.raises(RefusedError, match="its unique can't be changed") as caught:
        check_change(meter(USERS), meter(USERS, unique="plan"))
    assert (caught.value.expected, caught.value.found) == ("workspace", "plan")


def test_a_typo_is_answered_with_the_fields_there_are() -> None:
    hint = refusal(serie=[]).hint
    assert all(name in hint for name in ("series", "carry_days", "unique", "event_retention_days"))
    assert "declared" not in hint
