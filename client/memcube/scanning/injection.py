"""Rules for text that speaks to a model instead of to a reader, and for text that people do not see."""

from __future__ import annotations

import re
from typing import Final

from memcube.scanning.rule import Rule

_CHECK: Final = "prompt-injection"
_OBJECT: Final = (
    r"(?:instructions?|prompts?|rules|guidelines|directives|context|commands|messages|training)"
)
_EARLIER: Final = (
    r"(?:(?:all|any|the|your|my|of|these|those)\s+){0,4}"
    r"(?:(?:previous|prior|above|earlier|preceding|foregoing|system|original|initial)\s+)?"
)


def _phrase(
    name: str,
    needles: tuple[str, ...],
    pattern: str,
    severity: str = "high",
    before: int = 0,
    after: int = 500,
) -> Rule:
    return Rule(_CHECK, name, severity, needles, pattern, folded=True, before=before, after=after)


RULES: Final = (
    _phrase(
        "override-instructions",
        ("ignore", "disregard", "forget", "override", "bypass"),
        rf"\b(?:ignore|disregard|forget|override|bypass)\s+{_EARLIER}{_OBJECT}\b",
    ),
    _phrase(
        "override-instructions-other-languages",
        (
            "忽略",
            "无视",
            "忘记",
            "忘掉",
            "ignoriere",
            "vergiss",
            "ignore",
            "oublie",
            "olvida",
            "ignora",
        ),
        r"(?:忽略|无视|忘记|忘掉).{0,4}(?:之前|以前|以上|先前|前面|上面|上述|所有|一切|全部|任何|你的|系统)"
        r".{0,8}(?:指令|指示|提示|规则)"
        r"|(?:ignoriere|vergiss)\s+(?:alle\s+)?(?:vorherigen|bisherigen|obigen)\s+\w*(?:anweisung|regel)"
        r"|(?:ignore[zr]?|oublie[zr]?)\s+(?:toutes\s+)?(?:les\s+)?(?:instructions|consignes)\s+(?:précédentes|ci-dessus)"
        r"|(?:ignora|olvida)\s+(?:todas\s+)?(?:las\s+)?(?:instrucciones|reglas)\s+(?:anteriores|previas)",
    ),
    _phrase(
        "new-role",
        ("you are now", "act as", "from now on", "pretend"),
        r"\byou are now (?:in )?(?:a |an |the )?(?:\w+ )?(?:dan\b|developer mode|jailbroken|unrestricted|unfiltered|root|admin)"
        r"|\b(?:act as|pretend (?:to be|that you are)) (?:a |an )?(?:\w+ )?(?:unrestricted|unfiltered|jailbroken|evil)"
        r"|\bfrom now on,? you (?:must|will|shall) (?:only |always |never )",
        "medium",
    ),
    _phrase(
        "reveal-prompt",
        (
            "system prompt",
            "your instructions",
            "your initial instructions",
            "your system instructions",
            "your prompt",
            "hidden prompt",
        ),
        r"\b(?:reveal|print|show|repeat|output|leak|tell me|display)\b.{0,40}\b(?:system prompt|your (?:initial |system )?instructions|your prompt|hidden prompt)",
        before=70,
    ),
    _phrase(
        "hide-from-user",
        ("user",),
        r"\b(?:do not|don't|never|without) (?:tell|inform|mention(?:ing)?|notify(?:ing)?|telling|informing|show|reveal)(?: (?:this|it|that|anything))?(?: to)? (?:the |your )?users?\b",
        "medium",
        before=90,
        after=10,
    ),
    _phrase(
        "exfiltrate",
        ("http://", "https://"),
        r"\b(?:send|post|forward|upload|transmit|exfiltrate)\b[\w\s,'’-]{0,60}\b(?:conversation|chat history|memory|memories|secrets?|credentials|api keys?|passwords?|tokens?)\b.{0,60}https?://",
        before=150,
        after=10,
    ),
    Rule(
        _CHECK,
        "image-that-sends-data",
        "medium",
        ("](http",),
        r"!\[[^\]]{0,200}\]\(https?://[^)\s]{1,300}(?:\{\{?|\[|%7b|<)[^)]{0,100}\)",
        before=210,
    ),
    Rule(
        _CHECK,
        "control-token",
        "medium",
        (
            "<|",
            "[INST]",
            "<<SYS>>",
            "<start_",
            "<tool_call>",
            "<｜",
            "[|",
            "[THINK]",
            "]~",
            "<SPECIAL_",
            "<extra_id_",
        ),
        r"<\|(?:im_start|im_end|system|user|assistant|endoftext|eot_id|start_header_id|begin_of_text)\|>"
        r"|\[INST\]|<<SYS>>|<start_of_turn>|<start_function_call>|<tool_call>|<｜(?:User|Assistant|begin)"
        r"|\[\|(?:system|user|assistant|endofturn)\|\]|\[THINK\]|\]~!?b[\[\]]"
        r"|<(?:SPECIAL|extra_id)_\d{1,3}>",
    ),
    _phrase(
        "fake-turn",
        ("system", "assistant", "instruction"),
        r"(?:^|[\r\n])\s{0,3}(?:#{2,3} ?)?(?:system(?: message)?|assistant|instruction)\s{0,2}:\s{0,3}(?:you (?:must|are|will)|ignore|always|never)\b",
        "medium",
        before=40,
        after=60,
    ),
)

_SELECTORS: Final = "\u180b-\u180d\u180f\ufe00-\ufe0f\U000e0100-\U000e01ef"
HIDDEN: Final = (
    Rule(_CHECK, "hidden-tag-characters", "high", (), "[\U000e0001-\U000e007f]{2,}"),
    Rule(
        _CHECK,
        "hidden-variation-selectors",
        "high",
        (),
        f"[{_SELECTORS}]{{4,}}|(?:[A-Za-z][{_SELECTORS}][ -~]{{0,8}}){{3}}",
    ),
    Rule(_CHECK, "text-direction-override", "high", (), "[\u202a-\u202e\u2066-\u2069]"),
    Rule(_CHECK, "zero-width-run", "medium", (), "[\u200b-\u200d\u2060-\u2064\ufeff\u180e]{3,}"),
    Rule(
        _CHECK,
        "invisible-letters",
        "medium",
        (),
        "[\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0]{3,}",
    ),
)
"""Only looked for in text that holds one of `HIDDEN_CHARACTERS`."""
HIDDEN_CHARACTERS: Final = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200d\u202a-\u202e\u2060-\u2069\u3164\ufe00-\ufe0f\ufeff\uffa0"
    "\U000e0001-\U000e007f\U000e0100-\U000e01ef]"
)

MARKUP: Final = (
    _phrase(
        "hidden-markup",
        ("display", "font-size", "visibility"),
        r"style\s*=\s*\\?[\"'][^\"'>]{0,200}(?:display\s*:\s*none|font-size\s*:\s*0|visibility\s*:\s*hidden)",
        "medium",
        before=230,
        after=60,
    ),
    _phrase(
        "instruction-in-comment",
        ("<!--",),
        r"<!--(?:(?!-->|<!--).){0,400}?\b(?:ignore|disregard|you must|assistant|system prompt)\b",
        "medium",
    ),
)
