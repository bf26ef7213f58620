"""Reads numbers from text: decimal commas, separated thousands, currencies.

As with times, a column is read in one way. Where its values allow two readings (`1,234`), it is refused.
"""

from __future__ import annotations

import polars as pl

from model.data.checks import Findings
from model.data.column_types import NUMBER_KINDS, require
from model.data.errors import DataError, quoted
from model.data.losses import report_losses
from model.data.rules import Rules
from model.data.times import Place

_NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
_CURRENCY = r"[A-Z]{3}|\p{Sc}|zł|kr\.?|Kč"
_PRICED = rf"^([+-]?)(?:({_CURRENCY})\s*)?([+-]?[\d.,][\d.,'’\s]*?)\s*({_CURRENCY})?$"
# What shows the decimal sign D, where T separates thousands: 4D5, 1T234D5, 1T234T567, 0D123, D5.
_SURE = r"^[+-]?(\d*D(\d{1,2}|\d{4,})|\d{1,3}(TGROUP)+D\d+|\d{1,3}(TGROUP){2,}|0?D\d+)$"
_FORM = r"^[+-]?(\d+|\d{1,3}(TGROUP)+)?(D\d*)?$"
# How a column of text was read (`Findings.readings`).
_POINTS, _COMMAS = "with decimal points", "with decimal commas"
_FIX = "write numbers such as 1234.5"


def as_numbers(column: pl.Series, what: str, place: Place, findings: Findings, rules: Rules) -> pl.Series:
    """Converts a column to floats.

    Args:
        column: [rows] numbers, booleans or text, as `model.data.column_types.plain` gives them.
        what: What the column holds, in the plural, for messages.
        place: Where the column comes from.
        findings: Receives notes on how text was read and on values that were lost.
        rules: The decimal sign, if the caller named it, and the losses that are allowed.

    Returns:
        [rows] float64, null where the value is not a finite number.

    Raises:
        DataError: The column is of another type, loses too many of its values, mixes decimal signs or currencies, or
            has values that can be read in two ways.
    """
    require(column, place, what, NUMBER_KINDS)
    if column.dtype == pl.String:
        numbers = _from_text(column, what, place, findings, rules)
    elif column.dtype in (pl.Float16, pl.Float32):
        column = column.fill_nan(None)
        numbers = column.cast(pl.String).cast(pl.Float64)  # the decimal that was meant: 36.19, not 36.18999862670898
    else:
        column = column.fill_nan(None) if column.dtype.is_float() else column
        numbers = column.cast(pl.Float64)
    numbers = numbers.set((~numbers.is_finite()).fill_null(value=False), None)
    report_losses(column, numbers, place, what, "are not finite numbers", findings, rules, _FIX)
    return numbers


def _from_text(column: pl.Series, what: str, place: Place, findings: Findings, rules: Rules) -> pl.Series:
    text = column.str.strip_chars()
    plain = text.str.contains(_NUMBER).fill_null(value=False)
    findings.readings[what] = _POINTS
    if rules.decimal in (None, ".") and int(plain.sum()) == len(text) - text.null_count():
        return text.cast(pl.Float64, strict=False)
    parts = (
        text.str.extract_groups(_PRICED).struct.unnest().rename({"1": "sign", "2": "before", "3": "body", "4": "after"})
    )
    currency = parts.select(pl.coalesce("before", "after")).to_series()
    _one_currency(currency, place, what, findings)
    body = (parts["sign"].fill_null("") + parts["body"]).str.replace_all(r"['’\s]", "")
    scientific = text.str.contains(r"^[+-]?[\d.]+[eE][+-]?\d+$").fill_null(value=False)
    sign = rules.decimal or _decimal_sign(body, text, place, what)
    if sign == ",":
        findings.readings[what] = _COMMAS
        findings.note(f"{what} read with a decimal comma")
    form = body.str.contains(_pattern(_FORM, sign)).fill_null(value=False)
    thousands = "." if sign == "," else ","
    bare = body.str.replace_all(thousands, "", literal=True).str.replace(sign, ".", literal=True)
    bare = bare.set(~form, None)
    bare = bare.zip_with(~scientific, text)
    return bare.cast(pl.Float64, strict=False)


def _one_currency(currency: pl.Series, place: Place, what: str, findings: Findings) -> None:
    counts = currency.drop_nulls().value_counts(sort=True)
    if not counts.height:
        return
    listed = ", ".join(f"{name} ({count})" for name, count in counts.iter_rows())
    if counts.height > 1:
        rare = (currency == counts[currency.name][-1]).fill_null(value=False)
        raise DataError(
            f"{what} are in several currencies: {listed}", where=place.locate(rare), fix="convert them to one currency"
        )
    findings.readings[f"currency of {what}"] = counts[currency.name][0]
    findings.note(f"{what} carry a currency, which was removed: {listed}")


def _decimal_sign(body: pl.Series, text: pl.Series, place: Place, what: str) -> str:
    sure = {sign: body.str.contains(_pattern(_SURE, sign)).fill_null(value=False) for sign in ".,"}
    if sure["."].any() and sure[","].any():
        rare = min(sure.values(), key=lambda mask: int(mask.sum()))
        raise DataError(
            f"{what} have decimal commas ({int(sure[','].sum())}) and decimal points ({int(sure['.'].sum())})",
            where=f"the less frequent ones are in {place.locate(rare)}",
            fix="write every number with one decimal sign, or name it with --decimal and accept the loss of the others "
            f"with --allow-loss {place.column or body.name}",
        )
    if sure[","].any():
        return ","
    unsure = body.str.contains(r"^[+-]?\d{1,3},\d{3}$").fill_null(value=False)
    if unsure.any() and not sure["."].any():
        raise DataError(
            f"{int(unsure.sum())} {what} may have a decimal comma or separated thousands: "
            f"{quoted(text.filter(unsure).unique(maintain_order=True))}",
            where=place.locate(unsure),
            fix="say which sign is the decimal one: --decimal , or --decimal .",
        )
    return "."


def _pattern(form: str, decimal: str) -> str:
    thousands = "." if decimal == "," else ","
    return form.replace("TGROUP", rf"\{thousands}\d{{3}}").replace("D", rf"\{decimal}")
