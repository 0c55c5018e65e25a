"""Steps by a language model: bad answers, bad servers, and what is kept of a killed run."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import re
import socket
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from lalp.cli import app
from lalp.errors import InputError
from lalp.pools.pool import Message, Pool, Prompt, Response
from lalp.pools.reading import load_pool
from lalp.pools.writing import save_pool
from lalp.steps import llm
from lalp.steps.alignment import split_by_answer
from lalp.steps.llm import load_instruction, split_with_llm
from lalp.steps.sentences import cut_at, split_sentences
from lalp.steps.splitters import load_steps

HERE = Path(__file__).parent


def recorded(name: str) -> str:
    return (HERE / "data" / f"{name}.txt").read_text(encoding="utf-8")


SOLUTION = recorded("solution")
SENTENCES = split_sentences(SOLUTION)
OPENINGS = ("Let $x$ be", "**Step 2.**", "Multiplying by", "We check:")
FOUR_STEPS = cut_at(SOLUTION, map(SOLUTION.index, OPENINGS))
EXAMPLES = yaml.safe_load((HERE / "alignment.yaml").read_text(encoding="utf-8"))
REPLIES = yaml.safe_load((HERE / "server.yaml").read_text(encoding="utf-8"))


def pieces(text: str, spans: list[tuple[int, int]]) -> list[str]:
    return [text[start:end] for start, end in spans]


def is_partition(text: str, spans: list[tuple[int, int]]) -> bool:
    return "".join(pieces(text, spans)) == text and all(start < end for start, end in spans)


GOOD = [
    *("valid", "sentence_groups", "objects", "latex_unescaped", "prose_around", "broken_json"),
    *("group_named_twice", "reworded", "skipped"),
]
BAD = {
    "wrong_order": "too little of the text is found in the answer (34% of the words)",
    "summary": "too little of the text is found in the answer (0% of the words)",
    "numbers": "too little of the text is found in the answer (0% of the words)",
    "refusal": "the answer holds no steps",
    "empty": "the answer is empty",
}


@pytest.mark.parametrize("name", GOOD)
def test_good_answers_give_the_four_steps_of_the_original_text(name):
    assert split_by_answer(SOLUTION, recorded(name)) == (FOUR_STEPS, None)


@pytest.mark.parametrize("name", BAD)
def test_bad_answers_give_sentences_and_the_reason(name):
    assert split_by_answer(SOLUTION, recorded(name)) == (SENTENCES, BAD[name])


def test_a_cut_off_answer_counts_if_it_holds_enough_of_the_text():
    why = "the answer was cut off at the length limit (49% of the words)"
    assert split_by_answer(SOLUTION, recorded("cut_off"), cut_off=True) == (SENTENCES, why)
    enough = recorded("valid").partition("18}$ red")[0]
    assert split_by_answer(SOLUTION, enough, cut_off=True) == (FOUR_STEPS, None)


ANSWERS = [
    *((json.dumps({"steps": told}), steps) for told, steps in EXAMPLES["beginnings"]),
    *EXAMPLES["forms"],
]


@pytest.mark.parametrize(("answer", "steps"), ANSWERS)
def test_where_steps_begin(answer, steps):
    text = "".join(steps)
    spans, why = split_by_answer(text, answer)
    assert (pieces(text, spans), why) == (steps, None)


PARTS = EXAMPLES["sentences"]


@settings(max_examples=200, deadline=None)
@given(
    firsts=st.sets(st.integers(1, len(PARTS) - 1)),
    escaped=st.booleans(),
    gaps=st.lists(st.sampled_from([" ", "\n", "\n\n"]), min_size=len(PARTS)),
    skipped=st.sampled_from([None, *range(len(PARTS))]),
)
def test_the_groups_that_an_answer_was_made_from_are_found_again(firsts, escaped, gaps, skipped):
    text = "".join(s + gap for s, gap in zip(PARTS, gaps, strict=False))
    groups = list(itertools.pairwise([0, *sorted(firsts), len(PARTS)]))
    told = [" ".join(PARTS[k] for k in range(a, b) if k != skipped) for a, b in groups]
    answer = json.dumps({"steps": told}, ensure_ascii=False)
    if not escaped:
        answer = answer.replace("\\\\", "\\")
    spans, why = split_by_answer(text, answer)
    assert why is None
    assert is_partition(text, spans)
    # A step whose first sentence is left out begins with its next, or not at all.
    starts = [next((k for k in range(a, b) if k != skipped), None) for a, b in groups]
    places = [text.index(PARTS[k]) for k in starts if k is not None]
    assert [start for start, _ in spans[1:]] == places[1:]


# The same few words in any order, which match each other in many ways.
few_words = st.lists(st.sampled_from(["so", "x", "is", "4", ".", "\n\n", "we", "get", "$", "not"]))


@settings(max_examples=400, deadline=None)
@given(
    text=st.text(st.sampled_from("ab 12.\n\\[]{}$\"'。、x=\u2028\t"), max_size=60)
    | few_words.map(" ".join)
    | st.text(),
    answer=st.text(st.sampled_from('ab 12.\n\\[]{}",:`$。'), max_size=80)
    | st.lists(few_words.map(" ".join)).map(json.dumps)
    | st.text(),
    cut_off=st.booleans(),
)
def test_the_result_partitions_the_text_whatever_the_answer(text, answer, cut_off):
    spans, why = split_by_answer(text, answer, cut_off)
    assert is_partition(text, spans)
    assert why is None or spans == split_sentences(text)


HOSTILE = ["[", "{", '{"a":', '"', '["', '["a "', "\\", '["\\', "`", "```\n"]
CIRCLES = "Wait, no. Let me see. "


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        *((SOLUTION, start * 20_000) for start in HOSTILE),
        *((SOLUTION, '{"steps": ["a", ' + start * 20_000) for start in HOSTILE),
        (CIRCLES * 3000, json.dumps([CIRCLES * 2000])),
        (CIRCLES * 3000, json.dumps(["Let me see, no. Wait! " * 3000])),
    ],
    ids=itertools.count(),
)
def test_hostile_answers_and_texts_that_go_in_circles_take_no_time(text, answer):
    begin = time.perf_counter()
    assert is_partition(text, split_by_answer(text, answer)[0])
    assert time.perf_counter() - begin < 5


def test_a_long_reworded_text_is_aligned_in_time_and_in_place():
    generator = random.Random(3)
    vocabulary = [f"word{chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(400)]
    vocabulary += ["x", "=", "2", "the"] * 100
    told = [" ".join(generator.choices(vocabulary, k=60)).capitalize() + "." for _ in range(250)]
    text = "\n\n".join(told)
    reworded = [re.sub(r"\bworda[a-e]\b", "other", piece) for piece in told]
    begin = time.perf_counter()
    spans, why = split_by_answer(text, json.dumps({"steps": reworded}))
    assert time.perf_counter() - begin < 10
    assert why is None
    assert [piece.strip() for piece in pieces(text, spans)] == told


def body_of(reply: dict) -> bytes:
    """A reply's own body, or a chat completion that holds its recorded answer."""
    body = reply.get("body")
    if name := reply.get("answer"):
        message = {"role": "assistant", "content": recorded(name)}
        if (field := reply.get("field")) == "parts":
            message["content"] = [{"type": "text", "text": part} for part in (recorded(name), "\n")]
        elif field:
            message |= {"content": None, field: recorded(name)}
        ending = "length" if name == "cut_off" else "stop"
        choice = {"index": 0, "message": message, "finish_reason": ending}
        head = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "tiny"}
        body = head | {"choices": [choice]}
    data = body.encode("latin-1") if isinstance(body, str) else json.dumps(body).encode()
    return data * reply.get("times", 1)


