"""Cut a pool into parts by a hash of the prompt's id, for machines that share the work."""

from __future__ import annotations

import re
from array import array
from dataclasses import dataclass
from hashlib import sha256

from lalp.errors import InputError
from lalp.pools.pool import Pool
from lalp.pools.spool import SpooledPrompts, SpooledResponses, is_spooled, response_facts


@dataclass(frozen=True)
class Part:
    """The ``number``-th of ``total`` parts, counted from 1."""

    number: int
    total: int

    def __str__(self) -> str:
        return f"{self.number}/{self.total}"

    def holds(self, prompt_id: str) -> bool:
        """Whether a prompt is in this part; in any pool, each prompt is in exactly one part.

        Example:
            >>> [part for part in (1, 2, 3) if Part(part, 3).holds("p1")]
            [1]
        """
        found = sha256(prompt_id.encode("utf-8", "surrogatepass")).digest()
        return int.from_bytes(found[:8], "big") % self.total == self.number - 1


def parse_part(text: str) -> Part:
    """Read a part such as ``3/8``.

    Raises:
        InputError: If the text is not a part.

    Example:
        >>> parse_part("3/8")
        Part(number=3, total=8)
    """
    found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
    part = Part(int(found[1]), int(found[2])) if found else None
    if part is None or not 1 <= part.number <= part.total:
        raise InputError(f"--shard {text}: give a part of all, from 1/8 to 8/8")
    return part


def pool_part(pool: Pool, part: Part) -> tuple[Pool, array]:
    """A part's prompts with their responses, and the rows of these responses in the pool."""
    known = response_facts(pool.responses)
    places = array("q", (place for place, facts in enumerate(known) if part.holds(facts[1])))
    responses = (pool.responses[place] for place in places)
    prompts = (pool.prompts[name] for name in pool.prompts if part.holds(name))
    if is_spooled(pool.responses):
        own = Pool(SpooledPrompts(prompts), SpooledResponses(responses), pool.left_out)
    else:
        by_id = {prompt.prompt_id: prompt for prompt in prompts}
        own = Pool(by_id, tuple(responses), pool.left_out)
    return own, places
