"""The bar: how much of the input is through, words a second, and the time left."""

from __future__ import annotations

import time

from tqdm import tqdm  # type: ignore[import-untyped]


class Progress:
    """A bar on standard error, over the bytes of the input.

    total: bytes of the whole input, None where it is not known (standard input). disable: None for off where standard
    error is no terminal.
    """

    def __init__(self, total: int | None, disable: bool | None = None) -> None:
        share = "{n_fmt}" if total is None else "{percentage:3.0f}%|{bar}|"
        left = "" if total is None else "<{remaining}"
        shape = f"{share} {{desc}} [{{elapsed}}{left}]"
        self.bar = tqdm(total=total, bar_format=shape, unit_scale=True, disable=disable, leave=False)
        self.n_words = 0
        self.start = time.monotonic()

    def skip(self, at: int) -> None:
        """Begin after what is there already; the time left is counted from here on."""
        self.bar.initial = self.bar.n = at
        self.bar.refresh()

    def update(self, at: int, n_words: int) -> None:
        """So many bytes of the input are through; so many words more have been annotated."""
        self.n_words += n_words
        self.bar.set_description_str(f"{self.words_per_second:,.0f} words/s", refresh=False)
        self.bar.update(at - self.bar.n)

    @property
    def words_per_second(self) -> float:
        """Words a second since the start."""
        return self.n_words / max(time.monotonic() - self.start, 1e-9)

    def close(self) -> None:
        """Take the bar away."""
        self.bar.close()