@pytest.fixture
def server(monkeypatch) -> Iterator[SimpleNamespace]:
    """A local server of the chat-completions protocol; the case stands in the problem's text.

    It keeps what it was asked, and how many requests were under way at most.
    """
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    state = SimpleNamespace(asked=[], bodies=[], headers=[], under_way=0, most=0)
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            case = re.search(r"case (\w+)", body["messages"][0]["content"])[1]
            replies = REPLIES.get(case, [{"answer": case}])
            with lock:
                reply = replies[min(state.asked.count(case), len(replies) - 1)]
                state.asked.append(case)
                state.bodies.append(body | {"path": self.path})
                state.headers.append(self.headers)
                state.under_way += 1
                state.most = max(state.most, state.under_way)
            time.sleep(reply.get("seconds", 0))
            with lock:
                state.under_way -= 1
            status, data = reply.get("status", 200), body_of(reply)
            if status == 0:
                self.close_connection = True
                return
            if reply.get("reset"):  # closed without the wait that sends all: the peer gets a RST
                linger = struct.pack("ii", 1, 0)
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                os.close(self.connection.detach())
                self.close_connection = True
                return
            self.send_response(status)
            headers = {"Content-Type": "application/json", "Content-Length": len(data)}
            if "retry_date" in reply:
                headers["Retry-After"] = formatdate(time.time() + reply["retry_date"], usegmt=True)
            for name, value in (headers | reply.get("headers", {})).items():
                self.send_header(name, str(value))
            self.end_headers()
            for part in [data] if "pause" not in reply else map(bytes, zip(data, strict=True)):
                self.wfile.write(part)
                time.sleep(reply.get("pause", 0))
            self.close_connection = True

        def log_message(self, *args):
            pass

        def handle(self):
            with contextlib.suppress(OSError):  # the client went away
                super().handle()

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        httpd.daemon_threads = True
        state.url = f"http://127.0.0.1:{httpd.server_port}/v1"
        thread = threading.Thread(target=httpd.serve_forever, args=(0.02,))
        thread.start()
        yield state
        httpd.shutdown()
        thread.join()


