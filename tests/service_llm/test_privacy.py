import json
import random
import re
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from llamaduo.service_llm.privacy import PrivacyGate, PrivacySettings, protect_message, quote
from tests.fakes.openai_server import FakeOpenAI, completion
from tests.personal_details import FORMATTED, plant
from tests.service_llm.conftest import request, service_at

GATE = PrivacyGate()
details = st.builds(
    lambda kind, seed: plant(kind, random.Random(seed)).text,
    st.sampled_from(FORMATTED),
    st.integers(0, 2**32),
)
pieces = st.one_of(
    details,
    st.text(max_size=12),
    st.text(alphabet="0123456789+-()./ @:=\\n\"'", max_size=12),
    st.sampled_from(["password: ", " token=", "\\n", '\\"', "\\u00e9", "order ", "tel. ", ", "]),
)
separators = st.sampled_from([" ", ", ", "\n", '"', "/", ": ", "=", " (", "-", "."])
texts = st.lists(st.tuples(pieces, separators).map("".join), max_size=6).map("".join)


def protect(*given_texts):
    return GATE.protect(given_texts).texts


@given(st.lists(texts, max_size=3))
def test_protecting_twice_changes_nothing(given_texts):
    once = GATE.protect(given_texts).texts

    assert GATE.protect(once) == (once, [])


@given(st.lists(texts, max_size=3), st.booleans())
@example(["PASSWD 𐀀0000 "], True)
def test_a_protected_row_is_sent_as_it_is(row, ascii_only):
    protected = protect(*row)

    shown = json.dumps(dict(zip("abc", protected, strict=False)), ensure_ascii=ascii_only)
    prompt = f"See https://docs.example.org/pairs?key=v1. The example:\n{shown}\nWrite 5 more."

    assert protect(prompt) == [prompt]


@given(st.recursive(texts | st.integers() | st.floats(allow_nan=False) | st.none() | st.booleans(),
                    lambda inner: st.lists(inner, max_size=3)
                    | st.dictionaries(st.sampled_from(["prompt", "password", "api_key"]), inner)),
       st.booleans())  # fmt: skip
@example({"phone": 491701234567, "card": 4111111111111111, "password": 12345678}, False)
def test_json_stays_json_with_the_same_keys(value, ascii_only):
    def shape(value):
        if isinstance(value, dict):
            return {key: shape(inner) for key, inner in value.items()}
        return [shape(each) for each in value] if isinstance(value, list) else type(value)

    (text,) = protect(json.dumps(value, ensure_ascii=ascii_only))
    (twice,) = protect(json.dumps(json.dumps(value, ensure_ascii=ascii_only)))

    assert shape(json.loads(text)) == shape(value)
    assert shape(json.loads(json.loads(twice))) == shape(value)


@given(details, details)
def test_equal_values_have_equal_surrogates_and_others_have_others(one, other):
    first, second, third = protect(f"see {one}", f"see {one}", f"see {other}")

    assert first == second
    assert (first == third) == (one == other) or one in other or other in one


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("Anna.Keller+x@Firma.de", r"[A-Z][a-z]{3}\.[A-Z][a-z]{5}\+[a-z]@example\.(com|org|net)"),
        ("ANNA7@FIRMA.DE", r"[A-Z]{4}\d@EXAMPLE\.(COM|ORG|NET)"),
        ("+49 (0)30 1234567", r"\+49 \(0\)00 0\d{6}"),
        ("(212) 736-5000", r"\([2-9]\d\d\) 555-01\d\d"),
        ("4111-1111-1111-1111", r"4000-00(\d\d-\d{4}-\d{4})"),
        ("de89 3704 0044 0532 0130 00", r"de99 \d{4} \d{4} \d{4} \d{4} \d\d"),
        ("84.112.9.7", r"198\.1[89]\.\d+\.\d+"),
        ("2A02:8108::1F", r"2001:DB8::[0-9A-F]+"),
        ("sk-proj-a1b2c3d4e5f6g7h8i9", r"sk-proj-[a-z0-9]{11}EXAMPLE"),
        ("AKIAIOSFODNN7ABCDEFG", r"AKIA[A-Z0-9]{9}EXAMPLE"),
        ("https://anna:s3cret@host/x", r"https://[a-z]{3}EXAMPLE:[a-z]\d[a-z]EXAMPLE@host/x"),
    ],
)  # fmt: skip
def test_a_surrogate_has_the_form_of_the_value(text, form):
    assert re.fullmatch(form, protect(text)[0]), protect(text)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("anna@firma.de", "ANNA@Firma.DE"),
        ("jörg@firma.de", r'{"from": "j\u00f6rg@firma.de"}'),
        ("ann\u0061\u0301@firma.de", "anná@firma.de"),
        ("mail=anna@firma.de", "mail=anna%40firma.de"),
        ("2224 1187 1634 0563", r'{"card": "2224\u00a01187\u00a01634\u00a00563"}'),
        ("/reset?token=abc123def4", "the token is abc123def4"),
        ("+49 (0)30 1234567", "030/123 45 67"),
        ("4111 1111 1111 1111", "4111-1111-1111-1111"),
        ("DE89370400440532013000", "de89 3704 0044 0532 0130 00"),
        ("2a02:8108::1f", "2A02:8108:0:0:0:0:0:1F"),
    ],
)
def test_one_value_in_two_spellings_has_one_surrogate(one, other):
    own, theirs = protect(one, other)

    def plain(text):
        return re.sub(r"\\u00a0|\W", "", text.lower())

    if ":" in one:
        assert own.rpartition(":")[2] == theirs.lower().rpartition(":")[2]
    else:
        assert plain(own)[-9:] == plain(theirs)[-9:]


