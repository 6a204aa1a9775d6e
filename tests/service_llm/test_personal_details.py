import json
import random

import pytest

from llamaduo.service_llm.credentials import find_tokens
from llamaduo.service_llm.details import Detail, read, take
from llamaduo.service_llm.personal_details import find_details
from llamaduo.service_llm.phones import find_phones
from llamaduo.service_llm.repetitions import find_again
from tests.ordinary_numbers import FORMS, UNTOLD, fill
from tests.personal_details import FORMATTED, is_left, plant

REGIONS = ("US", "GB", "DE", "FR")


def found(text):
    readable = read(text)
    details, _ = find_details(readable.text, REGIONS)
    places = readable.places
    return [(each.kind, text[places[each.start] : places[each.end]]) for each in details]


def rest(text):
    """What is left of a text without its details."""
    readable = read(text)
    details, _ = find_details(readable.text, REGIONS)
    return take(readable.text, details)


@pytest.mark.timeout(10)
@pytest.mark.parametrize(
    "find",
    [
        lambda: find_tokens("-eyJ" * 100_000),
        lambda: find_phones("1234567890123456789 " * 150_000, REGIONS),
        lambda: find_again(
            [Detail("card", 0, 0, str(4 * 10**15 + n)) for n in range(8000)], "words " * 50_000
        ),
    ],
    ids=["tokens", "phones", "again"],
)
def test_the_time_grows_with_the_length_of_a_long_text(find):
    assert list(find()) == []


@pytest.mark.parametrize("text", ["C:\\é", "a\\\\é", "\\😀", "\\\\\\ü!"])
def test_a_backslash_before_a_letter_is_read_alike_in_json(text):
    assert read(json.dumps(text)).text == read(json.dumps(text, ensure_ascii=False)).text


@pytest.mark.parametrize("kind", FORMATTED)
def test_details_are_found_in_other_hands_formats(kind):
    rng = random.Random(5)
    planted = [plant(kind, rng) for _ in range(150)]

    missed = [each.sentence for each in planted if is_left(each.secret, rest(each.sentence))]

    assert missed == []


