"""Where a text holds phone numbers."""

import re
from collections.abc import Iterator, Sequence

from llamaduo.service_llm.details import TAKEN, Detail
from llamaduo.service_llm.surrogates import NO_PHONE, NORTH_AMERICA

LEAST_DIGITS = 7
MOST_DIGITS = 18
"""15 of ITU-T E.164, two zeros before and one in brackets."""
GAP = r"[ ()./_-]{0,4}"
RUN = re.compile(
    rf"(?:(?<![^\W_])|(?<=tel|fax|fon)|(?<=phone|mobil))\d(?:{GAP}\d){{6,}}(?=x\d|[\W_]|\Z)",
    re.IGNORECASE,
)
"""One number or several, with other digits around; ``x`` begins an extension."""
DIGITS = re.compile(r"\d+")
APART = r"[ ()./_-]{1,4}"
NANP = re.compile(
    rf"(?:1{GAP})?(?:\d{{10}}|\d{{3}}{APART}\d{{3}}{APART}\d{{4}}|\d{{3}}\) ?\d{{7}})"
)
"""North American numbers have no sign of their own, so that their groups must be right."""
FICTIONAL = re.compile(r"(?:(?:\+|00)[1-9]\d{0,2}0?|0)000\d{3,}|(?:\+?1)?[2-9]\d\d55501\d\d")
"""As surrogates are written, also those of an area that there is not."""
LOCAL_FICTION = re.compile(r"0?55501\d\d")
THING = r"""(?<![^\W_])
    (?:orders?|invoices?|inv|ord|tickets?|(?<!\bin[ ])case|serial|po|tracking|parcel|shipment
        |ref|reference|rma|part|lot|imei|isbn|ean|gtin|sku|bestell\w*|auftrag\w*|rechnung\w*|sendung\w*)
    (?:[ _-]?(?:no|nr|num|number|nummer|id)\b\.?)?"""
"""What has numbers of its own; "in case" is none."""
LINK = r"""(?:-|["'*]{0,3}(?:[ ](?:is|was|ist|war|lautet)\b)?[ \t:=\#"'*`]{0,6})"""
"""Between a thing and its number; no sentence or line ends there."""
REFERENCE = re.compile(
    rf"""(?:{THING}
        |(?<![^\W_])(?:account|customer|kunden)[ _-]?(?:no|nr|num|number|nummer|id)\b\.?
        |(?<![^\W_])id(?=["']?[ ]?[:=\#]))
    {LINK}[1-9]\d{{6,18}}(?![-./ ]?\d|[^\W_])""",
    re.IGNORECASE | re.VERBOSE,
)
"""A number in one piece that is called a thing's; one with a zero before it is hardly that."""
PAIRED = re.compile(
    r"(?:\+\d{1,3}[ -]?\(?\d{1,5}|(?<![\d./-])0\d{2,4})\)?[ /-]{1,2}"
    r"\d\d([./-])\d\d\1\d\d(?![./-]?\d)"
)
"""A number whose pairs of digits may look like a date."""
MONTH, DAY = r"(?:0?[1-9]|1[0-2])", r"(?:0?[1-9]|[12]\d|3[01])"
YEAR = r"(?:19|20)\d\d"
TIME = r"[-_T.](?:[01]\d|2[0-3])(?:[-_:.]?[0-5]\d){1,2}(?:\.?\d{3})?"
OTHER = re.compile(
    rf"""(?<![\d./])(?<![\d)]-)(?:
        {YEAR}([./-]){MONTH}\1{DAY}(?:{TIME}|\.\d{{1,5}})?
        |{YEAR}(?:0[1-9]|1[0-2])(?:[0-2]\d|3[01]){TIME}
        |(?:{DAY}([./-]){MONTH}\2|{MONTH}([./-]){DAY}\3)(?:{YEAR}(?:{TIME})?|\d\d)
        )(?![./-]?\d)                                                           # a date
    |\b\d\d?:\d\d(?::\d\d)?\b                                                   # a time
    |(?<![\d.+])[1-9]\d{{0,2}}\.\d{{1,2}}\.\d{{4,5}}\.\d{{1,5}}(?![\d.])        # a version
    |(?<![\d+-])(?:\d{{3}}-\d{{7}}-\d{{7}}|[1-9]\d-\d{{5}}-\d{{5}})(?![\d-])    # a shop's order
    |\b10\.\d{{4,5}}/\S+                                                        # a DOI
    |-(?:[0-9a-f]{{4}}-){{3}}[0-9a-f]{{12}}                                     # of a UUID
    |(?<![\d.,+])\d\.\d{{2,}}(?![\d.]|[ ]\d{{3}})                               # a fraction
    |\bisbn[ :]{{0,2}}[\d-]+""",
    re.IGNORECASE | re.VERBOSE,
)


