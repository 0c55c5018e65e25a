"""The pool of long traces: its files, joins, marks and grades."""

import os
import re
from collections import Counter
from hashlib import sha256
from pathlib import Path

import pytest
import requests
import yaml
from hypothesis import given
from hypothesis import strategies as st

from lalp.errors import InputError
from lalp.grading.answers import final_part
from lalp.paper.traces import accuracy_table, files, load_traces
from lalp.paper.traces.files import FACTS, read_file, read_files
from lalp.paper.traces.grades import answer_text, grade_texts
from lalp.paper.traces.joins import join_responses, math_problems, topic_shares
from lalp.paper.traces.marks import Marks, find_marks, has_cjk, unify_marks
from lalp.paper.traces.pool import MAIN_TEACHERS, SIMILAR_LENGTH, TEACHERS, build_pool, solved_by
from tests.paper.traces.records import make_files

SHARED = Path(__file__).parents[4] / "shared" / "data" / "mip-overthinking"
REAL = Path(os.environ.get("TRACES") or SHARED)
needs_traces = pytest.mark.skipif(
    not REAL.is_dir(), reason="no ../shared/data/mip-overthinking here, and TRACES names no folder"
)
COUNTS = yaml.safe_load(Path(__file__).with_name("counts.yaml").read_text(encoding="utf-8"))
POOL_MARKS = Counter({"<think>": 1, "</think>": 1})
R1, S1 = "response/math/normal/deepseekR1/response.json", "response/math/normal/s1.1/response.json"
QWQ, R1_SUMS = (
    "response/gsm8k/normal/QwQ/response.json",
    "response/gsm8k/normal/deepseekR1/response.json",
)
LIMO = "response/math/normal/Limo/response.json"
FIELD = "model_answer"


def marks_of(teacher: str) -> Marks:
    facts = FACTS["teachers"][teacher]
    return Marks(facts.get("begin", ""), facts.get("end", ""))


# --- files -------------------------------------------------------------------------------------


def test_a_file_is_read_if_its_hash_is_known(tmp_path):
    path = tmp_path / "records.json"
    path.write_bytes(b'[{"question": "2 + 2?"}]')
    digest = sha256(path.read_bytes()).hexdigest()
    assert read_file(path, digest) == [{"question": "2 + 2?"}]
    path.write_bytes(b'[{"question": "2 + 3?"}]')
    with pytest.raises(InputError, match=r"records\.json: another file .* copy it from tianyi-lab"):
        read_file(path, digest)
    with pytest.raises(InputError, match=r"none\.json: cannot be read .* copy it from"):
        read_file(tmp_path / "none.json", digest)


def test_a_folder_that_is_not_there_or_lacks_a_file_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACES", str(tmp_path / "none"))
    with pytest.raises(InputError, match=r"none: no such folder: give the folder with data/"):
        read_files()
    with pytest.raises(InputError, match=r"gsm8k\.json: cannot be read") as error:
        read_files(tmp_path)
    assert "\n" not in str(error.value)


class Server:
    """Stands for the repository's server: what it sends, and how often it was asked."""

    def __init__(self, content: bytes | None):
        self.content, self.asked = content, 0

    def __call__(self, **options):
        return self.send

    def send(self, url, output_file, _):
        self.asked += 1
        assert url.endswith(f"/{FACTS['commit']}/data/gsm8k.json")
        if self.content is None:
            raise requests.ConnectionError("no route\nto that host")
        Path(output_file).write_bytes(self.content)


@pytest.fixture
def fetched(tmp_path, monkeypatch):
    monkeypatch.setenv("LALP_CACHE", str(tmp_path))
    monkeypatch.delenv("TRACES", raising=False)
    digest = sha256(b"[]").hexdigest()
    monkeypatch.setitem(FACTS, "files", {"data/gsm8k.json": digest})

    def use(content: bytes | None) -> Server:
        server = Server(content)
        monkeypatch.setattr(files.pooch, "HTTPDownloader", server)
        return server

    return use


def test_files_are_fetched_once_and_a_damaged_one_again(fetched, tmp_path):
    server = fetched(b"[]")
    assert read_files() == {"data/gsm8k.json": []} == read_files()
    assert server.asked == 1
    (kept,) = (tmp_path / "traces").iterdir()
    kept.write_bytes(b"[")
    assert read_files() == {"data/gsm8k.json": []}
    assert server.asked == 2


