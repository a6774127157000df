# ruff: noqa: RUF001 (quotes and full-width punctuation are what this is about)
"""Natural spacing by rules, for files that do not say where the spaces are.

The rules undo tokenisation as in the Penn Treebank: closing punctuation and clitics attach to the left, opening
punctuation to the right, quotes alternate.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_LEFT = re.compile(  # no space before
    r"""[,.;:!?%…»”’)\]}،؛؟٪۔।॥։።፣។၊။]+|\.\.+|''|-RRB-|-RSB-|-RCB-
    |n['’]t|['’](s|m|d|re|ve|ll|em|S|M|D|RE|VE|LL)|N['’]T""",
    re.VERBOSE,
)
_RIGHT = re.compile(r"[(\[{«“‘„¿¡]+|``|-LRB-|-LSB-|-LCB-|[#$£€¥]|US\$|C\$|A\$")
_QUOTES = ('"', "'")
_APOSTROPHE_RIGHT = re.compile(r"([ldjmtscnLDJMTSCN]|qu|Qu|QU|dell|all|nell|sull|un|Un)['’]")
# Ideographs with their iteration mark and zero, kana (half-width too), and the supplementary planes
_CJK = re.compile(
    "[\u3005-\u3007\u3021-\u3029\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f"
    "\U00020000-\U0003ffff]"
)
# Full-width punctuation holds its own space, on both sides
_FULL_WIDTH = re.compile("[\u3001-\u3004\u3008-\u301f\u30fb\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65]")


def guess_spaces(words: Sequence[str]) -> list[bool]:
    """Guess which words of a sentence are followed by a space in running text.

    Returns one value per word; the last one is True, since another sentence follows.
    """
    spaces = [True] * len(words)
    is_open = dict.fromkeys(_QUOTES, False)
    for i, word in enumerate(words):
        before = after = True
        if word in is_open:
            # A lone apostrophe after an s closes nothing: `the teachers ' room`
            is_possessive = word == "'" and not is_open[word] and i > 0 and words[i - 1][-1:] == "s"
            if is_open[word] or is_possessive:
                before = False
            else:
                after = False
            if not is_possessive:
                is_open[word] = not is_open[word]
        elif _LEFT.fullmatch(word):
            before = False
        elif _RIGHT.fullmatch(word) or _APOSTROPHE_RIGHT.fullmatch(word):
            after = False
        if i and not before:
            spaces[i - 1] = False
        if i + 1 < len(words) and (not after or _is_unspaced(word[-1], words[i + 1][:1])):
            spaces[i] = False
    return spaces


def _is_unspaced(left: str, right: str) -> bool:
    """Say whether no space stands between two characters because of their script: Chinese, Japanese, and digits in them."""
    if _FULL_WIDTH.match(left) or _FULL_WIDTH.match(right):
        return True
    is_left, is_right = _CJK.match(left) is not None, _CJK.match(right) is not None
    return (is_left and (is_right or right.isdecimal())) or (is_right and left.isdecimal())
