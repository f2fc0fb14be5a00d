"""Rules for personal data: forms with a checksum, and forms that people write."""

from __future__ import annotations

import re
from typing import Final

from memcube.scanning.rule import Rule

_CHECK: Final = "personal-data"
_RESERVED: Final = re.compile(
    r"(?i)@(?:[a-z0-9-]+\.)*(?:example(?:\.(?:com|org|net))?|test|invalid|localhost|local)$"
    r"|@(?:your-?)?domain\.(?:com|org|net)$|@users\.noreply\.github\.com$|^(?:no-?reply|git|e?mail|user(?:name)?|someone)@"
)
_COUNTED: Final = "12345678901234567890"
_IBAN_LENGTHS: Final = range(15, 35)


def _is_a_persons_address(match: re.Match[str]) -> bool:
    return not _RESERVED.search(match.group())


def _is_a_persons_number(match: re.Match[str]) -> bool:
    """Whether it is none of those kept for fiction (555-0100 to 555-0199), and not counted up."""
    digits = re.sub(r"\D", "", match.group())
    return not re.search(r"55501\d\d$", digits) and digits not in _COUNTED


def passes_luhn(digits: str) -> bool:
    """Whether a card number's last digit is its check digit (ISO/IEC 7812-1)."""
    total = 0
    for position, char in enumerate(reversed(digits)):
        value = int(char) * (2 if position % 2 else 1)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def _is_card(match: re.Match[str]) -> bool:
    digits = re.sub(r"\D", "", match.group())
    return len(set(digits)) > 3 and passes_luhn(digits)


def passes_mod_97(iban: str) -> bool:
    """Whether an IBAN's check digits fit (ISO 7064 MOD 97-10)."""
    turned = iban[4:] + iban[:4]
    return int("".join(str(int(char, 36)) for char in turned)) % 97 == 1


def _is_iban(match: re.Match[str]) -> bool:
    text = match.group().replace(" ", "")
    return len(text) in _IBAN_LENGTHS and passes_mod_97(text)


RULES: Final = (
    Rule(
        _CHECK,
        "email-address",
        "low",
        ("@",),
        r"(?<![A-Za-z0-9._%+-])[A-Za-z0-9._%+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.){1,4}[A-Za-z]{2,24}",
        _is_a_persons_address,
        before=66,
        after=300,
    ),
    Rule(
        _CHECK,
        "payment-card",
        "high",
        (),
        r"(?<![\d.])(?:4\d{3}|5[1-5]\d\d|2[2-7]\d\d|3[47]\d\d|6(?:011|5\d\d))(?:[ -]?\d{4}){2}[ -]?\d{3,4}(?![\d.])",
        _is_card,
        shape=r"0000(?:[ -]?0000){2}[ -]?000",
    ),
    Rule(
        _CHECK,
        "iban",
        "medium",
        (),
        r"(?<![A-Z0-9])[A-Z]{2}\d\d(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?![A-Z0-9])",
        _is_iban,
        shape=r"AA00(?: ?[A0]{4}){2}",
    ),
    Rule(
        _CHECK,
        "us-social-security-number",
        "medium",
        (),
        r"(?<![\d-])(?!000|666|9\d\d)\d{3}-(?!00)\d\d-(?!0000)\d{4}(?![\d-])",
        shape=r"000-00-0000",
    ),
    Rule(
        _CHECK,
        "phone-number",
        "low",
        (),
        r"(?<![\w+])\+[1-9]\d{0,2}[ .-]?(?:\(\d{1,4}\)[ .-]?)?\d{2,4}(?:[ .-]?\d{2,4}){2,4}(?!\w)",
        _is_a_persons_number,
        shape=r"\+0",
    ),
    Rule(
        _CHECK,
        "chinese-identity-number",
        "medium",
        (),
        r"(?<!\d)[1-9]\d{5}(?:19|20)\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])\d{3}[\dX](?!\d)",
        lambda match: _passes_mod_11(match.group()),
        shape="0" * 17 + "[0A]",
    ),
)


def _passes_mod_11(number: str) -> bool:
    """The check character of a resident identity number (GB 11643, ISO 7064 MOD 11-2)."""
    total = sum(int(char) * 2 ** (17 - at) for at, char in enumerate(number[:17]))
    return "10X98765432"[total % 11] == number[17]