@pytest.mark.parametrize("content", [None, b"[1]"])
def test_no_network_and_other_bytes_are_one_line(fetched, tmp_path, content):
    fetched(content)
    with pytest.raises(InputError, match=r"gsm8k\.json: cannot be fetched .*set TRACES") as error:
        read_files()
    assert "\n" not in str(error.value)
    assert not list((tmp_path / "traces").glob("*gsm8k*"))


# --- joins -------------------------------------------------------------------------------------


def test_responses_come_to_their_problems_whatever_the_order_of_rows():
    pool = build_pool(make_files())
    assert len(pool.prompts) == 6
    assert Counter(r.teacher for r in pool.responses) == {
        teacher: 3 if teacher == "LIMO-32B" else 6 for teacher in TEACHERS
    }
    assert all(response.correct for response in pool.responses)
    for response in pool.responses:
        question = pool.prompts[response.prompt_id].messages[0].content
        assert question in response.text
    assert pool.prompts["gsm8k/2"].answer == "1,250"
    assert list(pool.prompts)[3:] == [
        "math/test/algebra/7",
        "math/test/geometry/3",
        "math/test/number_theory/9",
    ]


def drop_row(made):
    made[QWQ].pop()


def ask_twice(made):
    made[QWQ][1]["question"] = made[QWQ][0]["question"]


def ask_another(made):
    made[QWQ][1]["question"] = "How old is the sea?"


def give_another_answer(made):
    made[QWQ][1]["answer"] = "#### 3"


def repeat_a_problem(made):
    made["data/gsm8k.json"][1] = made["data/gsm8k.json"][0]


def drop_a_row_of_math(made):
    made[LIMO].pop()


def turn_rows_of_math(made):
    made[LIMO] = made[LIMO][::-1]


def turn_responses_of_math(made):
    texts = [record[FIELD] for record in made[LIMO]]
    for record, text in zip(made[LIMO], texts[1:] + texts[:1], strict=True):
        record[FIELD] = text


def ask_another_in_math(made):
    made[S1][0]["question"] = made[S1][1]["question"]


def number_twice(made):
    made[R1][1]["unique_id"] = made[R1][0]["unique_id"]


def rename_field(made):
    made[LIMO][1]["response"] = made[LIMO][1].pop(FIELD)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (drop_row, r"QwQ/response\.json: no row asks gsm8k/1"),
        (ask_twice, r"QwQ/response\.json: a question stands in several rows"),
        (ask_another, r"QwQ/response\.json: no row asks gsm8k/0"),
        (give_another_answer, r"QwQ/response\.json, row 1: the answer to another problem"),
        (repeat_a_problem, r"a question stands in several rows"),
        (drop_a_row_of_math, r"Limo/response\.json: 2 rows for 3 problems"),
        (turn_rows_of_math, r"Limo/response\.json, row 1: the answer to another problem"),
        (turn_responses_of_math, r"Limo/response\.json: only 0% of the responses talk"),
        (ask_another_in_math, r"s1\.1/response\.json, row 1: another question"),
        (number_twice, r"MATH: a problem stands in several rows"),
        (rename_field, r"Limo/response\.json, row 2: field 'model_answer' is missing"),
    ],
)
def test_a_wrong_join_is_refused(damage, message):
    made = make_files()
    damage(made)
    with pytest.raises(InputError, match=message) as error:
        build_pool(made)
    assert "\n" not in str(error.value)


@given(st.permutations(range(3)))
def test_any_order_of_math_but_its_own_is_refused(order):
    made = make_files()
    problems = math_problems(made[R1])
    for record in made[LIMO]:
        record["answer"] = problems[0].answer
    alike = [type(p)(p.prompt_id, p.data_set, p.question, problems[0].answer) for p in problems]
    turned = [made[LIMO][place] for place in order]
    if order == [0, 1, 2]:
        assert len(join_responses(alike, turned, FIELD, "x.json")) == 3
    else:
        with pytest.raises(InputError, match=r"x\.json: only (?:0|33)% of the responses talk"):
            join_responses(alike, turned, FIELD, "x.json")