@pytest.mark.parametrize(
    ("text", "details"),
    [
        ("Anna.Keller+shop@Firma.de", [("email", "Anna.Keller+shop@Firma.de")]),
        ("<jörg@straße.de>, not @jörg", [("email", "jörg@straße.de")]),
        ("call +49 (0)30 1234567 x12", [("phone", "+49 (0)30 1234567")]),
        ("030/1234567 or 030/7654321", [("phone", "030/1234567"), ("phone", "030/7654321")]),
        ("4111-1111-1111-1111 exp 12/27", [("card", "4111-1111-1111-1111")]),
        ("4111  1111  1111  1111", [("card", "4111  1111  1111  1111")]),
        ("212 736 5000 212 736 5000", [("phone", "212 736 5000")] * 2),
        ("4978 6729 2804 5550 128 again", [("card", "4978 6729 2804 5550 128")]),
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
        ("(GET /reset?token=abc123).", [("url", "abc123")]),
        ("?token=abcdef,ghijkl12345 x", [("url", "abcdef,ghijkl12345")]),
        ("7,/?token=abcdef,09/29,40", [("url", "abcdef")]),
        ("/?token=abcdef;v=2", [("url", "abcdef")]),
        ("?apiKey=abc123&AWSAccessKeyId=def456", [("url", "abc123"), ("url", "def456")]),
        ("?auth=abc123&X-Amz-Signature=def456", [("url", "abc123"), ("url", "def456")]),
        ("?sshKey=abc123&license-key=def456", [("url", "abc123"), ("url", "def456")]),
        ("?sessionid=abc123&authtoken=def456", [("url", "abc123"), ("url", "def456")]),
        ("Password\nhunter22\nThanks", [("key", "hunter22")]),
        ("redis://:s3cret@host", [("url", "s3cret")]),
        ("https://anna:p@ssw0rd@host/x", [("url", "anna"), ("url", "p@ssw0rd")]),
        ("curl -u anna:hunter22 x", [("url", "anna"), ("url", "hunter22")]),
        ("- a\n-anna@firma.de", [("email", "anna@firma.de")]),
        ("anna.@firma.xn--p1ai", [("email", "anna.@firma.xn--p1ai")]),
        (f"{'a' * 70}@firma.de", [("email", f"{'a' * 70}@firma.de")]),
        ("请写信到anna@firma.de谢谢", [("email", "anna@firma.de")]),
        ("账号DE89370400440532013000", [("iban", "DE89370400440532013000")]),
        ("地址84.112.9.7は", [("ip", "84.112.9.7")]),
        ("late.84.112.9.7 or IP:2a02:8108::1f", [("ip", "84.112.9.7"), ("ip", "2a02:8108::1f")]),
        ("4111\u20111111\u20111111\u20111111", [("card", "4111\u20111111\u20111111\u20111111")]),
        ("+49\u202f30\u202f1234567", [("phone", "+49\u202f30\u202f1234567")]),
        (r'{"tel": "+49\u00a030\u00a01234567"}', [("phone", r"+49\u00a030\u00a01234567")]),
        ("my phone #2127365000", [("phone", "2127365000")]),
        ("Customer: 2127365000", [("phone", "2127365000")]),
        ("In case 2127365000 is busy", [("phone", "2127365000")]),
        ("In case 212-736-5000 is busy", [("phone", "212-736-5000")]),
        ("my account: (212) 736-5000", [("phone", "212) 736-5000")]),
        ("ticket 030-1234567", [("phone", "030-1234567")]),
        ("--password hunter22", [("key", "hunter22")]),
        ("the password was hunter22", [("key", "hunter22")]),
        ("| password | hunter22 |", [("key", "hunter22")]),
        ("password: p@ss(w0rd)123", [("key", "p@ss(w0rd)123")]),
        ('{"password": "ab,cd12ef"}', [("key", "ab,cd12ef")]),
        ("cookie: sessionid=abc123def", [("key", "abc123def")]),
        ("Authorization: Token abc123def456", [("token", "abc123def456")]),
        ("X-Api-Key: abc123.https://h/?token=def456", [("key", "abc123.https"), ("url", "def456")]),
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
        "order 4155552671, PO number 4155552672, RMA 4155552673, Bestellung 4155552674",
        '{"order_id": "4155552671", "customerId": 4155552672, "tracking_number": "612999855432"}',
        "IMEI 356938035643809, EAN: 4000009179884, PO no. 2127365000, case #2127365000",
        "chapter 1.2.3.4 and 1.2.3.5, § 8.8.8.8",
        "sk-learning-curve-is-steep-for-me, hf-transformers-pipeline-x, Basic authentication-2",
        "task-sk-is-a-very-long-slug-name, the password reset, password policy, token = tokens[0]",
        "550e8400-e29b-41d4-a716-446655440000",
        "sha256 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "127.0.0.1, ::1, 0.0.0.0, 255.255.255.0, 12:30:45, std::a0, a::b1",
        "published in 1698, 337000 people, 62.6  290.15  17.0",
        "max_tokens: 2048, token=get_token(), api_key=api_key, password: please reset it",
        '{"password": 12345678, "tokens": 100}',
        "call me@home, @anna, a@b",
        "pass-through 2fa, password - please, the password to reset, password-reset2024, pw-less",
        "migrate the token to oauth2 now",
        "password = sha256(salt + pw), token = base64.b64encode(raw), password=hash2(pw)",
        "token: int64, password: utf8, secret = SHA-256, api_key: uint8",
        "/?design=modern&keyword=printer&author=goethe&keyboard=german&signup=newsletter",
        "/?monkey=banana7&turkey=sandwich&Keywords=printer&authority=london&sight=seeing1",
        "docker run -u 1000:1000a1",
        "I reset my password\n\nTicket2024 is mine",
        "I reset my password\nTicket2024 is mine",
        "</password> Ticket2024",
        "the password - RMA-65044 - is, call 0555 0142",
        "firmware 10.20.30.40, pkg-1.2.3.4.tar.gz, 666-12-3456, 000-12-3456, 123-45-67890",
        "sizes 200 300 4000, 2024 1234 56, 1.0123 2.0345, 0.0170 0.1234567",
        "isbn 0-306-40615-2",
        "4111 1111 1111 1112",
        "DE88 3704 0044 1532 1130 00",
    ],
)
def test_what_only_looks_like_a_detail_is_none(text):
    assert found(text) == []


