"""A pool that is larger than the memory: its texts are in a temporary file.

Ids and places stay in memory, a few hundred bytes per response. Texts are read from the file on
request, so a loop over a pool holds one response at a time.
"""

from __future__ import annotations

import pickle
import tempfile
from array import array
from collections.abc import Callable, Iterable, Iterator, MutableMapping, Sequence
from operator import index
from typing import Any, overload

from lalp.errors import InputError
from lalp.pools.pool import Prompt, Response

Facts = tuple[str, str, str, bool | None]
LIMIT = 1 << 26  # bytes of a pool that are held in memory


class _File:
    """Values one after another in a temporary file that has no name and ends with the process."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115
        self._end = 0

    def add(self, value: Any) -> int:
        """Write a value; returns its place."""
        # Nobody else can write this file, so its content was written here.
        raw = pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
        place = self._end
        try:
            self._file.seek(place)
            self._file.write(raw)
        except OSError as error:
            full = f"the pool does not fit {tempfile.gettempdir()}: {error.strerror}"
            raise InputError(f"{full}; set TMPDIR to a folder with more room") from error
        self._end += len(raw)
        return place

    def read(self, place: int) -> Any:
        """The value at that place."""
        self._file.seek(place)
        return pickle.load(self._file)


class SpooledResponses(Sequence[Response]):
    """Responses with ids, teachers and verdicts in memory, but not texts and fields."""

    def __init__(self, responses: Iterable[Response] = ()) -> None:
        self._file, self._places = _File(), array("Q")
        self._known: list[Facts] = []
        self._names: dict[str, str] = {}
        for response in responses:
            self.append(response)

    def append(self, response: Response) -> None:
        """Add a response at the end."""
        own = (response.response_id, response.prompt_id, response.teacher)
        # Equal names are one text in memory.
        self._known.append((*(self._names.setdefault(n, n) for n in own), response.correct))
        parts = (response.text, response.extra, response.turns, response.given)
        self._places.append(self._file.add(parts))

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, place: int) -> Response: ...
    @overload
    def __getitem__(self, place: slice) -> list[Response]: ...
    def __getitem__(self, place: int | slice) -> Response | list[Response]:
        if isinstance(place, slice):
            return [self[i] for i in range(*place.indices(len(self)))]
        response_id, prompt_id, teacher, correct = self._known[index(place)]
        text, *rest = self._file.read(self._places[place])
        return Response(response_id, prompt_id, teacher, text, correct, *rest)

    def facts(self) -> Iterator[Facts]:
        """The values of `response_facts`; no text is read."""
        return iter(self._known)


class SpooledPrompts(MutableMapping[str, Prompt]):
    """Prompts by id; only the ids are in memory."""

    def __init__(self, prompts: Iterable[Prompt] = ()) -> None:
        self._file, self._places = _File(), dict[str, int]()
        for prompt in prompts:
            self[prompt.prompt_id] = prompt

    def __setitem__(self, prompt_id: str, prompt: Prompt) -> None:
        self._places[prompt_id] = self._file.add(prompt)

    def __getitem__(self, prompt_id: str) -> Prompt:
        return self._file.read(self._places[prompt_id])

    def __contains__(self, prompt_id: object) -> bool:
        return prompt_id in self._places

    def __delitem__(self, prompt_id: str) -> None:
        del self._places[prompt_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


class ChangedResponses(Sequence[Response]):
    """Responses as changed by a function, each on request."""

    def __init__(self, responses: SpooledResponses, change: Callable[[Response], Response]) -> None:
        self._responses, self._change = responses, change

    def __len__(self) -> int:
        return len(self._responses)

    def __getitem__(self, place: Any) -> Any:
        found = self._responses[place]
        return [*map(self._change, found)] if isinstance(place, slice) else self._change(found)

    def facts(self) -> Iterator[Facts]:
        """As of `SpooledResponses`."""
        return self._responses.facts()


def is_spooled(responses: Sequence[Response]) -> bool:
    """Whether the texts are in a file."""
    return isinstance(responses, SpooledResponses | ChangedResponses)


def response_facts(responses: Sequence[Response]) -> Iterator[Facts]:
    """Each response's id, prompt id, teacher and verdict, in order; no spooled text is read."""
    if is_spooled(responses):
        return responses.facts()
    return ((r.response_id, r.prompt_id, r.teacher, r.correct) for r in responses)


def change_responses(
    responses: Sequence[Response], change: Callable[[Response], Response]
) -> Sequence[Response]:
    """Responses as changed by a function: at once, or on request if they are spooled."""
    if is_spooled(responses):
        return ChangedResponses(responses, change)
    return tuple(map(change, responses))
