"""What a kind of memory allows: which part of what is held can serve another prompt."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec import Struct

from engine.lora import LoraSet
from engine.prefix_index import Held
from engine.radix_cache import common_prefix

WORTH_COPYING = 32
"""Tokens below which computing again is no dearer than a copy, its memory and the handling."""


class Prefill(Struct, frozen=True):
    """A prompt of which the first `n_computed` tokens are computed."""

    prompt: list[int]
    n_computed: int
    lora: LoraSet = ()
    checkpoints: Sequence[int] = ()
    """Lengths at which a copy will be made of memory that cannot be trimmed."""


class PrefixRules(Struct, frozen=True):
    """Of one model. A `floor` is the length below which something held cannot be trimmed."""

    can_trim: bool
    window: int
    """Of more tokens than this a copy keeps just the window in some layers: it is of use only as a
    whole, and a slot restored from it only from there on. 0: there is none."""
    min_computed: int
    """Tokens of every prompt that are computed: one for its logits, more where short runs take
    another path through the arithmetic."""
    align: int
    """Prefixes are multiples of this, where kernels work on groups of rows."""

    def reusable(self, prompt: list[int], lora: LoraSet) -> Held:
        """What of a prompt may come from elsewhere."""
        return Held(prompt[: max(0, len(prompt) - self.min_computed)], lora)

    def usable(self, held: Held, wanted: Held, floor: int) -> int:
        """Tokens of `wanted` that `held` gives when it is trimmed; memory that cannot be trimmed
        must fit whole."""
        if held.lora != wanted.lora:
            return 0
        shared = common_prefix(held.tokens, wanted.tokens)
        if not self.can_trim:
            return shared if shared == len(held.tokens) else 0
        length = shared - shared % self.align
        return length if length >= floor else 0

    def holds(self, held: Held, wanted: Held, floor: int) -> bool:
        """Whether `held` is `wanted`, or begins with it and can be trimmed to it."""
        length = len(wanted.tokens)
        fits = floor <= length if self.can_trim else len(held.tokens) == length
        return fits and held.lora == wanted.lora and held.tokens[:length] == wanted.tokens

    def floor_of(self, n_copied: int) -> int:
        """The floor of a copy of so many tokens, and of a slot that it was restored to."""
        return n_copied if n_copied > self.window > 0 else 0

    def coming(self, prefill: Prefill, wanted: Held) -> int:
        """Tokens of `wanted` that a prefill will have but has not yet."""
        shared = common_prefix(prefill.prompt, wanted.tokens)
        if not self.can_trim:
            shared = max((n for n in prefill.checkpoints if n <= shared), default=0)
        return shared if shared > prefill.n_computed else 0

    def checkpoints(self, prompt: list[int], boundaries: Iterable[int]) -> list[int]:
        """Where computing `prompt` should pause for a copy, shortest first: memory that cannot
        be trimmed can only be taken up again where it was copied."""
        if self.can_trim:
            return []
        most = max(0, len(prompt) - self.min_computed)
        lengths = {min(n, most) // self.align * self.align for n in (*boundaries, most)}
        return sorted(n for n in lengths if n >= WORTH_COPYING)

    def ends(self, held: Held, floor: int) -> list[int]:
        """Lengths at which copies that are of use as a whole only should end, longest first: where
        prefixes are cut, for the next turn, for the same prompt again, and for another turn after
        the same messages."""
        n_held = len(held.tokens)
        wanted = (n_held, held.n_prompt - self.min_computed, *held.checkpoints)
        ends = {n - n % self.align for n in wanted if 0 < n <= n_held}
        return sorted((n for n in ends if n >= floor), reverse=True)