@pytest.mark.parametrize(
    ("given_texts", "value"),
    [
        (["my password is hunter22. I typed hunter22 twice.", '{"typed": "hunter22"}'], "hunter22"),
        (["hunter22 (Bearer abc123def456ghi)", "abc123def456ghi", "token=hunter22"], "hunter22"),
        (["Call +49 170 1234567", '{"phone": "491701234567", "n": 491701234567}'], "1701234567"),
        (["my card is 4111 1111 1111 1111", "4111_1111  41111111/1111/1111"], "41111111/1111"),
    ],
)  # fmt: skip
def test_what_is_a_detail_in_one_text_is_one_in_all_of_them(given_texts, value):
    assert value not in "".join(protect(*given_texts))


def test_a_short_or_plain_word_of_a_secret_stays_elsewhere():
    (text,) = protect("ftp://admin:s3cret9@host and the admin, password: 1234, room 1234")

    assert text.endswith("EXAMPLE@host and the admin, password: " + text.split()[5] + " room 1234")


def test_the_number_of_an_order_stays_and_one_that_stands_alone_is_the_same_in_all_texts():
    rng = random.Random(4)
    for _ in range(200):
        number = str(rng.randint(2 * 10**9, 7 * 10**10))
        pair = [f"my order no. {number} is late", f'{{"order_id": "{number}", "n": 1}}']
        assert protect(*pair) == pair

        alone = protect(pair[0], f"{number}!", pair[1])
        assert len(set(re.findall(r"\d{10,}", " ".join(alone)))) == 1


def test_one_who_is_called_is_so_in_a_text_that_calls_the_number_an_order():
    for number in ("2127365000", "4111111111111111"):
        texts = protect(f"please call or charge {number}", f'{{"order_id": {number}}}')
        assert number not in "".join(texts)
        assert json.loads(texts[1])


@pytest.mark.parametrize(
    ("told", "number"),
    [
        ("call 0170 1234567", 1701234567),
        ("call +49 170 1234567", 491701234567),
        ("call (212) 736-5000", 2127365000),
        ("SSN 123-45-6789", 123456789),
        ("card 4111 1111 1111 1111", 4111111111111111),
    ],
)
def test_a_number_of_json_that_is_told_elsewhere_is_replaced_and_stays_a_number(told, number):
    texts = protect(told, f'{{"n": {number}}}')

    assert json.loads(texts[1])["n"] != number
    assert protect(*texts) == texts


def test_what_the_last_round_still_finds_is_said(monkeypatch, caplog):
    monkeypatch.setattr("llamaduo.service_llm.privacy.MOST_ROUNDS", 1)

    protect("write to anna@firma.de")

    assert "still found email after 1 rounds" in caplog.text
    assert "anna" not in caplog.text


def test_as_many_addresses_as_there_are_have_surrogates_of_their_own():
    addresses = [f"8.8.{n // 250}.{n % 250}" for n in range(3000)]

    assert len(set(protect(" ".join(addresses))[0].split())) == len(addresses)


@pytest.mark.parametrize(
    "phone", ["212 736 5000", "0170 1234567", "+49 30 1234567", "+1 212 736 5000"]
)
def test_surrogates_in_a_row_are_no_other_numbers(phone):
    for length in range(1, 40):
        protected = GATE.protect([f"{phone} " * length])
        assert GATE.protect(protected.texts).replaced == []


