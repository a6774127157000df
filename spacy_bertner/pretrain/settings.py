"""How to pre-train."""

from dataclasses import dataclass

MASKS = ("piece", "word")


@dataclass(frozen=True)
class Settings:
    """How to pre-train.

    mask: "piece" or "word", whether single pieces are masked or whole words.
    window: the number of pieces in a block, special ones included.
    held_out: the share of blocks to compute the perplexity on, or a file or folder of other text.
    epochs: passes over the text; max_steps: optimizer steps, instead of epochs; 0 for none.
    batch_size: blocks in a step, on each GPU. learn_rate: its peak, after a warm-up and before a linear decrease.
    mixed_precision: "bf16" or "fp16"; None for float32. lang: whose tokenizer makes the words of texts.
    report_to: where transformers logs to: "none", "tensorboard", "wandb" or another.

    Raises ValueError for values outside their range.
    """

    mask: str = "piece"
    window: int = 256
    held_out: float | str = 0.05
    epochs: int = 3
    max_steps: int = 0
    batch_size: int = 16
    learn_rate: float = 5e-5
    mixed_precision: str | None = None
    seed: int = 0
    lang: str = "en"
    report_to: str = "none"

    def __post_init__(self) -> None:
        for name, allowed in (("mask", MASKS), ("mixed_precision", (None, "bf16", "fp16"))):
            if getattr(self, name) not in allowed:
                names = " and ".join(filter(None, allowed))
                raise ValueError(f"--{name.replace('_', '-')}: {getattr(self, name)!r} is unknown; allowed are {names}")
        for name, least in (("window", 8), ("epochs", 1), ("max_steps", 0), ("batch_size", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"--{name.replace('_', '-')}: {getattr(self, name)} is less than {least}")
        if not 0 < self.learn_rate < 1:
            raise ValueError(f"--learn-rate: {self.learn_rate} is not between 0 and 1")
        if not isinstance(self.held_out, str) and not 0 < self.held_out < 1:
            raise ValueError(f"--held-out: {self.held_out} is neither between 0 and 1 nor a file")
