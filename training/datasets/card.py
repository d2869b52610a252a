"""The data card as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from goldpath.training.results import DataCard

_REASONS = {
    "exact_duplicate": "exact duplicate",
    "near_duplicate": "near-duplicate (MinHash)",
    "too_long": "too long",
    "too_short": "answer too short",
    "contaminated": "overlaps with the test split",
}


def card_markdown(card: DataCard) -> str:
    """The card as a Markdown page: counts, what was dropped and why, splits, redactions, samples."""
    lines = [
        "# Data card",
        "",
        f"**Source** `{card.source}`  ",
        f"**Rows** {card.rows_in:,} in, {sum(card.dropped.values()):,} dropped, {card.rows_out:,} out  ",
        f"**Words in a chat** median {card.words.get('p50', 0):,.0f}, 95th percentile "
        f"{card.words.get('p95', 0):,.0f}, longest {card.words.get('max', 0):,.0f}  ",
        f"**Digest** `{card.digest}`",
        "",
        "## Splits",
        "",
        *_table(
            ("Split", "Rows", "Groups"),
            [(name, f"{count:,}", f"{card.groups.get(name, 0):,}") for name, count in card.splits.items()],
        ),
        "",
        "No group is in two splits.",
    ]
    if card.dropped:
        rows = [(_REASONS.get(reason, reason), f"{count:,}") for reason, count in card.dropped.items()]
        lines += ["", "## Dropped", "", *_table(("Reason", "Rows"), rows)]
    if card.pii:
        rows = [(f"`{kind}`", f"{count:,}") for kind, count in card.pii.items()]
        lines += ["", "## Personal data replaced", "", *_table(("Kind", "Times"), rows)]
    if card.samples:
        lines += ["", "## Samples"]
    for sample in card.samples:
        lines += ["", f"**{_inline(sample['question'])}**", "", *_quoted(sample["answer"])]
        lines += ["", f"*{_inline(sample['source'])}*"]
    return "\n".join(lines) + "\n"


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    marks = ["---", *["---:"] * (len(head) - 1)]
    return [f"| {' | '.join(cells)} |" for cells in (head, marks, *rows)]


def _inline(text: str) -> str:
    """One line whose own marks do not end the emphasis around it."""
    return " ".join(text.split()).replace("*", "\\*").replace("<", "&lt;")


def _quoted(text: str) -> list[str]:
    """As a block of code, so that nothing in a row is taken for markup."""
    fence = "~~~~"
    while fence in text:
        fence += "~"
    return [fence + "text", *text.splitlines(), fence]