@pytest.mark.parametrize("form", [form for form in FORMS if form not in UNTOLD])
def test_numbers_of_software_shops_and_papers_are_no_details(form):
    rng = random.Random(7)

    assert [found(fill(form, rng)) for _ in range(20)] == [[]] * 20


CARDS = (
    "4111111111111111",
    "5500000000000004",
    "340000000000009",
    "30000000000004",
    "6011000000000004",
)


@pytest.mark.parametrize("joint", [",", ";", ", ", "|", "\t", " and ", "\n1,"])
def test_cards_in_a_row_are_all_found(joint):
    assert [value for _, value in found(joint.join(CARDS))] == list(CARDS)


@pytest.mark.parametrize(
    "text",
    [
        "id,card\n7,{},09/29",
        "In case {} is declined",
        "VISA-{}",
        "Order #{} was paid",
        '{{"id": {}}}',
        "order no. {}",
        "12.{}",
    ],
)
def test_no_word_before_it_makes_a_card_something_else(text):
    assert found(text.format(CARDS[0])) == [("card", CARDS[0])]


@pytest.mark.parametrize(
    "phone", ["0170 1234567", "01701234567", "212 736 5000", "+49 170 1234567"]
)
@pytest.mark.parametrize(
    "text",
    [
        "10:30 {}",
        "{} 12:30",
        "Zip 10115 {}",
        "No. 5 {}",
        "2 x {}",
        "call 24/7 {}",
        "{} 0171 7654321",
        "{} 212-736-5001",
        "+49 171 7654321 {}",
        "7,{}",
        "0,{},x",
        "on 2026-11-26 {}",
        "2026-11-26,{},3",
        "| 3 | {} | 4 |",
        "3\t{}\t4",
        "**{}**",
    ],
)
def test_a_phone_number_is_found_beside_other_numbers(text, phone):
    assert ("phone", phone) in found(text.format(phone))


@pytest.mark.parametrize(
    "text",
    [
        "Please cancel my order.\n\n{}\nAnna",
        "I have opened a ticket. {} is my number",
        "It is about my order - {}",
        "my order, {}",
        "In case {} is busy",
    ],
)
def test_the_end_of_a_sentence_calls_a_phone_number_no_thing(text):
    assert found(text.format("2127365000")) == [("phone", "2127365000")]


@pytest.mark.parametrize(
    "phone",
    [
        *("+49 421 12-34-56", "+49 421 12-11-56", "+49 (421) 12-11-56", "+41 79 123 45 67"),
        *("+44 7400 192121", "07400 190713", "030 196478"),
        *("089 12.34.56", "089 12.11.56", "0421-12-11-56", "030/12.11.56"),
    ],
)
@pytest.mark.parametrize("text", ["{}", "Tel. {}.", "{}, since 06.12.23", "06.12.2023 {}"])
def test_pairs_of_digits_like_a_date_are_a_part_of_the_number(text, phone):
    assert found(text.format(phone)) == [("phone", phone)]


@pytest.mark.parametrize("phone", ["01701234567", "+491701234567"])
@pytest.mark.parametrize(
    "text",
    [
        "In case {} is busy",
        "TEL-{}",
        "FAX_{}",
        "WHATSAPP-{}",
        "my WhatsApp id {}",
        "about my order: {}",
        "the serial {}",
        "ticket, {}",
        "Tel{}",
        "my telefon{}",
        "FAX{}",
        "mobil{}",
    ],
)
def test_ordinary_words_make_no_reference_of_a_phone_number(text, phone):
    assert found(text.format(phone)) == [("phone", phone)]


