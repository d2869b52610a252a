"""Text: normal form, words, and hashed word n-grams."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    Hashes = np.ndarray[tuple[int], np.dtype[np.uint64]]

# Control characters (not tab and newline), zero-width marks and direction overrides: invisible, and a way to hide text.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u00ad\u200b\u2060\ufeff\u200e\u200f\u202a-\u202e\u2066-\u2069]"
)
_SURROGATES = re.compile("[\ud800-\udfff]")
_TRAILING = re.compile(r"[ \t]+(?=\n)")
_BLANK_LINES = re.compile(r"\n{3,}")
# Chinese, Japanese and Korean write no spaces: each of their characters counts as a word.
_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
_WORDS = re.compile(f"[{_CJK}]|[^\\W{_CJK}]+")
_MULTIPLIER = 0x9E3779B97F4A7C15


def normalise(text: str) -> str:
    """Unicode NFC, newlines as LF, no invisible characters, no trailing blanks, at most one empty line in a row."""
    text = _SURROGATES.sub("\ufffd", text.replace("\r\n", "\n").replace("\r", "\n"))
    text = unicodedata.normalize("NFC", _INVISIBLE.sub("", text).replace("\u00a0", " "))
    return _BLANK_LINES.sub("\n\n", _TRAILING.sub("", text)).strip()


def fold(text: str) -> str:
    """Case and whitespace do not matter to whether two texts are the same."""
    return " ".join(text.casefold().split())


def words(text: str) -> list[str]:
    """Runs of letters and digits; a Chinese, Japanese or Korean character is a word of its own."""
    return _WORDS.findall(text)


@lru_cache(maxsize=1 << 16)
def _hash_word(word: str) -> int:
    return int.from_bytes(hashlib.blake2b(word.encode("utf-8", "replace"), digest_size=8).digest(), "little")


def ngrams(text: str, size: int) -> Hashes:
    """Distinct 64-bit hashes of the runs of `size` words, case folded; a shorter text is one run of all its words."""
    import numpy as np

    hashes = np.array([_hash_word(word) for word in words(text.casefold())], dtype=np.uint64)
    if hashes.size == 0:
        return hashes
    size = min(size, hashes.size)
    runs = np.lib.stride_tricks.sliding_window_view(hashes, size)
    factors = np.array([pow(_MULTIPLIER, power, 1 << 64) for power in range(size)], dtype=np.uint64)
    mixed = (runs * factors).sum(axis=1, dtype=np.uint64)  # modulo 2^64
    mixed ^= mixed >> np.uint64(29)
    return np.unique(mixed * np.uint64(_MULTIPLIER))
