"""Changing a pool's settings by what a person said: a wrong value is told with what would be accepted."""

from __future__ import annotations

import difflib
import enum
import types
from collections.abc import Mapping
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from penstock_engines.autoscale import ScaleRules
from penstock_engines.pool_settings import PoolSettings
from penstock_engines.pools import PoolError

SCALE = get_type_hints(ScaleRules, include_extras=True)
OTHERS = {
    name: hint for name, hint in get_type_hints(PoolSettings, include_extras=True).items() if name != "scale"
}
NAMES = (*SCALE, *OTHERS)
"""Every setting, as a person names it."""


def changed(settings: PoolSettings, said: Mapping[str, object]) -> PoolSettings:
    """Apply settings by name, numbers as text too; raises PoolError naming what is wrong and what is near."""
    values: dict[str, Any] = {name: _read(name, value) for name, value in said.items()}
    scale = {name: value for name, value in values.items() if name in SCALE}
    others = {name: value for name, value in values.items() if name in OTHERS}
    try:
        scale_rules = msgspec.structs.replace(settings.scale, **scale)
    except ValueError as error:
        raise PoolError(str(error)) from None
    return msgspec.structs.replace(settings, scale=scale_rules, **others)


def _read(name: str, value: object) -> Any:
    hint = SCALE.get(name) or OTHERS.get(name)
    if hint is None:
        raise PoolError(f"there is no setting {name!r}{_near(name, NAMES)}; there are: {', '.join(NAMES)}")
    plain = _plain(hint)
    if plain is not hint and value in ("", "none", None):
        return None
    try:
        return msgspec.convert(value, hint, strict=False)
    except msgspec.ValidationError:
        raise PoolError(f"{name} cannot be {value!r}: {_accepted(plain, value)}") from None


def _plain(hint: Any) -> Any:
    """The type without `| None`."""
    if get_origin(hint) in {Union, types.UnionType}:
        return next(each for each in get_args(hint) if each is not type(None))
    return hint


def _accepted(hint: Any, value: object) -> str:
    """Say what a setting accepts, and which of it is nearest."""
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        names = [str(each.value) for each in hint]
        return f"it must be one of {', '.join(names)}{_near(str(value), names)}"
    if hint is bool:
        return "it must be true or false"
    if get_origin(hint) is not Annotated:
        return f"it must be {hint.__name__}"
    kind, meta = get_args(hint)[0], next(each for each in get_args(hint) if isinstance(each, Meta))
    words = ["a whole number" if kind is int else "a number"]
    words += [f"{word} {end:g}" for word, end in _ends(meta) if end is not None]
    return f"it must be {' '.join(words)}{_clamped(meta, value)}"


def _ends(meta: Meta) -> list[tuple[str, float | None]]:
    return [("from", meta.ge), ("above", meta.gt), ("to", meta.le), ("below", meta.lt)]


def _clamped(meta: Meta, value: object) -> str:
    """Name the nearest value, where the one that was said is a number beyond an end that belongs to it."""
    try:
        number = float(str(value))
    except ValueError:
        return ""
    if meta.ge is not None and number < meta.ge:
        return f"; nearest: {meta.ge:g}"
    if meta.le is not None and number > meta.le:
        return f"; nearest: {meta.le:g}"
    return ""


def _near(said: str, names: Any) -> str:
    found = difflib.get_close_matches(said, names, n=1, cutoff=0.3)
    return f"; nearest: {found[0]}" if found else ""
