# ruff: noqa: RUF001 (full-width and Arabic punctuation are what this is about)
"""Spacing by rules: written out as people write it."""

import pytest

from spacy_bertner.formats.detokenize import guess_spaces

# Tokens, separated by blanks, and the text
TEXTS = {
    "Chinese": ("二 〇 二四年 ， 王伟 在 北京 。", "二〇二四年，王伟在北京。"),
    "Chinese, digits": ("会议 于 2024 年 12 月 召开", "会议于2024年12月召开"),
    "Chinese, quotes": ("他 说 ： “ 好 ” ！", "他说：“好”！"),
    "Japanese": ("佐 々 木 は 東京 へ 行っ た 。 雨 だ", "佐々木は東京へ行った。雨だ"),
    "Japanese, a token with its stop": ("東京へ。 雨 だ", "東京へ。雨だ"),
    "supplementary planes": ("𠮷 野 家 の 𩸽 定食", "𠮷野家の𩸽定食"),
    "half-width katakana": ("ﾄﾖﾀ ｡ ｶﾌﾞｼｷ ｶﾞｲｼｬ", "ﾄﾖﾀ｡ｶﾌﾞｼｷｶﾞｲｼｬ"),
    "Chinese and Latin": ("我 用 Python 写 的", "我用 Python 写的"),
    "Korean keeps its spaces": ("서울 은 크다", "서울 은 크다"),
    "Arabic": ("هل زرت القاهرة ، يا ليلى ؟", "هل زرت القاهرة، يا ليلى؟"),
    "Arabic, semicolon": ("جاء ؛ ثم ذهب", "جاء؛ ثم ذهب"),
    "Urdu": ("وہ لاہور گیا ۔", "وہ لاہور گیا۔"),
    "Hindi": ("राम दिल्ली गया । सीता भी ॥", "राम दिल्ली गया। सीता भी॥"),
    "Armenian": ("Նա եկավ ։", "Նա եկավ։"),
    "English": ('She said : " I do n\'t , ( really ) ! "', 'She said: "I don\'t, (really)!"'),
}


@pytest.mark.parametrize("case", TEXTS)
def test_spacing(case):
    tokens, text = TEXTS[case]
    words = tokens.split(" ")
    spaced = (word + " " * space for word, space in zip(words, guess_spaces(words), strict=True))
    assert "".join(spaced).rstrip(" ") == text
