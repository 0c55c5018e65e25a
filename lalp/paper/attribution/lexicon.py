"""Word lists of the token categories."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

CATEGORIES = ("discourse", "math", "reasoning", "other")
"""The paper's four (Table 4), in its order of rows."""

KINDS: Mapping[str, str] = MappingProxyType(
    {
        "filler": "discourse",
        "signpost": "discourse",
        "conclusion": "reasoning",
        "premise": "reasoning",
        "condition": "reasoning",
        "contrast": "reasoning",
        "binding": "reasoning",
        "number": "math",
        "variable": "math",
        "operator": "math",
        "function": "math",
        "latex": "math",
        "math word": "other",
        "function word": "other",
        "content word": "other",
        "punctuation": "other",
        "layout": "other",
    }
)
"""Every kind, and its category when only what the paper names counts."""

EXAMPLES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "filler": ("Okay", "So", "now", "of course"),
        "signpost": ("Finally", "for example", "we need to", "Step 2:"),
        "conclusion": ("Therefore", "it follows that", "which means"),
        "premise": ("because", "given that", "by induction"),
        "condition": ("if and only if", "suppose", "otherwise", "Case 1:"),
        "contrast": ("However", "although", "on the other hand"),
        "binding": ("Let", "let's denote", "substituting"),
        "number": ("42", "1,000", "3.5", "2nd"),
        "variable": ("x", "n", "bc", "α"),
        "operator": ("=", "+", "≤", "^"),
        "function": ("sin", "gcd", "mod"),
        "latex": (r"\frac", r"\cdot", r"\["),
        "math word": ("equation", "integer", "divisible"),
        "function word": ("the", "of", "which", "when"),
        "content word": ("find", "rewrite", "garden"),
        "punctuation": (",", ";", "?"),
        "layout": ("**", "#", "<br>"),
    }
)
"""Members of each kind, as a text of their own; of "Step 2:" the colon is punctuation."""

_PROSE = ("function word", "punctuation", "layout")
READINGS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "narrow": KINDS,
        "broad discourse": {**KINDS, **dict.fromkeys(_PROSE, "discourse")},
        "broad discourse and math": {
            **KINDS,
            **dict.fromkeys(_PROSE, "discourse"),
            "math word": "math",
        },
        "conclusions as discourse": {**KINDS, "conclusion": "discourse"},
    }
)
"""Assignments of kinds to categories: ``narrow`` is the default, the broad ones call filler all
that has no content of its own, the last one follows Sec. 7.4.1 instead of Table 4."""

SINGLE_TOKENS = "single tokens"
"""The reading by ``label_token_alone`` instead of by spans."""

KIND_NAMES = tuple(KINDS)
LAYOUT = KIND_NAMES.index("layout")
MATH = frozenset(kind for kind, category in KINDS.items() if category == "math")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# --- Tables ---------------------------------------------------------------------------------------

