"""What a person reads of a schema error: found and needed, in words of the document and never of the validator."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from tulle.api.shape import Shape
from tulle.api.values import words_for

# The validator's kinds of a wrong type → what was needed.
_TYPES = {
    "string_type": "a string",
    "string_unicode": "a string of valid Unicode",
    "int_type": "an integer",
    "int_from_float": "an integer",
    "int_parsing": "an integer",
    "int_parsing_size": "an integer",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "dict_type": "an object",
    "mapping_type": "an object",
    "model_type": "an object",
    "model_attributes_type": "an object",
    "dataclass_type": "an object",
    "tuple_type": "a list",
    "list_type": "a list",
}
_WRONG_TYPE = frozenset(_TYPES)


def found(value: Any, *, secret: bool = False) -> str:
    """A value as a message shows it; of a secret only its kind."""
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "a list"
    if value is None:
        return "null"
    if secret:
        return "a value"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value) if abs(value) < 10**30 else "a very large integer"
    if isinstance(value, str):
        text = value if len(value) <= 100 else value[:97] + "..."
        return json.dumps(text, ensure_ascii=not text.isprintable())
    return f"{value:g}" if isinstance(value, float) else str(value)


def _found_with_type(value: Any, *, secret: bool) -> str:
    names: list[tuple[type, str]] = [(str, "a string"), (bool, "a boolean"), (int, "an integer"), (float, "a number")]
    name = next((name for kind, name in names if isinstance(value, kind)), "")
    shown = found(value, secret=secret)
    if secret and name:
        return name
    return f"{shown} ({name})" if name else shown


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """The known word that is close to this one; "" where none is."""
    lower = {name.lower(): name for name in known}
    squeezed = {name.lower().replace("_", "").replace("-", ""): name for name in known}
    if exact := lower.get(word.lower()) or squeezed.get(word.lower().replace("_", "").replace("-", "")):
        return exact
    close = difflib.get_close_matches(word[:100].lower(), lower, n=1, cutoff=0.7)
    return lower[close[0]] if close else ""


def sentence(kind: str, value: Any, context: Mapping[str, Any], shape: Shape, *, secret: bool = False) -> tuple[str, str]:
    """The reason and the message for an error of the validator. `shape` is what stands at its place in the schema."""
    if kind in _WRONG_TYPE:
        needed = shape.stated or ("a list" if shape.item is not None else _TYPES[kind])
        return "WrongType", f"found {_found_with_type(value, secret=secret)}; needed {needed}"
    shown = found(value, secret=secret)
    match kind:
        case "missing":
            return "Required", f"found nothing; needed {shape.words}"
        case "literal_error":
            if (
                not isinstance(value, str | int)
                or isinstance(value, bool)
                or (shape.choices and type(value) is not type(shape.choices[0]))
            ):
                return "WrongType", f"found {_found_with_type(value, secret=secret)}; needed {shape.words}"
            guess = did_you_mean(value, [str(choice) for choice in shape.choices]) if isinstance(value, str) else ""
            return "BadEnum", f"found {shown}; needed {shape.words}" + (f" (did you mean {guess}?)" if guess else "")
        case "string_pattern_mismatch":
            return "BadFormat", f"found {shown}; needed {shape.stated or words_for(str(context.get('pattern', '')))}"
        case "string_too_short":
            minimum = context.get("min_length")
            return "TooShort", f"found {shown}; needed a text" + ("" if minimum == 1 else f" of at least {minimum} characters")
        case "string_too_long":
            length = len(value) if isinstance(value, str) else 0
            return "TooLong", f"found {length} characters; needed at most {context.get('max_length')}"
        case "too_short":
            return "TooFew", f"found {_count(value)}; needed at least {_items(context.get('min_length'))}"
        case "too_long":
            return "TooMany", f"found {_count(value)}; needed at most {_items(context.get('max_length'))}"
        case "greater_than_equal" | "less_than_equal" | "greater_than" | "less_than":
            return "OutOfRange", f"found {shown}; needed {shape.words}"
        case "needed-secretly":
            return "BadFormat", f"found something else; needed {context.get('needed')}"
        case _:
            return "Invalid", f"found {shown}; needed {shape.words}"


def unknown_field(name: str, shape: Shape) -> str:
    """The message for a field that the schema does not have."""
    known = sorted(shape.fields)
    needed = f"one of {', '.join(known)}" if known else "none"
    if guess := did_you_mean(name, known):
        return f'found a field that does not exist (did you mean "{guess}"?); needed {needed}'
    return f"found a field that does not exist; needed {needed}"


def _count(value: Any) -> str:
    count = len(value) if isinstance(value, Sequence | Mapping) else 0
    return str(count) if count else "none"


def _items(count: Any) -> str:
    return f"{count} item" if count == 1 else f"{count} items"
