import csv
import gzip
import html
import io
import json
import sqlite3
import unicodedata

import pandas as pd
import pyarrow as pa
import pytest
from datasets import Dataset, load_from_disk
from hypothesis import given
from hypothesis import strategies as st

from llamaduo.errors import InputError
from llamaduo.forgetting.findings import Treatment, search
from llamaduo.forgetting.places import Places
from llamaduo.forgetting.rows import rest_of
from llamaduo.forgetting.wanted import Wanted
from llamaduo.ledger import Ledger, ledgers_below
from tests.service_llm.test_journal import received, sent, write

NAME = 'Jürgen "Jo"\nO\'Müller & Söhne'
WANTED = Wanted([NAME])


def in_json(text):
    return json.dumps({"text": text}, ensure_ascii=False)


def in_ascii_json(text):
    return json.dumps({"text": text})


def decomposed(text):
    return unicodedata.normalize("NFD", text)


def spaced(text):
    return "\t\n ".join(text.split(" "))


DISGUISES = st.lists(
    st.sampled_from([in_json, in_ascii_json, html.escape, decomposed, spaced]), max_size=4
)
LETTERS = st.characters(categories=["L", "N", "P", "S", "Zs"])


@given(st.text(LETTERS, max_size=20), DISGUISES)
def test_a_text_is_found_however_it_is_escaped_spaced_and_composed(middle, disguises):
    text = f"an {middle} na"
    hidden = text
    for disguise in disguises:
        hidden = disguise(hidden)

    assert Wanted([text]).is_in(f"before {hidden} after")
    assert Wanted([text]).is_in_bytes(f"before {hidden} after".encode())