# Marks after a phrase: "?" for another use beside this one, "^" for the beginning of a clause only.
_PHRASES = {
    "filler": """
        okay, ok, alright, hmm, hm, oh, ah, wait, well^, so?, now, actually, basically, simply?,
        anyway, yeah, yes^, sure^, of course, clearly, obviously, indeed, great^, perfect^, right^,
        here^, you know, i mean, i think, i guess, let me see, let's see""",
    "signpost": """
        first^, firstly, first of all, second^, secondly, third^, thirdly, next^, finally, lastly,
        to begin with, to start with, to begin, to start, let's start by, let's begin by,
        we start by, we can start by, in summary, to summarize, to sum up, in conclusion,
        to conclude, overall^, in short, at this point, from here, as follows, after that,
        for example, for instance, e.g, i.e, etc, and so on, and so forth, that is^, in other words,
        namely, specifically, in particular, similarly, likewise, moreover, furthermore, further^,
        in addition, additionally, also, besides, again, respectively, alternatively, in fact,
        as mentioned, as mentioned earlier, as mentioned above, as shown, as shown above,
        as before, as above, recall, recall that, remember, remember that, note, note that, notice,
        notice that, observe, observe that, keep in mind, we know, we know that, we see,
        we see that, we can see, we can see that, we can say that, we can observe that,
        we notice that, we observe that, we note that, it is clear that, it's clear that,
        it can be seen that, it is easy to see that, it is important to note that,
        it is worth noting that, let's, let us, let me, we can, we could, we can now, we can then,
        we need, we need to, we want, we want to, we have, we have to, we now have, we then have,
        we must?, we get, we obtain, we find, we find that, we use, we can use, we will, we'll,
        we shall, we consider, we are given, we are given that, we are looking for, we start with,
        i will, i'll, i need to, i can, our goal is, our task is, the goal is,
        to solve this problem, to solve this, to solve the problem, to do this, to do so,
        in order to?, the problem asks, the problem asks for, the question asks, the question is,
        this problem can be solved, the answer is, the final answer is, our answer is,
        the solution is, in this case, in our case, step by step, step wise, one by one,
        as a first step, going back, in general, at first, in the end, let's look at,
        let's take a look at, let's try, let's check, let me check, let me try, let's verify,
        let me verify, let's consider, let's find""",
    "conclusion": """
        therefore, thus, hence, consequently, accordingly, ergo, as a result, as a consequence,
        it follows, it follows that, this follows from, which follows from, follows from,
        follows that, this implies, this implies that, which implies, which implies that, implies,
        implies that, imply, implying, implying that, this means, this means that, which means,
        which means that, that means, that means that, means that, meaning that, this gives,
        this gives us, which gives, which gives us, gives us, giving us, this shows,
        this shows that, which shows that, this yields, which yields, yields, yielding,
        this leads to, which leads to, leads to, leading to, this results in, which results in,
        results in, resulting in, we conclude, we conclude that, we can conclude,
        we can conclude that, conclude that, we deduce, we deduce that, we can deduce,
        we can deduce that, we infer that, we can infer that, this proves, this proves that,
        which proves that, this tells us, this tells us that, which tells us that, equivalently,
        contradiction, a contradiction, contradicts, contradicting, contradict, this contradicts,
        which contradicts, which is a contradiction, q.e.d, qed, for this reason, it must be that,
        it must be the case that, this suggests, this suggests that""",
    "premise": """
        because, because of, this is because, since, given^, given that, due to,
        due to the fact that, the fact that, by the fact that, from the fact that,
        using the fact that,
        we can use the fact that, according to, based on, by definition, by assumption,
        by hypothesis, by induction, by symmetry, by construction, by contradiction,
        by the induction hypothesis, in view of, owing to, thanks to, as a consequence of,
        now that, this follows because, seeing that""",
    "condition": """
        if, if and only if, iff, only if, even if, as if, if not, if so, then?, if then, unless,
        otherwise, whenever, provided?, provided that, as long as, so long as, in case, suppose,
        suppose that, let's suppose, let's suppose that, let us suppose, assume, assume that,
        let's assume, let's assume that, let us assume, let us assume that, we assume,
        we assume that, we can assume, we can assume that, assuming, assuming that,
        consider the case, let's consider the case, in the case, in that case?,
        without loss of generality, wlog, whether?, depending on""",
    "contrast": """
        but, however, although, though, even though, nevertheless, nonetheless, yet^, still^,
        whereas, on the other hand, on the one hand, on one hand, on the contrary, contrary to,
        conversely, in contrast, by contrast, in contrast to, instead, instead of, rather?,
        rather than, despite, in spite of, regardless, regardless of, except, unlike""",
    "binding": """
        let, let's let, let's denote, let's define, let's call?, let us denote, let us define,
        denote, denotes, denoted, denoted by, denoting, define, defines, defined as, defined by,
        defining, we define, we denote, we let, we can define, we can denote, we can let,
        substitute, substituting, substituted, substitution?, we can substitute, we substitute,
        plug, plugging, plug in, plugging in, plugging this in, replacing?, such that""",
}