def pool_of(*cases: str) -> Pool:
    prompts = {case: Prompt(case, (Message("user", f"case {case}"),)) for case in cases}
    responses = (Response(f"{case}/r", case, "Ada", SOLUTION) for case in cases)
    return Pool(prompts, tuple(responses))


@pytest.fixture
def ask(server, tmp_path, monkeypatch):
    """Split a pool, or one of these cases, by the server's answers."""
    monkeypatch.setenv("LALP_CACHE", str(tmp_path))

    def run(*cases: str, pool: Pool | None = None, model: str = "tiny", **options: object):
        options = {"timeout": 20.0} | options
        return split_with_llm(pool or pool_of(*cases), server.url, model, **options)

    return run


def test_every_recorded_answer_over_http(ask, server):
    result = ask(*GOOD, *BAD, "cut_off")
    assert sorted(server.asked) == sorted([*GOOD, *BAD, "cut_off"])
    for case in server.asked:
        spans, why = split_by_answer(SOLUTION, recorded(case), case == "cut_off")
        assert result.steps[f"{case}/r"] == spans
        assert result.fallbacks.get(f"{case}/r") == why


def test_what_is_sent(ask, server, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "must-not-leave")
    monkeypatch.setenv("LALP_LLM_API_KEY", "secret")
    ask("valid")
    (message,) = server.bodies[0].pop("messages")
    assert server.bodies == [{"path": "/v1/chat/completions", "model": "tiny", "temperature": 0}]
    assert message["role"] == "user"
    assert message["content"].startswith("Below are a problem and a solution")
    assert f"Problem:\ncase valid\n\nSolution:\n{SOLUTION}" in message["content"]
    assert server.headers[0]["authorization"] == "Bearer secret"
    monkeypatch.delenv("LALP_LLM_API_KEY")
    ask("reworded")
    assert "must-not-leave" not in str(server.headers[1])


def test_passing_failures_are_tried_again(ask, server):
    cases = ("http_429_then_200", "http_503_then_200", "http_429_alone", "http_429_with_nonsense")
    cases += ("http_429_with_a_date", "reset_then_200")
    result = ask(*cases)
    assert result.fallbacks == {}
    assert all(steps == FOUR_STEPS for steps in result.steps.values())
    assert sorted(server.asked) == sorted(2 * cases)


LIES = {
    "the connection broke off": ("reset", "longer_than_sent", "not_gzip", "flood"),
    "no answer within the time limit": ("drip",),
    "the server answered with HTTP 429": ("http_429_for_an_hour",),
    "the answer was cut off at the length limit within its thought": ("thought_cut_off",),
    "the answer is empty": ("content_is_a_number", "content_is_an_object"),
    "the server's answer is no chat completion": (
        *("html_as_json", "html_error", "invalid_utf8", "deep_body", "error_in_200"),
        *("choices_are_an_object", "choice_is_null", "message_is_a_text"),
    ),
}


def test_a_server_that_lies_gets_sentences_and_a_reason_and_is_asked_again(
    ask, server, monkeypatch
):
    monkeypatch.setattr(llm, "_MAX_BYTES", 100_000)
    told = {f"{case}/r": why for why, cases in LIES.items() for case in cases}
    cases = [name.partition("/")[0] for name in told]
    begin = time.perf_counter()
    result = ask("valid", *cases, timeout=3, max_retries=0, concurrency=32)
    assert time.perf_counter() - begin < 5
    assert result.fallbacks == told
    assert all(result.steps[name] == SENTENCES for name in told)
    assert result.steps["valid/r"] == FOUR_STEPS
    # Only what is missing is asked again.
    server.asked.clear()
    assert ask("valid", *cases, timeout=3, max_retries=0, concurrency=32) == result
    assert sorted(server.asked) == sorted(cases)


