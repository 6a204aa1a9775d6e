"""Where a text holds phone numbers, and where numbers that are called something else."""

import re
from collections.abc import Iterator, Sequence

from llamaduo.service_llm.details import TAKEN, Detail, take
from llamaduo.service_llm.surrogates import FICTIONAL_PHONE

LEAST_DIGITS = 7
ANY_NUMBER = re.compile(r"\d(?:[^\w\n\0]{0,4}\d){6}")
GAP = re.compile(r"\s{2}")
"""Of a table, not of a number."""
EXTENSION = re.compile(r"[^\w]*(?:[^\W\d]|#|;).*\Z", re.DOTALL)
NO_PHONE = re.compile(
    r"""(?<![\d./-])(?:\d{1,2}[./-]\d{1,2}[./-](?:\d{4}|\d\d)|\d{4}[./-]\d{1,2}[./-]\d{1,2})
        (?![./-]?\d)                                                            # a date
    |-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}                                           # of a UUID
    |(?<![\d.,+])\d[.,]\d{2,}(?![\d.,])                                         # a fraction
    |\bisbn[ :]{0,2}[\d-]+""",
    re.IGNORECASE | re.VERBOSE,
)
COUNTED = re.compile(
    r"""(?:\b(?-i:[A-Z]{2,})[-_]                                                 # INV-4402
    |(?:\#|(?<![^\W_])(?:orders?|invoices?|tickets?|case|serial|tracking|parcel|shipment
        |rma|po|imei|isbn|ean|gtin|sku|bestell\w*|auftrags?\w*|rechnungs?\w*|sendungs?\w*
        |(?:account|customer|kunden|order|invoice|ticket|case|ref|reference)[ _-]?
            (?:no|nr|num|number|nummer|id)
        |id|(?-i:[a-z]+Id))(?![^\W_]))
     [ _-]?(?:(?:no|nr|num|number|id)\b)?[\s.:=\#"']{0,6})
    (?<![^\W_])(\d{7,19})(?![-./ ]?\d|[^\W_])""",
    re.IGNORECASE | re.VERBOSE,
)
"""A number in one piece behind a word that makes it the number of a thing; a key of JSON too."""
PLAIN = re.compile(r"(?<![\w+])\d{7,19}(?!\w)")


def find_counted(text: str) -> set[str]:
    """The digits of each number that is an order's, an invoice's and so on."""
    return {match[1] for match in COUNTED.finditer(text)}


def without_counted(text: str, counted: set[str]) -> str:
    """The text with ``TAKEN`` over these numbers, whatever stands before them."""
    if not counted:
        return text
    return PLAIN.sub(lambda match: TAKEN * len(match[0]) if match[0] in counted else match[0], text)


def find_phones(text: str, regions: Sequence[str]) -> Iterator[Detail]:
    """Any possible number with a country code, and the valid ones of the regions."""
    if not ANY_NUMBER.search(text):
        return
    for none in (FICTIONAL_PHONE, NO_PHONE):
        text = none.sub(lambda match: TAKEN * len(match[0]), text)
    if not ANY_NUMBER.search(text):
        return
    for region in (None, *regions):
        found = list(_phones_of(region, text))
        yield from found
        text = take(text, found)


def _phones_of(region: str | None, text: str) -> Iterator[Detail]:
    from phonenumbers import (
        Leniency,
        PhoneNumberMatcher,
        national_significant_number,
        ndd_prefix_for_region,
    )

    # The library takes a German 1698 for a number; nobody writes one without its prefix.
    prefix = "0" if region and ndd_prefix_for_region(region, True) == "0" else ""
    leniency = Leniency.VALID if region else Leniency.POSSIBLE
    for match in PhoneNumberMatcher(text, region, leniency):
        written = EXTENSION.sub("", match.raw_string)
        value = national_significant_number(match.number)
        digits = re.sub(r"\D", "", written)
        has_start = written.lstrip("(").startswith((prefix, "+"))
        has_end = len(digits) >= LEAST_DIGITS and digits[-4:] == value[-4:]
        if has_start and has_end and not GAP.search(written):
            yield Detail("phone", match.start, match.start + len(written), value)
