import json
import random

import pytest

from llamaduo.service_llm.personal_details import find_details
from tests.personal_details import FORMATTED, plant

REGIONS = ("US", "GB", "DE", "FR")


def found(text):
    details, _ = find_details(text, REGIONS)
    return [(each.kind, text[each.start : each.end]) for each in details]


@pytest.mark.parametrize("kind", FORMATTED)
def test_details_are_found_in_other_hands_formats(kind):
    rng = random.Random(5)
    planted = [plant(kind, rng) for _ in range(150)]

    missed = [each.sentence for each in planted if not found(each.sentence)]

    assert missed == []


@pytest.mark.parametrize(
    ("text", "details"),
    [
        ("Anna.Keller+shop@Firma.de", [("email", "Anna.Keller+shop@Firma.de")]),
        ("<jörg@straße.de>, not @jörg", [("email", "jörg@straße.de")]),
        ("call +49 (0)30 1234567 x12", [("phone", "+49 (0)30 1234567")]),
        ("030/1234567 or 030/7654321", [("phone", "030/1234567"), ("phone", "030/7654321")]),
        ("4111-1111-1111-1111 exp 12/27", [("card", "4111-1111-1111-1111")]),
        ("de89 3704 0044 0532 0130 00 and", [("iban", "de89 3704 0044 0532 0130 00")]),
        ("84.112.9.7:8080", [("ip", "84.112.9.7")]),
        ("from 2a02:8108::1f: no route", [("ip", "2a02:8108::1f")]),
        ("::ffff:84.112.9.7", [("ip", "84.112.9.7")]),
        ("OPENAI_API_KEY=sk-proj-a1b2c3d4e5f6g7h8i9", [("key", "a1b2c3d4e5f6g7h8i9")]),
        ('{"password": "hunter22", "n": 1}', [("key", "hunter22")]),
        ("my password is Sommer2024!", [("key", "Sommer2024")]),
        ("Bearer abc123def456ghi", [("token", "abc123def456ghi")]),
        ("ftp://anna:s3cret@host/x", [("url", "anna"), ("url", "s3cret")]),
        ("https://host/?a=1&token=abc123&b=2", [("url", "abc123")]),
    ],
)
def test_a_detail_is_found_whole_and_alone(text, details):
    assert found(text) == details


@pytest.mark.parametrize(
    "text",
    [
        "INV-4402, ORD-4155552671, #48213 and order no. 4155552671",
        "on 2026-11-26 at 14:30:05, from 06.12.2023 to 01.02.24",
        "v1.2.3.4, version 10.20.30.40, openai>=1.2.0.4, pkg-1.2.3.4.tar.gz",
        "$1,234,567.89 or 1.234.567,89 EUR or 0.12345678",
        "550e8400-e29b-41d4-a716-446655440000",
        "sha256 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "127.0.0.1, ::1, 0.0.0.0, 255.255.255.0, 12:30:45, std::a0, a::b1",
        "published in 1698, 337000 people, 62.6  290.15  17.0",
        "max_tokens: 2048, token=get_token(), api_key=api_key, password: please reset it",
        '{"password": 12345678, "tokens": 100}',
        "call me@home, @anna, a@b",
        "isbn 0-306-40615-2",
        "4111 1111 1111 1112",
        "DE88 3704 0044 0532 0130 00",
    ],
)
def test_what_only_looks_like_a_detail_is_none(text):
    assert found(text) == []


def test_what_belongs_to_nobody_is_no_detail():
    reserved = "user@example.com 192.0.2.7 2001:db8::7 +1 212 555 0143 AKIAIOSFODNN7EXAMPLE"

    assert found(reserved) == []


@pytest.mark.parametrize("kind", FORMATTED)
def test_details_are_found_in_json_and_in_json_inside_json(kind):
    rng = random.Random(6)
    for _ in range(40):
        sentence = f"Hi\n{plant(kind, rng).sentence}\n"
        inner = json.dumps([sentence], ensure_ascii=False)
        for text in (inner, json.dumps([inner], ensure_ascii=False)):
            assert len(found(text)) == len(found(sentence)), text


def test_a_letter_that_json_has_escaped_is_a_part_of_the_detail():
    assert found(r'{"a": "andr\u00e9@firma.de"}') == [("email", r"andr\u00e9@firma.de")]
