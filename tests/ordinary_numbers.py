"""Numbers of software, shops and papers that belong to no person."""

import random
from datetime import datetime, timedelta

DIGIT = "#"
BEGINNING = datetime(2010, 1, 1)
DAYS = 7300
FORMS = (
    "Windows 10.0.1####.####",
    "Office 16.0.1####.2####",
    "Chrome/1##.0.6###.1##",
    ".NET 4.8.4###.0",
    "kernel 6.#.##-##-generic",
    "backup_%Y-%m-%d-%H-%M-%S.zip",
    "app-%Y-%m-%d-%H%M.log",
    "dump_%Y%m%d_%H%M%S.sql",
    "IMG_%Y%m%d_%H%M%S###.jpg",
    "%d-%m-%Y-%H-%M.log",
    "%Y.%m.%d-%H.%M.%S",
    "build %Y.%m.%d.####",
    "screenshot %Y-%m-%d_%H.%M.%S.png",
    "%Y-%m-%dT%H-%M-%S.###Z",
    "%Y-%m-%d %H:%M:%S,### INFO",
    "from %d.%m.%Y to %d.%m.%y",
    "on %m/%d/%Y at %H:%M",
    "Order 3##-#######-#######",
    "Order 02#-#######-#######",
    "eBay order 1#-0####-0####",
    "order 4#########",
    "the lamp in order 4#########",
    "case 4#########",
    "ref 5#########",
    "The order number is 5#########",
    "**Order number:** 5#########",
    "Sendungsnummer lautet 5#########",
    "Die Bestellnummer ist: 5#########",
    "my order was 5#########, the ticket is `4#########`",
    "Tracking number: 1Z####W#0#########",
    "Sendung 00340434############",
    "part number 3##-##-####",
    "SKU 2##-##-####",
    "invoice 1##-##-####",
    "LOT 4##-##-####",
    "INV-%Y-0####",
    "IMEI 35#############",
    "EAN 40###########",
    "ISBN 978-3-16-######-#",
    "doi 10.10##/s####-0##-0####-#",
    "EAN 0############",
    "SKU 0##-####-###",
    "UPS 1Z 999 AA1 01 ## ### ###",
    "FedEx 7### #### ####",
    "Steuernummer 12/###/#####",
    "at 52.######, 13.######",
    "$2,###,###.## or 3.###.###,## EUR",
    "DE1######## (VAT)",
    "PID 3####, exit code 13#, line 1###",
    "550e8400-e29b-41d4-a716-4466########",
    "epoch 1#########",
    "00:1B:44:11:3A:##",
    "1920x1080, 3840 x 2160, 1####x1####",
)  # fmt: skip
UNTOLD = (
    "EAN 40###########",
    "EAN 0############",
    "SKU 0##-####-###",
    "UPS 1Z 999 AA1 01 ## ### ###",
    "FedEx 7### #### ####",
    "Steuernummer 12/###/#####",
)
"""Some of these have the check digit of a card or the groups of a phone number."""


def fill(form: str, rng: random.Random) -> str:
    """A form with other digits, and a moment in place of the codes of ``strftime``."""
    moment = BEGINNING + timedelta(days=rng.random() * DAYS)
    return "".join(
        rng.choice("0123456789") if character == DIGIT else character
        for character in moment.strftime(form)
    )