@pytest.mark.parametrize(
    ("text", "details"),
    [
        ("+49 170  1234567", [("phone", "+49 170  1234567")]),
        ("٠١٧٠ ١٢٣٤٥٦٧", [("phone", "٠١٧٠ ١٢٣٤٥٦٧")]),
        ("０１７０－１２３４５６７", [("phone", "０１７０－１２３４５６７")]),
        ("４１１１１１１１１１１１１１１１", [("card", "４１１１１１１１１１１１１１１１")]),
        ("𝟒𝟏𝟏𝟏𝟏𝟏𝟏𝟏𝟏𝟏𝟏𝟏𝟏𝟏𝟏𝟏", [("card", "𝟒𝟏𝟏𝟏𝟏𝟏𝟏𝟏𝟏𝟏𝟏𝟏𝟏𝟏𝟏𝟏")]),
        ("anna＠firma.de", [("email", "anna＠firma.de")]),
        ("4111_1111_1111_1111", [("card", "4111_1111_1111_1111")]),
        ("anna&#64;firma.de", [("email", "anna&#64;firma.de")]),
        ("anna&#x40;firma&period;de", [("email", "anna&#x40;firma&period;de")]),
        (r"'030\xa01234567'", [("phone", r"030\xa01234567")]),
        ("my SSN is 123-45-6789.", [("ssn", "123-45-6789")]),
        (
            "https://hooks.slack.com/services/T0A/B0B/abcdefghijkl1234",
            [("url", "T0A/B0B/abcdefghijkl1234")],
        ),
        ("host ip-84.112.9.7", [("ip", "84.112.9.7")]),
        ("user-84.112.9.7", [("ip", "84.112.9.7")]),
        ("ip84.112.9.7_x", [("ip", "84.112.9.7")]),
        ("firmware 84.112.9.7", [("ip", "84.112.9.7")]),
        ("Release 84.112.9.7", [("ip", "84.112.9.7")]),
        ("IBANDE89370400440532013000", [("iban", "DE89370400440532013000")]),
        ("iban: DE 89 3704 0044 0532 0130 00", [("iban", "DE 89 3704 0044 0532 0130 00")]),
        ("My tax id: 123-45-6789", [("ssn", "123-45-6789")]),
        ("social security account number 123-45-6789", [("ssn", "123-45-6789")]),
        ("BR1500000000000010932840814P2", [("iban", "BR1500000000000010932840814P2")]),
        ("+49 30 5550123", [("phone", "+49 30 5550123")]),
        ("+49 170 5550123", [("phone", "+49 170 5550123")]),
    ],
)
def test_other_spellings_and_neighbours_hide_nothing(text, details):
    assert found(text) == details


@pytest.mark.parametrize(
    "text",
    [
        "my password is: {}",
        "Passwort lautet: {}",
        "**Password:** {}",
        "Password: `{}`",
        "Password - {}",
        "password (new): {}",
        "<password>{}</password>",
        "pw: {}",
        "PW={}",
        "password is now **{}**",
        "I changed my password to {}",
        "password '{}'",
        "Passwort: „{}“",
        "- Password\n  {}",
        '"Password": {}',
    ],
)
def test_a_password_is_found_behind_any_mark_and_word(text):
    assert "hunter22" not in rest(text.format("hunter22"))


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


@pytest.mark.parametrize("end", ["\n-----END PRIVATE KEY-----", "", '"}'])
def test_a_private_key_is_found_whole_or_cut_off(end):
    body = "\nMIIEpAIBAAKCAQEA7bq0\nx9SdFz1kPq3mNbVc5r"

    assert found(f"-----BEGIN PRIVATE KEY-----{body}{end}")[0][1].strip() == body.strip()


def test_a_letter_that_json_has_escaped_is_a_part_of_the_detail():
    assert found(r'{"a": "andr\u00e9@firma.de"}') == [("email", r"andr\u00e9@firma.de")]