def test_questions_without_a_word_and_no_question_at_all_are_no_error():
    assert topic_shares(["?", "How many apples?"], ["It is 4.", "Apples: 2."]) == 1.0
    assert topic_shares([], []) == 0.0


# --- marks -------------------------------------------------------------------------------------


def test_after_loading_no_mark_tells_the_main_teachers_apart():
    pool = build_pool(make_files())
    for response in pool.responses:
        expected = POOL_MARKS if response.teacher in MAIN_TEACHERS else Counter()
        assert find_marks(response.text) == expected, response.response_id
    # The same thought and answer by another teacher is the same text.
    texts = {r.text for r in pool.responses if r.prompt_id == "gsm8k/0"} - {
        r.text for r in pool.responses if r.teacher not in MAIN_TEACHERS
    }
    assert len(texts) == 1


words = st.text("abc xyz.,=+7\n", min_size=1).filter(str.strip)


@given(words, words, st.sampled_from(MAIN_TEACHERS))
def test_thought_and_answer_of_any_layout_are_found_again(thought, answer, teacher):
    raw = {
        "DeepSeek-R1": f"{thought}</think>{answer}",
        "s1.1-32B": f"think\n{thought}\nanswer\nAnswer: {answer}",
    }.get(teacher, f"{thought}\n</think>\n\n{answer}")
    joined = unify_marks(raw, marks_of(teacher))
    found = re.fullmatch(r"<think>\n(.*)\n</think>\n\n(.*)", joined, re.DOTALL)
    assert found is not None
    assert found[1].strip() == thought.strip()
    assert found[2].strip() == answer.strip()
    assert final_part(joined).strip() == answer.strip()


@pytest.mark.parametrize("teacher", MAIN_TEACHERS)
def test_a_response_without_its_teachers_mark_is_left_out(teacher):
    assert unify_marks("Okay, it is 4, and", marks_of(teacher)) is None


@pytest.mark.parametrize("teacher", ["LIMO-32B", "Qwen2.5-32B-Instruct"])
def test_teachers_without_marks_keep_their_texts(teacher):
    assert unify_marks("Okay, it is 4.\n\n**Final Answer**\n4", marks_of(teacher)).startswith(
        "Okay"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("One.</think>Two.</think>3", "2 ends of a thought"),
        ("\n</think>\n\n3", "the thought is empty"),
        ("One.</think>\n ", "the response is empty"),
        ("<think>One.</think>3", "the thought holds <think> marks"),
    ],
)
def test_marks_that_are_not_those_of_one_thought_are_refused(text, message):
    with pytest.raises(InputError, match=message):
        unify_marks(text, Marks(end="</think>"))


def test_an_answer_of_s1_may_lack_its_word_or_hold_it_later():
    marks = marks_of("s1.1-32B")
    assert unify_marks("think\nA.\nanswer\nIt is 4.", marks).endswith("\n\nIt is 4.")
    said = unify_marks("think\nA.\nanswer\n Answer: It is.\nAnswer: 4", marks)
    assert said.endswith("</think>\n\nIt is.\nAnswer: 4")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "the response is missing"),
        (" \n", "the response is missing"),
        ("Error after 6 attempts: 500", "a server's error stands in place of the response"),
        ("Okay, so it is", "the thought has no end"),
    ],
)
def test_what_is_no_response_is_left_out_and_counted(value, reason):
    made = make_files()
    made[R1_SUMS][0]["deepseek-reasoner (question)"] = value
    pool = build_pool(made)
    assert pool.left_out == {reason: 1}
    assert "gsm8k/0/DeepSeek-R1" not in {r.response_id for r in pool.responses}
    assert solved_by(pool, MAIN_TEACHERS, "gsm8k") == ["gsm8k/1", "gsm8k/2"]
    assert solved_by(pool, ["QwQ-32B"], "gsm8k") == ["gsm8k/0", "gsm8k/1", "gsm8k/2"]


def test_cjk_text_is_found_in_any_of_its_scripts():
    assert all(map(has_cjk, ["所以", "です", "그래서", "4。"]))
    assert not any(map(has_cjk, ["", "So x² ≤ 4 — π", "ä"]))