@pytest.mark.timeout(20)
def test_the_time_grows_with_the_length_of_a_hostile_text():
    beginnings = ("", "sk-", "http://x?", "GB", "password: ", "+", "a@")
    for beginning in beginnings:
        for piece in ("sk-", "abc1-", "token", "GB82 ", "-----BEGIN PRIVATE KEY-----", "a.", "@a:"):
            protect(beginning + piece * (20_000 // len(piece)))


def test_a_surrogate_tells_nothing_of_the_value():
    assert protect("write to anna@firma.de") == protect("write to otto@meier.fr")


def test_surrogates_differ_from_text_to_text():
    assert len({protect(f"{n}: write to anna@firma.de")[0][-20:] for n in range(50)}) == 50


def test_off_replaces_nothing_and_yaml_may_spell_it_as_false():
    for off in ("off", False, {"detect": "off"}, {"detect": False}):
        gate = PrivacyGate(PrivacySettings.model_validate(off))
        assert gate.protect(["anna@firma.de"]) == (["anna@firma.de"], [])


def test_a_typo_in_the_settings_is_refused():
    with pytest.raises(ValidationError):
        PrivacySettings.model_validate({"detect": "pattern"})
    with pytest.raises(ValidationError):
        PrivacySettings.model_validate({"detects": "patterns"})


@pytest.mark.parametrize("unknown", ["de", "UK", "Germany"])
def test_a_region_that_no_phone_number_has_is_refused_by_name(unknown):
    with pytest.raises(ValidationError, match=f"{unknown}.*expected ISO 3166 codes .* such as GB"):
        PrivacySettings.model_validate({"regions": ["DE", unknown]})


@pytest.mark.parametrize(
    "value",
    [
        {"from": "anna@firma.de"},
        "4111\xa01111\xa01111\xa01111",
        ["030\u202f1234567"],
        "jörg@firma.de".encode(),
        "+49\u202f30\u202f1234567".encode(),
        b"anna@firma.de \xff",
        ValueError("could not convert string to float: '4111\xa01111\xa01111\xa01111'"),
    ],
)
def test_a_message_quotes_a_value_without_its_details(value):
    quoted = quote(value, 200)

    assert not re.search("firma|1234567|1111", quoted)


def test_a_message_quotes_the_beginning_of_a_value_as_python_spells_it():
    assert quote("plain", 4) == "'pla"
    assert quote(b"a\n", 9) == r"'a\n'"
    assert quote({"a": None}, 99) == "{'a': None}"


def test_a_message_keeps_what_its_reader_has_to_find():
    message = (
        "http://192.168.1.20:8000/v1: connection refused; https://84.112.9.7, "
        "https://[2a02:8108::1f]:8000/v1?x=1; /home/anna/data/20261126T143002-i002/"
        "journal.sqlite:4111, row 42 of train-1234567, 1,234,567.89 s of 2026-11-26T14.30.02.123Z, "
        "/tmp/pytest-of-root/pytest-12/1764150000, filter 1-68b329da, 99.5 %, version 2.4.0.1, "
        "4155551 tokens, id 550e8400-e29b-41d4-a716-446655440000, $12.4111111111"
    )

    assert protect_message(message) == message


def test_a_message_shows_no_details():
    message = (
        "http://h:8000/v1 says: '84.112.9.7', anna@firma.de, https://h/?token=abc123def, "
        "http://84.112.9.7:hunter22@h, http://84.112.9.7@h, "
        "https://hooks.slack.com/services/T0A/B0B/hunter22hunter22"
    )

    assert not re.search("84.112|firma|abc123|hunter22", protect_message(message))


def test_no_request_has_a_detail_and_each_reply_tells_what_was_replaced(tmp_path):
    def answer(body):
        return completion(body["messages"][-1]["content"])

    messages = [
        {"role": "system", "content": "You answer anna@firma.de."},
        {"role": "user", "content": "anna@firma.de asks: is 030/1234567 right?"},
    ]
    with FakeOpenAI(answer=answer) as server:
        service = service_at(server.base_url, tmp_path / "journal.sqlite")
        asked = [request(1, messages=messages), request(2)]
        replies = service.complete_all(asked, "test")
        again = service.complete_all(asked, "test")
        service.check(account=None, task=messages)

    sent = json.dumps([each.body for each in server.served], ensure_ascii=False)
    assert "firma" not in sent
    assert "1234567" not in sent
    assert [list(reply.replaced) for reply in replies] == [["email", "email", "phone"], []]
    assert [each.text for each in again] == [each.text for each in replies]
    assert len(server.served) == 3
    longest = max((each.body["messages"] for each in server.served), key=len)
    first, second = (each["content"] for each in longest)
    assert first.split()[2].strip(".") == second.split()[0]


def test_with_privacy_off_a_request_is_sent_as_it_is(tmp_path):
    with FakeOpenAI(answer=lambda body: completion("ok")) as server:
        service = service_at(server.base_url, tmp_path / "journal.sqlite")
        service = replace(service, gate=PrivacyGate(PrivacySettings(detect="off")))
        message = {"role": "user", "content": "anna@firma.de"}
        service.complete_all([request(1, messages=[message])], "test")

    assert server.served[0].body["messages"] == [message]


def test_names_and_places_become_invented_words(tmp_path):
    pytest.importorskip("presidio_analyzer")
    import spacy

    model = spacy.blank("de")
    ruler = model.add_pipe("entity_ruler")
    ruler.add_patterns(
        [{"label": "PERSON", "pattern": name} for name in ("Anna Keller", "Keller", "JSON")]
        + [{"label": "GPE", "pattern": "Berlin"}]
    )
    model.to_disk(tmp_path / "model")
    gate = PrivacyGate(PrivacySettings(detect="presidio", model=str(tmp_path / "model")))

    (text, in_json), replaced = gate.protect(
        ["Anna Keller, Berlin. KELLER? Keller: anna@firma.de", '{"JSON": "ANNA"}']
    )

    words = text.replace(",", "").replace(":", "").split()
    assert replaced == ["name", "name", "place", "name", "name", "email", "name"]
    assert in_json == f'{{"JSON": "{words[0].upper()}"}}'
    assert words[1] == words[4] != "Keller"
    assert words[2] != "Berlin."
    assert "firma" not in text
