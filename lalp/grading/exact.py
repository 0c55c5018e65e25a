"""Compare what Math-Verify has read, exactly, for small and large values."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

# Digits of a difference that are computed before it counts as zero: for arithmetic, and for
# formulas with exponentials of large numbers (tanh(1000) is 1 - 10^-868).
_DIGITS, _MORE_DIGITS = 400, 5000


def same_constant(gold: Any, answer: Any) -> bool | None:
    """Whether two constants are equal; None if one of them is not a finite number.

    Their difference is computed with enough digits to see that it is not zero. So 1.6e-19 and
    3.2e-19 differ, and so do the root of 10^40 + 1 and 10^20.

    Example:
        >>> from sympy import Integer, sqrt
        >>> same_constant(sqrt(10**40 + 1), Integer(10**20)), same_constant(sqrt(12), 2 * sqrt(3))
        (False, True)
    """
    if not (is_constant(gold) and is_constant(answer)):
        return None
    difference = with_exact_decimals(gold) - with_exact_decimals(answer)
    scale = _largest_exponent(difference)
    if difference != 0 and scale > _MORE_DIGITS:
        return False  # out of reach; values not shown to be equal are not equal
    value = difference.evalf(5, maxn=_DIGITS if scale < _DIGITS / 4 else 2 * _MORE_DIGITS)
    if not value.is_number or not value.is_finite:
        return None
    parts = [part for part in value.as_real_imag() if part != 0]
    if any(part.is_Float and part._prec > 1 for part in parts):
        return False
    # The rest is zero to hundreds of digits: algebra decides if it can.
    is_zero = difference.equals(0)
    return is_zero is True if scale > _DIGITS / 4 else not parts or is_zero is not False


def _largest_exponent(expression: Any) -> float:
    """The size of the largest argument of an exponential or a hyperbolic function; else 0."""
    from sympy import Pow, exp
    from sympy.functions.elementary.hyperbolic import HyperbolicFunction

    sizes = [0.0]
    for part in expression.atoms(Pow, exp, HyperbolicFunction):
        argument = part.exp if isinstance(part, Pow | exp) else part.args[0]
        if not (isinstance(part, Pow) and part.base.is_rational and argument.is_rational):
            sizes.append(abs(float(argument.evalf(5).as_real_imag()[0])))
    return max(sizes)


def differ_somewhere(gold: Any, answer: Any) -> bool:
    """Whether two formulas differ in their unknowns, or in their values at small integers."""
    from sympy import Expr

    if not isinstance(gold, Expr) or not isinstance(answer, Expr):
        return False
    names, others = ({s.name for s in side.free_symbols} for side in (gold, answer))
    if names != others:
        return True
    point = dict(zip(sorted(names), (11, 3, 7, 5, 2, 13), strict=False))
    try:
        values = [
            with_exact_decimals(side).subs(
                {symbol: point.get(symbol.name, 1) for symbol in side.free_symbols}
            )
            for side in (gold, answer)
        ]
        return same_constant(*values) is False
    except (TypeError, ValueError, ArithmeticError, AttributeError):
        return False  # for example at a pole: the algebra decides


def same_equation(gold: tuple[Any, Any], answer: tuple[Any, Any]) -> bool:
    """Whether two equations, given by their sides, are multiples of each other: 2x = 4 and x = 2.

    Example:
        >>> from sympy.abc import x, y
        >>> same_equation((2 * x, 4 + y), (y, 2 * x - 4)), same_equation((x, 1), (x, 2))
        (True, False)
    """
    from sympy import Expr, cancel, expand, simplify

    if not all(isinstance(side, Expr) for side in (*gold, *answer)):
        return False
    differences = [
        with_exact_decimals(left) - with_exact_decimals(right) for left, right in (gold, answer)
    ]
    if differences[0].free_symbols != differences[1].free_symbols:
        return False
    if expand(differences[1]) == 0:
        return False
    ratio = cancel(simplify(differences[0] / differences[1]))
    return is_constant(ratio) and same_constant(ratio, ratio * 0) is False


def with_imaginary_unit(gold: Any, answer: Any) -> tuple[Any, Any]:
    """Both sides with ``i`` as the root of -1, if it is the only unknown."""
    from sympy import Basic, I

    sides = (gold, answer)
    if not all(isinstance(side, Basic) for side in sides):
        return sides
    symbols = gold.free_symbols | answer.free_symbols
    if {symbol.name for symbol in symbols} != {"i"}:
        return sides
    return tuple(side.subs(dict.fromkeys(symbols, I)) for side in sides)


def is_constant(expression: Any) -> bool:
    """Whether an expression is a finite number."""
    from sympy import Expr, S

    improper = (S.Infinity, S.NegativeInfinity, S.ComplexInfinity, S.NaN)
    return (
        isinstance(expression, Expr)
        and not expression.free_symbols
        and not expression.has(*improper)
    )


def with_exact_decimals(expression: Any) -> Any:
    """The expression with its decimals as fractions: 0.1 is 1/10."""
    from sympy import Float, Rational

    return expression.xreplace({x: Rational(str(x)) for x in expression.atoms(Float)})


def rounded_constant(expression: Any) -> Fraction | None:
    """A real constant to 30 digits, None for anything else."""
    if not is_constant(expression):
        return None
    value = expression.evalf(30)
    if not (value.is_number and value.is_Atom):
        value = expression.doit().evalf(30)  # such as an unevaluated sum
    return Fraction(str(value)) if value.is_Float and value.is_finite else None
