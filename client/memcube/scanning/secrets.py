"""Rules for secrets: keys and tokens with a form of their own, and assignments of unlikely text."""

from __future__ import annotations

import math
import re
from collections import Counter
from typing import Final

from memcube.scanning.rule import Rule

_CHECK: Final = "secrets"
_ENTROPY_BITS: Final = 3.0
_PLACEHOLDER: Final = re.compile(
    r"(?i)x{4,}|\*{3,}|\.{3,}|<.*>|\$\{|\{\{|%\(|example|placeholder|changeme|your[-_ ]|dummy|redacted"
    r"|1234567|abcdef|password|secret|process\.env|os\.environ|getenv|null|none|true|false"
)

_EXAMPLES: Final = frozenset(
    {"pass", "passwd", "user", "admin", "root", "guest", "test", "hunter2"}
)
"""What documentation writes where a password stands, and no secret is."""


def entropy_bits(text: str) -> float:
    """Shannon entropy of the characters of `text`, in bits a character."""
    counts = Counter(text)
    return -sum(n / len(text) * math.log2(n / len(text)) for n in counts.values())


def _is_unlikely_text(match: re.Match[str]) -> bool:
    """Whether an assigned value looks made by a machine, and not like a placeholder."""
    value = match.group("value")
    if _PLACEHOLDER.search(value) or entropy_bits(value) < _ENTROPY_BITS:
        return False
    return any(char.isdigit() for char in value) and any(char.isalpha() for char in value)


def _is_no_placeholder(match: re.Match[str]) -> bool:
    value = match.group("value")
    return not _PLACEHOLDER.search(value) and value.casefold() not in _EXAMPLES


def _varied(match: re.Match[str]) -> bool:
    return entropy_bits(match.group()) >= _ENTROPY_BITS


def _token(name: str, needle: str, pattern: str, *, before: int = 0) -> Rule:
    guarded = rf"(?<![A-Za-z0-9_]){pattern}(?![A-Za-z0-9_])"
    return Rule(_CHECK, name, "high", (needle,), guarded, _varied, before=before)


def _shaped(name: str, pattern: str, shape: str) -> Rule:
    guarded = rf"(?<![A-Za-z0-9_]){pattern}(?![A-Za-z0-9_])"
    return Rule(_CHECK, name, "high", (), guarded, _varied, shape=shape)


RULES: Final = (
    Rule(
        _CHECK,
        "aws-access-key",
        "high",
        ("AKIA", "ASIA", "ABIA", "ACCA"),
        r"(?<![A-Z0-9])(?:AKIA|ASIA|ABIA|ACCA)[0-9A-Z]{16}(?![A-Z0-9])",
    ),
    Rule(
        _CHECK,
        "private-key",
        "high",
        ("-----BEGIN ",),
        r"-----BEGIN (?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----",
    ),
    Rule(
        _CHECK,
        "github-token",
        "high",
        ("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"),
        r"gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_[A-Za-z0-9_]{22,255}",
    ),
    *(
        _token("gitlab-token", prefix, rf"{prefix}[A-Za-z0-9_-]{{20,}}")
        for prefix in ("glpat-", "gldt-", "glft-", "glsoat-", "glrt-")
    ),
    Rule(
        _CHECK,
        "slack-token",
        "high",
        ("xox", "hooks.slack.com/services/"),
        r"xox[abposr]-(?:\d+-)+[A-Za-z0-9]+|hooks\.slack\.com/services/T[A-Z0-9]{6,}/B[A-Z0-9]{6,}/\w{20,}",
    ),
    Rule(
        _CHECK,
        "stripe-key",
        "high",
        ("sk_live_", "rk_live_"),
        r"[rs]k_live_[0-9A-Za-z]{24,}",
    ),
    _token("google-api-key", "AIza", r"AIza[0-9A-Za-z_-]{35}"),
    _token("anthropic-key", "sk-ant-", r"sk-ant-[A-Za-z0-9_-]{20,}"),
    _token(
        "openai-key",
        "T3BlbkFJ",
        r"sk-[A-Za-z0-9_-]{20,160}T3BlbkFJ[A-Za-z0-9_-]{20,}",
        before=165,
    ),
    _token("hugging-face-token", "hf_", r"hf_[A-Za-z]{34}"),
    _token("npm-token", "npm_", r"npm_[A-Za-z0-9]{36}"),
    _token("pypi-token", "pypi-AgE", r"pypi-AgE[A-Za-z0-9_-]{50,}"),
    _token("sendgrid-key", "SG.", r"SG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}"),
    Rule(_CHECK, "square-token", "high", ("sq0csp",), r"sq0csp-[0-9A-Za-z_-]{43}"),
    _shaped(
        "discord-token",
        r"[MNO][A-Za-z0-9_-]{23,25}\.[A-Za-z0-9_-]{6}\.[A-Za-z0-9_-]{27,38}",
        r"A[Aa0_-]{23,25}\.[Aa0_-]{6}\.",
    ),
    Rule(
        _CHECK,
        "telegram-token",
        "high",
        (":AA",),
        r"(?<!\d)\d{8,10}:AA[A-Za-z0-9_-]{33}",
        before=11,
    ),
    _shaped("twilio-key", r"(?:AC|SK)[a-z0-9]{32}", r"AA[a0]{32}"),
    _token("mailchimp-key", "-us", r"[0-9a-f]{32}-us[0-9]{1,2}", before=32),
    Rule(_CHECK, "azure-storage-key", "high", ("AccountKey=",), r"AccountKey=[A-Za-z0-9+/]{86}=="),
    _token("memcube-token", "mct_", r"mct_[A-Za-z0-9_-]{40,}"),
    _token("artifactory-token", "AKC", r"AKC[A-Za-z0-9]{10,}"),
    Rule(
        _CHECK,
        "json-web-token",
        "medium",
        ("eyJ",),
        r"(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}",
    ),
    Rule(
        _CHECK,
        "password-in-url",
        "high",
        ("@",),
        r"[a-z][a-z0-9+.-]{1,20}://[^\s:/@\"'<>\\]{1,100}:(?P<value>[^\s:/@\"'<>\\]{4,100})@",
        _is_no_placeholder,
        before=230,
    ),
    *(
        Rule(
            _CHECK,
            "assigned-secret",
            "medium",
            (word,),
            rf"{word}[a-z0-9_-]{{0,20}}[\"'\\]{{0,3}}\s{{0,3}}(?:=|:|:=|=>)\s{{0,3}}[\"'\\]{{0,3}}"
            r"(?P<value>[^\s\"'\\,;(){}]{12,200})",
            _is_unlikely_text,
            folded=True,
        )
        for word in ("passw", "secret", "api_key", "api-key", "apikey", "access_key", "auth_token")
    ),
)
