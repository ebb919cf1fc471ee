"""Grades numbers: the final number of a reply, however it is written, compared with the right one."""

from __future__ import annotations

import re
import unicodedata
from decimal import Decimal, InvalidOperation, localcontext

from lbt_sim.grading.text import TextGrader, marked

__all__ = ["NumberGrader", "number", "read_number"]

TOLERANCE = Decimal("1e-6")
"""Relative difference up to which two numbers are the same, unless both are whole: 1,000,001 is not 1,000,000."""

DIGITS = 400
"""Characters of one number that are read; longer ones are no answer."""

_BODY = r"(?:\d{1,3}(?:,\d{3})+(?![\d,])|\d+)(?:\.\d+)?|\.\d+"
_NUMBER = re.compile(
    rf"(?P<sign>(?<![\w)\]}}])[-+]\s?)?(?:[$€£¥]\s?)?(?P<sign2>(?<=[$€£¥])[-+])?(?<![\w.])(?P<body>{_BODY})"
    r"(?P<exponent>e[-+]?\d{1,4}(?!\w)|\s?[x*]\s?10(?:\^|\*\*)\(?[-+]?\d{1,4}\)?)?"
    r"(?:(?P<whole>\s+\d+)?\s?/\s?(?P<under>\d+(?:\.\d+)?))?",
    re.IGNORECASE,
)
_CUT = re.compile(r"[\d.,/\s$€£¥+-]*$")
_SUM = re.compile(r"[\s\d.,()$€£¥+*/x-]*=")


def NumberGrader() -> TextGrader:  # noqa: N802
    r"""Right is the same number.

    Read is the number after the last '####', '\boxed' or 'the answer is', else the last number of the text. Thousands
    separators, currency signs, units, fractions, mixed numbers and powers of ten are understood; a percent sign is
    left out on both sides, so 25 % is 25 and not 0.25. A reply that was cut off is only read where a marked number is
    complete: its last number so far is an intermediate one.
    """
    return TextGrader(read_number, _same)


def read_number(text: str, cut: bool = False) -> str | None:
    """The number that `text` answers with, written plainly, None where there is none.

    Args:
        text: A reply.
        cut: Whether the reply was cut off.
    """
    plain = _plain(text)
    marks = [*_boxed(plain), *marked(plain)]
    for rest in marks:
        found = _first(rest, cut)
        if found is not None:
            return _written(found)
    if marks or cut:
        return None
    for match in reversed(list(_NUMBER.finditer(plain))):
        if (value := _value(match)) is not None:
            return _written(value)
    return None


def number(text: str) -> Decimal | None:
    """The value of a text that is one number and nothing but signs and units around it, else None."""
    values = [value for match in _NUMBER.finditer(_plain(text)) if (value := _value(match)) is not None]
    return values[0] if len(values) == 1 else None


def _same(found: str, right: str) -> bool:
    a, b = number(found), number(right)
    if a is None or b is None:
        return False
    with localcontext(prec=DIGITS):
        if a == a.to_integral_value() and b == b.to_integral_value():
            return a == b
        return abs(a - b) <= TOLERANCE * max(abs(a), abs(b))


def _plain(text: str) -> str:
    """`text` with one way to write each thing: ASCII signs and digits, LaTeX fractions and separators resolved."""
    # A narrow space between digits groups thousands; ½ after a digit is a mixed number.
    text = re.sub(r"(?<=\d)[\u00a0\u202f\u2009](?=\d{3}(?!\d))", "", text)
    text = re.sub(r"(?<=\d)(?=[¼-¾⅐-⅞])", " ", text)
    text = unicodedata.normalize("NFKC", text).translate(str.maketrans("−–⁄×·", "--/**"))
    text = re.sub(r"\\[dt]?frac\s*\{([^{}]{1,50})\}\s*\{([^{}]{1,50})\}", r" \1/\2", text)
    text = re.sub(r"\\(?:times|cdot)\b", "*", text)
    text = re.sub(r"\{,\}|(?<=\d)\\,(?=\d{3})", "", text)
    text = re.sub(r"\\[$%]", lambda match: match[0][1], text)
    return re.sub(r"\^\{([-+]?\d+)\}", r"^\1", text)


def _boxed(text: str) -> list[str]:
    return [match[1] for match in re.finditer(r"\\boxed\s*\{([^{}]{1,200})\}", text)][::-1]


def _first(rest: str, cut: bool) -> Decimal | None:
    """The number right after a marker; of a sum that is worked out ('5 + 3 = 8') its result."""
    result = _SUM.match(rest)
    while result is not None:
        rest = rest[result.end() :]
        result = _SUM.match(rest)
    match = _NUMBER.search(rest)
    if match is None or (cut and _CUT.match(rest, match.end()) and not rest[match.end() :].strip()):
        return None
    return _value(match)


def _value(match: re.Match[str]) -> Decimal | None:
    if len(match[0]) > DIGITS:
        return None
    try:
        with localcontext(prec=DIGITS):
            value = Decimal(match["body"].replace(",", ""))
            if match["under"]:
                under = Decimal(match["under"])
                value = value + Decimal(match["whole"]) / under if match["whole"] else value / under
            if match["exponent"]:
                value = value.scaleb(int(re.findall(r"[-+]?\d+", match["exponent"])[-1]))
            sign = (match["sign"] or match["sign2"] or "+").strip()
            return -value if sign == "-" else value
    except (InvalidOperation, ZeroDivisionError):
        return None


def _written(value: Decimal) -> str:
    with localcontext(prec=50):
        short = +value
        if short == short.to_integral_value() and abs(short.adjusted()) < 40:
            return str(short.to_integral_value().quantize(Decimal(1)) + 0)
        with localcontext(prec=15):
            return str((+value).normalize())