# --- grades ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data_set", "gold", "text", "correct"),
    [
        ("gsm8k", "7", r"<think>\n\boxed{8}\n</think>\n\nIt is \boxed{7}.", True),
        ("gsm8k", "7", r"First \boxed{7}, no: \boxed{8}", False),
        ("gsm8k", "1,250", r"\boxed{1{,}250 \text{ visits}}", True),
        ("gsm8k", "1,250", "It takes 1250 visits.", True),
        ("gsm8k", "1,250", r"So \$1,250.00.", True),
        ("gsm8k", "-4", "It falls to -4 degrees.", True),
        ("gsm8k", "7", "7 " + "and so on " * 30, None),
        ("gsm8k", "7", "I cannot tell.", None),
        ("gsm8k", "7", "<think>\nIt is 7", None),
        ("math", r"\frac{3}{4}", r"Hence $\boxed{\dfrac 34}$.", True),
        ("math", "B", r"\boxed{\text{(B)}}", True),
        ("math", "49", "Is it 7?\n\n**Final Answer**\nRosa is 49 years old.", True),
        ("math", "6 - 5i", "Hm.\n\n**Final Answer**\n$$w = 6 - 5i$$", True),
        ("math", "6", "**Final Answer**\n56 bolts weigh as much as 6 nuts.", None),
        ("math", "49", "Rosa is surely 49 years old, I think, or so.", None),
    ],
)
def test_answers_are_read_and_graded(data_set, gold, text, correct):
    assert grade_texts([(data_set, gold, text.replace(r"\n", "\n"))]) == [correct]


@given(st.integers(-(10**7), 10**7))
def test_any_number_in_a_box_or_at_the_end_is_read(value):
    for text in (rf"It is \boxed{{{value:,}}} euros, not 5.", f"We get {value:,}."):
        assert answer_text(text, "gsm8k") == rf"\boxed{{{value}}}"


def test_the_table_counts_what_each_teacher_wrote():
    made = make_files()
    made[QWQ][0][FIELD] = "Hm, 所以.</think>" + r"\boxed{8}"
    table = accuracy_table(build_pool(made)).set_index(["data set", "teacher"])
    assert len(table) == 11
    row = table.loc[("gsm8k", "QwQ-32B")]
    assert (row["responses"], row["correct"], row["wrong"], row["ungraded"]) == (3, 2, 1, 0)
    assert (row["with thought"], row["with CJK"]) == (3, 1)
    assert row["accuracy"] == pytest.approx(2 / 3)
    assert row["low"] < row["accuracy"] < row["high"]
    assert table["with thought"].sum() == 8 * 3


# --- the real files ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real():
    return load_traces(REAL)


@needs_traces
@pytest.mark.slow
def test_real_counts_are_the_known_ones(real):
    assert real.left_out == COUNTS["left_out"]
    table = accuracy_table(real)
    columns = ["data set", "teacher", "responses", "correct", "wrong", "ungraded", "with CJK"]
    assert table[columns].to_numpy().tolist() == COUNTS["accuracy"]
    for data_set, number in COUNTS["solved_by_main"].items():
        assert len(solved_by(real, MAIN_TEACHERS, data_set)) == number
    assert set(SIMILAR_LENGTH) < set(MAIN_TEACHERS)


@needs_traces
@pytest.mark.slow
def test_real_texts_hold_the_same_marks_for_all_main_teachers(real):
    found = {r.teacher: Counter() for r in real.responses}
    for response in real.responses:
        found[response.teacher][tuple(sorted(find_marks(response.text).items()))] += 1
    expected = tuple(sorted(POOL_MARKS.items()))
    for teacher, marks in found.items():
        assert set(marks) == ({expected} if teacher in MAIN_TEACHERS else {()}), teacher


@needs_traces
@pytest.mark.slow
def test_rows_of_the_real_sums_stand_in_another_order_and_a_turn_of_math_is_refused():
    records = read_files(REAL)
    asked = [[r["question"] for r in records[name]] for name in ("data/gsm8k.json", QWQ)]
    assert asked[0] != asked[1]
    assert set(asked[0]) == set(asked[1])
    problems = math_problems(records[R1])
    texts = [record[FIELD] for record in records[LIMO]]
    questions = [problem.question for problem in problems]
    assert topic_shares(questions, texts) >= FACTS["least_alike"]
    assert topic_shares(questions, texts[1:] + texts[:1]) <= 0.2