def test_answers_in_other_places_of_the_reply_are_found_and_kept(ask, server):
    cases = ("in_reasoning_content", "in_reasoning", "in_parts")
    result = ask(*cases)
    assert result.fallbacks == {}
    assert all(steps == FOUR_STEPS for steps in result.steps.values())
    assert ask(*cases) == result
    assert len(server.asked) == len(cases)


@pytest.mark.parametrize("url", ["", "localhost", "http://[::1", "ftp://a.b", "http://a b/v1"])
def test_a_url_that_is_none_is_one_clear_error(ask, server, url):
    server.url = url
    with pytest.raises(InputError) as caught:
        ask("valid", max_retries=0)
    assert "\n" not in str(caught.value)


def test_a_key_that_no_header_can_hold_is_refused(ask, server, monkeypatch):
    monkeypatch.setenv("LALP_LLM_API_KEY", "k\u00e9y")
    with pytest.raises(InputError, match="LALP_LLM_API_KEY"):
        ask("valid")
    assert server.asked == []


@pytest.mark.parametrize("start", ["", "Let me see.", "<think>Let me see."])
def test_tags_of_a_reasoning_trace_are_data(start):
    trace = f"<think>\n{SOLUTION}\n</think>\n\nSo the basket holds 20 apples."
    spans = cut_at(trace, [0, *(trace.index(opening) for opening in OPENINGS[1:])])
    told = json.dumps({"steps": pieces(trace, spans)})
    own = f"{start} It has <think> and </think> in it.</think>" if start else ""
    assert split_by_answer(trace, own + told) == (spans, None)
    drafted = f"{own or 'Hm.'} {told}</think>I cannot."
    assert split_by_answer(trace, drafted)[1] == "the answer holds no steps"


@pytest.mark.parametrize(
    ("case", "why", "tries"),
    [
        ("http_500", "the server answered with HTTP 500", 2),
        ("http_400", "the server answered with HTTP 400", 1),
        ("no_reply", "the connection broke off", 2),
        ("slow", "no answer within the time limit", 2),
        *(
            (f"body_{body}", "the server's answer is no chat completion", 1)
            for body in ("no_json", "broken_json", "other_json", "no_choices", "list")
        ),
        ("body_null_content", "the answer is empty", 1),
    ],
)
def test_lasting_failures_give_sentences_and_are_asked_again_next_time(
    ask, server, case, why, tries
):
    result = ask("valid", case, timeout=0.7, max_retries=1)
    assert result.fallbacks == {f"{case}/r": why}
    assert result.steps[f"{case}/r"] == SENTENCES
    assert Counter(server.asked) == {"valid": 1, case: tries}
    ask("valid", case, timeout=0.7, max_retries=0)
    assert Counter(server.asked) == {"valid": 1, case: tries + 1}


def test_a_server_that_never_succeeds_is_an_error(ask):
    with pytest.raises(InputError, match=r"no response got an answer, 2 of 3 because: .* HTTP 500"):
        ask("http_500", "http_400", "http_500_too", max_retries=0)


@pytest.mark.parametrize("case", ["http_401", "http_404"])
def test_a_wrong_key_or_model_stops_the_run_at_once(ask, server, case):
    begin = time.perf_counter()
    with pytest.raises(InputError, match=r"refuses the request .*LALP_LLM_API_KEY") as caught:
        ask("slow", case, timeout=60, max_retries=3)
    assert time.perf_counter() - begin < 1.4
    assert "\n" not in str(caught.value)
    assert server.asked.count(case) == 1


def test_a_run_that_stops_keeps_each_answer_as_soon_as_it_is_there(ask, server):
    with pytest.raises(InputError, match="refuses"):
        ask("valid", "reworded", "http_401", concurrency=1)
    ask("valid", "reworded")
    assert server.asked == ["valid", "reworded", "http_401"]


def test_no_server_stops_the_run(ask, server):
    server.url = "http://127.0.0.1:9/v1"
    with pytest.raises(InputError, match=r"cannot be reached .*start the server") as caught:
        ask("valid", max_retries=0)
    assert "\n" not in str(caught.value)