FUNCTION_NAMES = _words(
    """sin cos tan cot sec csc sinh cosh tanh arcsin arccos arctan log ln lg exp mod gcd lcm hcf max
    min sup inf lim limsup liminf det sgn sqrt cbrt floor ceil binom frac cdot"""
)
MATH_WORDS = _words(
    """absolute acute add adding addition adjacent algebra algebraic altitude angle angles area
    argument arithmetic arrangement arrangements asymptote average axis base bases bijection
    binary binomial bisector bound bounded bounds calculate calculation ceiling center chord
    circle circles circumference coefficient coefficients column columns combination
    combinations combinatorial common complement complex composite compute concave congruence
    congruences congruent consecutive constant constants constraint constraints converge
    convergent converges convex coordinate coordinates coprime cosine count counting counts
    cube cubes cubic cycle cycles decimal decreasing definition degree degrees denominator
    denominators derivative derivatives determinant diagonal diagonals diameter difference
    differences differentiable digit digits dimension discriminant disjoint distance distinct
    distribution distributive divide divided dividend divides dividing divisibility divisible
    division divisor divisors domain edge edges eigenvalue element elements ellipse equal
    equality equals equation equations equilateral equivalence equivalent evaluate even
    exponent exponential exponents expression expressions factor factorial factorials
    factorization factorize factorized factors finite formula formulas fraction fractions
    function functions geometric geometry graph greater greatest height hexagon hypotenuse
    identities identity imaginary increasing independent index indices induction inductive
    inequalities inequality infinite infinity injective integer integers integral intersection
    interval intervals inverse irrational isosceles largest leg length lengths limit limits
    line linear lines logarithm logarithmic logarithms matrices matrix maximal maximize
    maximized maximum mean median midpoint minimal minimize minimized minimum minus modular
    modulo modulus monotone monotonic multiple multiples multiplication multiplicity
    multiplied multiply multiplying negative nonnegative nonzero number numbers numerator
    numerators octagon odd operation operations orthogonal parabola parallel parallelogram
    parity partition partitions pentagon percent perfect perimeter permutation permutations
    perpendicular pi plane plus point points polygon polynomial polynomials positive power
    powers prime primes probabilities probability product products progression proportional
    quadrant quadratic quadrilateral quotient radians radical radii radius random range rate
    ratio rational ratios real reciprocal reciprocals rectangle recurrence recursion recursive
    remainder remainders residue residues root roots row rows scalar secant segment semicircle
    sequence sequences series set sets side sides sign simplification simplified simplifies
    simplify simplifying sine slope smallest solution solutions solve solved solving square
    squared squares squaring string strings subset subsets subtract subtracted subtracting
    subtraction sum summation summing sums symmetric symmetry tangent term terms theorem
    theorems times total trapezoid triangle triangles trigonometric triple triples tuple
    tuples union unknown value values variable variables vector vectors vertex vertices volume
    width zero zeroes zeros am gm hm qm lhs rhs crt dp"""
)
FUNCTION_WORDS = _words(
    """a about above across after against all along among an and another any anything are aren't
    around as at away be been before being below beneath between beyond both by can can't
    cannot could couldn't did didn't do does doesn't doing don't done down during each either
    else enough ever every everyone everything exactly few fewer for from had has hasn't have
    haven't having he he's her him his how i i'd i'm i've in inside into is isn't it it's its
    itself just least less lot many may me might more most much must my nd neither never no
    nobody non none nor not nothing of off on once one ones only onto or other others our ours
    ourselves out outside over own per rd s same several shall she should some someone
    something st th than that that's the their them themselves there there's these they this
    those three through throughout to together too toward towards twice two under until up
    upon us very via vs was wasn't we we'll we're we've were what what's when where where's
    which while who whom whose why will with within without won't would wouldn't you your"""
)
# Ordinals count as signposts only where a clause begins.
ORDINALS = _words("first second third fourth fifth next last")
TWO_LETTER_WORDS = _words(
    """ad ah am an as at be by do go he hi if in is it me mr ms my no of oh ok on or so to up us
    vs we st nd rd th cm mm km kg"""
)
# After these words "a" is read as an article only if a longer word follows.
AFTER_VARIABLE = _words(
    """and are as at be by can cannot could divides does equals for from has have if in into is lies
    may mod modulo must need needs not of on or satisfies satisfy should so such than that then to
    when where which while will with would"""
)
LABELS = (
    "Step|Steps|Part|Case|Subcase|Claim|Lemma|Theorem|Proof|Solution|Answer|Final answer|Problem|"
    "Approach|Method|Example|Note|Remark|Conclusion|Summary|Explanation|Base case|Inductive step"
)

# --- Patterns -------------------------------------------------------------------------------------

MATH_ENVIRONMENTS = (
    "equation|align|aligned|alignat|gather|gathered|multline|eqnarray|array|cases|split|math|"
    "displaymath|[bBpvV]?matrix|smallmatrix"
)


@dataclass(frozen=True)
class Phrase:
    kind: str
    sure: bool
    begins_clause: bool


def _phrase_tree() -> dict[str, Any]:
    """Phrases as nested dictionaries, word by word; the key "" holds the phrase that ends there."""
    root: dict[str, Any] = {}
    for kind, listed in _PHRASES.items():
        for phrase in listed.replace("\n", " ").split(","):
            node, mark = root, phrase.strip()[-1]
            for word in phrase.strip().rstrip("?^").split():
                node = node.setdefault(word, {})
            node[""] = Phrase(kind, mark != "?", mark == "^")
    return root


TREE = _phrase_tree()


TOKEN_WORDS = {
    "discourse": _words("okay ok so well now let first next finally we alright hmm wait"),
    "reasoning": _words("therefore thus hence because since if then implies but however"),
}
