"""Numbers as users give them, and values as an error shows them.

A configuration that is made of the numbers of this module is hashable, equal to the
same one with numbers of NumPy, and can be saved.
"""

import math
import numbers
import operator
from typing import Any

_LONGEST = 80


def shown(value: Any, longest: int = _LONGEST) -> str:
    """A value for one line of an error, cut short.

    Args:
        value: anything.
        longest: the most characters.

    Returns:
        Its ``repr`` on one line, an array by its type and shape; what a tuple of arrays
        is made of is not shown.
    """
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if isinstance(value, type):
        text = f"the class {value.__name__}"
    elif isinstance(shape, tuple) and dtype is not None and shape != ():
        text = f"{dtype} of shape {shape}"
    elif fields := getattr(value, "_fields", ()):
        text = f"{type(value).__name__}({', '.join(fields)})"
    else:
        text = " ".join(repr(value).split())
    return text if len(text) <= longest else f"{text[: longest - 3]}..."


def instance(name: str, value: Any, kind: type) -> None:
    """Raises ValueError unless the value is one of a type.

    Args:
        name: the argument's name, for the error.
        value: anything.
        kind: the type.

    Raises:
        ValueError: it is of another type, the type itself included.
    """
    if not isinstance(value, kind):
        raise ValueError(f"{name} must be a {kind.__name__}, got {shown(value)}")


def store(config: Any, **values: Any) -> None:
    """Stores checked values in a frozen dataclass, in its ``__post_init__``."""
    for name, value in values.items():
        object.__setattr__(config, name, value)


def whole_number(name: str, value: Any, *, least: int | None = None) -> int:
    """A size, a seed or a label as an ``int``.

    Args:
        name: the argument's name, for the error.
        value: an integer of Python, NumPy or JAX.
        least: the smallest that is legal.

    Returns:
        The number.

    Raises:
        ValueError: a bool, a float (also one without a fraction), anything else, or a
            number below ``least``.
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool):
        raise ValueError(f"{name} must be a whole number, got {shown(value)}")
    if least is not None and number < least:
        raise ValueError(f"{name} must be at least {least}, got {number}")
    return number


def real_number(name: str, value: Any) -> float:
    """A finite number as a ``float``.

    Args:
        name: the argument's name, for the error.
        value: a number of Python, NumPy or JAX.

    Returns:
        The number.

    Raises:
        ValueError: a bool, a string, anything else, or a number that is not finite.
    """
    text = isinstance(value, bool | str | bytes | bytearray)
    try:
        number = math.nan if text else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{name} must be a finite number, got {shown(value)}")
    return number


def plain(value: Any) -> Any:
    """A number of NumPy as one of Python; anything else, a bool too, as it is."""
    number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not number:
        return value
    return int(value) if isinstance(value, numbers.Integral) else float(value)


def real_pair(name: str, values: Any) -> tuple[float, float]:
    """Two finite numbers, in a tuple, a list or an array, as floats.

    Args:
        name: the argument's name, for the error.
        values: the numbers.

    Returns:
        The pair.

    Raises:
        ValueError: not two, or one that is no `real_number`.
    """
    if isinstance(values, str) or not hasattr(values, "__len__") or len(values) != 2:
        raise ValueError(f"{name} must be two numbers, got {shown(values)}")
    first, second = values
    return real_number(name, first), real_number(name, second)


def sequence(name: str, values: Any) -> tuple[Any, ...]:
    """A tuple, a list or an array as a tuple.

    Args:
        name: the argument's name, for the error.
        values: the sequence.

    Returns:
        Its items.

    Raises:
        ValueError: it is no sequence, or it is a string.
    """
    if isinstance(values, str | bytes | dict) or not hasattr(values, "__len__"):
        raise ValueError(f"{name} must be a sequence, got {shown(values)}")
    return tuple(values)


def whole_numbers(name: str, values: Any) -> tuple[int, ...]:
    """A sequence of integers, as `whole_number` takes them.

    Args:
        name: the argument's name, for the error.
        values: a tuple, a list or an array.

    Returns:
        The numbers.

    Raises:
        ValueError: no sequence, or an item that is no integer.
    """
    values = sequence(name, values)
    if set(map(type, values)) <= {int}:
        return values
    return tuple(whole_number(f"{name}[{i}]", value) for i, value in enumerate(values))