def test_blank_and_equal_responses_are_not_sent(ask, server):
    pool = pool_of("valid")
    blank, twin = (Response(i, "valid", "Bob", t) for i, t in (("b", " \n"), ("twin", SOLUTION)))
    result = ask(pool=Pool(pool.prompts, (*pool.responses, blank, twin)))
    assert result.steps["b"] == [(0, 2)]
    assert result.fallbacks == {"b": "the response is blank"}
    assert result.steps["twin"] == result.steps["valid/r"]
    assert server.asked == ["valid"]


def test_answers_are_kept_and_asked_once(ask, server, tmp_path):
    cases = ("valid", "reworded", "refusal")
    first = ask(*cases)
    assert ask(*cases) == first
    assert sorted(server.asked) == sorted(cases)
    # Another instruction or model is another question.
    other = "Please divide.\n{problem}\n{solution}"
    for options in ({"instruction": other}, {"model": "small"}) * 2:
        ask("valid", **options)
    assert len(server.asked) == 5
    assert server.bodies[3]["messages"][0]["content"] == f"Please divide.\ncase valid\n{SOLUTION}"
    files = sorted((tmp_path / "llm_steps").iterdir())
    assert len(files) == 5
    for path in files:  # a damaged answer is asked again
        path.write_text(path.read_text()[:40])
    assert ask(*cases) == first
    assert len(server.asked) == 8


def test_requests_run_side_by_side_but_no_more_than_asked_for(ask, server, monkeypatch):
    slow = {f"c{i}": [{"answer": "valid", "seconds": 0.1}] for i in range(8)}
    monkeypatch.setitem(globals(), "REPLIES", slow)
    ask(*slow, concurrency=4)
    assert server.most == 4
    assert len(server.asked) == 8


def test_the_command_says_how_often_and_why_sentences_had_to_do(
    server, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("LALP_CACHE", str(tmp_path / "build"))
    pool, out, instruction = (tmp_path / name for name in ("pool.jsonl", "steps.jsonl", "i.txt"))
    save_pool(pool_of("valid", "summary", "wrong_order", "empty"), pool)
    instruction.write_text("Cut this! {problem} {solution}")
    options = f"--llm-url {server.url} --llm-model tiny --llm-instruction {instruction} --out {out}"
    command = f"lalp segment {pool} --splitter llm {options}"
    monkeypatch.setattr(sys, "argv", command.split())
    with pytest.raises(SystemExit) as stop:
        app.main()
    assert not stop.value.code
    messages = [m for m in capsys.readouterr().err.splitlines() if m.startswith("lalp: ")]
    assert messages == [
        f"lalp: 4 responses cut into steps: {out}",
        "lalp: 2 of them into sentences: too little of the text is found in the answer",
        "lalp: 1 of them into sentences: the answer is empty",
    ]
    assert {body["messages"][0]["content"][:9] for body in server.bodies} == {"Cut this!"}
    steps = load_steps(out, load_pool(pool))
    assert [len(spans) for spans in steps.values()] == [4, 6, 6, 6]
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert ["fallback" in line for line in lines] == [False, True, True, True]


def test_placeholders_in_the_texts_stay(ask, server):
    prompt = Prompt("p", (Message("system", "Be brief."), Message("user", "case valid {solution}")))
    pool = Pool({"p": prompt}, (Response("r", "p", "Ada", "Use {problem}."),))
    ask(pool=pool, instruction="{problem}|{solution}")
    assert server.bodies[0]["messages"][0]["content"] == "case valid {solution}|Use {problem}."


def test_an_instruction_that_is_no_use_is_refused(ask, tmp_path):
    (tmp_path / "bad").write_text("Divide: {solutoin}")
    (tmp_path / "binary").write_bytes(b"\xff")
    said = {"bad": "lacks {solution}", "binary": "cannot be read", "none": "cannot be read"}
    for name, message in said.items():
        with pytest.raises(InputError, match=rf"{name}: .*{re.escape(message)}"):
            load_instruction(tmp_path / name)
    with pytest.raises(InputError, match=r"lacks \{solution\}"):
        ask("valid", instruction="Divide!")


def test_without_the_extra_the_error_says_what_to_install(ask, monkeypatch):
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(InputError, match=r"pip install 'lalp\[llm\]'"):
        ask("valid")
