from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamaduo.service_llm.failures import Failure, error_of, failed_by_status, retry_after


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "2"}, 2),
        ({"retry-after": " 2.5 "}, 2.5),
        ({"retry-after": "0"}, 0),
        ({"retry-after": "3600"}, 3600),
        ({"retry-after-ms": "1500"}, 1.5),
        ({"retry-after-ms": "1500", "retry-after": "60"}, 1.5),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "Wed, 21 Oct 99999999999999999999 07:28:00 GMT"}, None),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 +99999999999999"}, None),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "nan"}, None),
        ({}, None),
    ],
)
def test_each_form_of_a_waiting_time_is_read(headers, seconds):
    assert retry_after(headers) == seconds


def test_a_date_is_a_waiting_time():
    at = datetime.now(UTC) + timedelta(seconds=90)

    assert retry_after({"retry-after": format_datetime(at, usegmt=True)}) == pytest.approx(
        89.5, abs=1
    )


@given(st.text())
def test_no_header_makes_the_reader_fail(text):
    seconds = retry_after({"retry-after": text, "retry-after-ms": text})

    assert seconds is None or seconds >= 0


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ('{"error": {"message": "no"}}', "no"),
        ('[{"error": {"message": "no"}}]', "no"),
        ('{"error": "no"}', "no"),
        ('{"error": null}', None),
        ("not found", None),
        ("", None),
    ],
)
def test_an_error_is_read_in_each_form_that_endpoints_give_it(body, message):
    assert error_of(body).get("message") == message


def test_a_body_without_an_error_speaks_for_itself():
    assert failed_by_status(502, {}, "<html>bad gateway").detail == "HTTP 502: <html>bad gateway"
    assert failed_by_status(502, {}, "").detail == "HTTP 502: no message"


def test_a_filter_that_answers_with_an_error_is_a_filter():
    body = '{"error": {"code": "content_filter", "param": "prompt", "message": "no"}}'

    failed = failed_by_status(400, {}, body)

    assert (failed.failure, failed.detail) == (Failure.FILTERED, "no")


@pytest.mark.parametrize(("status", "tokens"), [(408, None), (504, None), (500, (0, 0))])
def test_a_gateway_that_gave_up_may_have_cost_something(status, tokens):
    assert failed_by_status(status, {}, "").tokens == tokens
