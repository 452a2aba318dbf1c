"""Configurations as plain JSON values, by the names of their registered types."""

from collections.abc import Callable
import dataclasses
import numbers
import reprlib
from typing import Any, TypeVar

T = TypeVar("T", bound=type[Any])

_TYPES: dict[str, type] = {}
"""Only added to, when modules are imported: what a name means never changes."""


def register(cls: T, *, name: str | None = None) -> T:
    """Lets configurations of this type go into files: a leaf, a structure, a flow.

    As a decorator of a frozen dataclass whose fields are numbers, strings, None, tuples
    of these, or other registered types:

        @pc.register
        @dataclasses.dataclass(frozen=True)
        class Poisson: ...

    A program that loads the file registers the same type first. Loading calls the type
    with the file's values, so its ``__post_init__`` should refuse what it cannot be.

    Args:
        cls: the type.
        name: its name in files; None: the name of the class.

    Returns:
        The type itself.

    Raises:
        ValueError: not a frozen dataclass, a field is called ``type``, or the name
            belongs to another class. The same class, defined again, replaces itself.
    """
    options = getattr(cls, "__dataclass_params__", None)
    if not isinstance(cls, type) or options is None or not options.frozen:
        raise ValueError(f"cls must be a frozen dataclass, got {_short(cls)}")
    fields: dict[str, Any] = getattr(cls, "__dataclass_fields__", {})
    if "type" in fields:
        raise ValueError(f"cls must have no field called type, got {_short(cls)}")
    name = cls.__name__ if name is None else name
    known = _TYPES.setdefault(name, cls)
    if _origin(known) != _origin(cls):
        raise ValueError(
            f"name must be one that no other class has, got {name!r} of {_short(known)}"
        )
    _TYPES[name] = cls
    return cls


def _origin(cls: type) -> tuple[str, str]:
    return cls.__module__, cls.__qualname__


def to_json(config: Any) -> Any:
    """A configuration as plain JSON values; dataclasses carry their ``type``.

    Args:
        config: of registered types.

    Returns:
        Dictionaries, lists, strings and numbers.

    Raises:
        ValueError: a value has no place in a file.
    """
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        names = [name for name, cls in _TYPES.items() if cls is type(config)]
        if not names:
            raise ValueError(
                "config must be made of registered types (dspc_jax.register), got "
                f"{type(config).__name__}"
            )
        fields = [f for f in dataclasses.fields(config) if f.init]
        values = {f.name: to_json(getattr(config, f.name)) for f in fields}
        return {"type": names[0], **values}
    if isinstance(config, tuple):
        return [to_json(item) for item in config]
    if config is None or isinstance(config, bool | str):
        return config
    if isinstance(config, numbers.Integral):
        return int(config)
    if isinstance(config, numbers.Real):
        return float(config)
    raise ValueError(
        "config must be made of registered types, tuples, strings and numbers, got "
        f"{_short(config)}"
    )


def from_json(value: Any) -> Any:
    """Reverses `to_json`; only registered types can result.

    Args:
        value: of a parsed JSON text.

    Returns:
        The configuration, checked as its types check themselves.

    Raises:
        ValueError: an unknown type, or fields that it has not or refuses.
    """
    if isinstance(value, list):
        return tuple(from_json(item) for item in value)
    if not isinstance(value, dict):
        return value
    name = value.get("type")
    cls = _TYPES.get(name) if isinstance(name, str) else None
    if cls is None:
        raise ValueError(
            f"config must have a type among {sorted(_TYPES)} (dspc_jax.register adds "
            f"others), got {_short(name)}"
        )
    fields = {key: from_json(item) for key, item in value.items() if key != "type"}
    return checked(lambda: cls(**fields), str(name))


def checked(call: Callable[[], Any], name: str) -> Any:
    """The value of a call with a stranger's arguments; every failure a ValueError."""
    try:
        return call()
    except (
        *(ArithmeticError, AssertionError, AttributeError, LookupError),
        *(MemoryError, RecursionError, TypeError, ValueError),
    ) as error:
        message = " ".join(str(error).split())
        raise ValueError(f"{name} must be possible, got {message:.200}") from error


def _short(value: Any) -> str:
    """A value on one line."""
    return " ".join(reprlib.repr(value).split())
