"""Pools and records that tests of pools share, and how they say what is refused."""

import json
from contextlib import contextmanager
from dataclasses import replace

import pytest

from lalp.errors import InputError
from lalp.pools.pool import Message, Pool, Prompt, Response

GOOD = {"prompt_id": "p1", "prompt": "What is 2 + 2?", "teacher": "ada", "response": "It is 4."}


def jsonl(*records):
    return "".join(json.dumps(record) + "\n" for record in records).encode()


def write(path, content):
    path.write_bytes(content)
    return path


USER = {"role": "user", "content": "2 + 2?"}
REPLY = {"role": "assistant", "content": "4"}
CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello."},
    {"role": "user", "content": "Is 7 prime?"},
]


def two_prompt_pool():
    """Two prompts; the first a chat with an answer, the second plain; three teachers."""
    chat = tuple(Message(**message) for message in CHAT)
    prompts = {
        "a": Prompt("a", chat, "yes"),
        "b": Prompt("b", (Message("user", "Add ½ and ¼."),)),
    }
    responses = (
        Response("a1", "a", "ada", "Yes: no divisor below √7.", True, {"level": 3}),
        Response("a2", "a", "bob", "Yes.", False),
        Response("a3", "a", "bob", "Yes.", True),
        Response("b1", "b", "cyd", "¾\n\nDone.", None, {"tags": ["x", 1, None]}),
    )
    return Pool(prompts, responses)


def read_lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def exact(pool):
    """A pool as text that tells 1 from True and from 1.0."""
    extras = json.dumps([response.extra for response in pool.responses], sort_keys=True)
    responses = [replace(response, extra={}) for response in pool.responses]
    return repr((sorted(pool.prompts.items()), responses, extras))


@contextmanager
def refused(*fragments):
    """What runs within is refused, in one short line that any terminal can show."""
    with pytest.raises(InputError) as error:
        yield
    message = str(error.value)
    for fragment in fragments:
        assert fragment in message
    assert message.isprintable()
    assert len(message) < 400