def find_phones(text: str, regions: Sequence[str]) -> Iterator[Detail]:
    """Any possible number with a country code, and the valid ones of the regions."""
    if not RUN.search(text):
        return
    paired = {match.end() for match in PAIRED.finditer(text)}

    def taken(other: re.Match[str]) -> str:
        return other[0] if other.end() in paired else TAKEN * len(other[0])

    text = OTHER.sub(taken, REFERENCE.sub(taken, text))
    for run in RUN.finditer(text):
        yield from _numbers_of(run, regions)


def _numbers_of(run: re.Match[str], regions: Sequence[str]) -> Iterator[Detail]:
    """The numbers that cover the most digits; each begins and ends with a group of digits.

    libphonenumber's own matcher takes what stands beside a number for a part of it.
    """
    text = run.string
    groups = [group.span() for group in DIGITS.finditer(text, *run.span())]
    covered = [0] * (len(groups) + 1)
    chosen: dict[int, tuple[int, Detail]] = {}
    for first in reversed(range(len(groups))):
        covered[first] = covered[first + 1]
        start = groups[first][0] - text.endswith(("+", "+("), 0, groups[first][0])
        digits = ""
        for last, group in enumerate(groups[first : first + MOST_DIGITS], first):
            digits += text[slice(*group)]
            if len(digits) > MOST_DIGITS:
                break
            total = len(digits) + covered[last + 1]
            if len(digits) < LEAST_DIGITS or total <= covered[first]:
                continue
            if value := _value(text[start : group[1]], digits, regions):
                covered[first] = total
                chosen[first] = last, Detail("phone", start, group[1], value)
    place = 0
    while place < len(groups):
        if place in chosen:
            place, number = chosen[place]
            yield number
        place += 1


def _value(written: str, digits: str, regions: Sequence[str]) -> str | None:
    """``Detail.value`` of a phone number, None for any other number."""
    from phonenumbers import (
        NumberParseException,
        is_possible_number,
        is_valid_number,
        national_significant_number,
        parse,
    )

    has_code = written.startswith("+")
    plain = f"+{digits}" if has_code else digits
    if LOCAL_FICTION.fullmatch(plain):
        return NO_PHONE
    for region in [None] if has_code else regions:
        if region and not _is_begun(written, region):
            continue
        try:
            number = parse(plain, region)
        except NumberParseException:
            continue
        if is_valid_number(number) or (has_code and is_possible_number(number)):
            national = national_significant_number(number)
            return f"{NORTH_AMERICA}{national}" if number.country_code == 1 else national
    return NO_PHONE if FICTIONAL.fullmatch(plain) else None


def _is_begun(written: str, region: str) -> bool:
    """Whether a number without a country code is written as a region's numbers are.

    The library takes a German 1698 for one; nobody writes one without its prefix.
    """
    from phonenumbers import ndd_prefix_for_region

    prefix = ndd_prefix_for_region(region, True)
    if prefix == "1":
        return written.startswith("011") or NANP.fullmatch(written) is not None
    return prefix != "0" or written.startswith("0")
