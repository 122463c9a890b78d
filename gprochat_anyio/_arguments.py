"""What callers give, and errors about it that say which argument is wrong, and no secret."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


def check(argument: str, value: object, *kinds: type) -> None:
    """Make sure of an argument's type; a bool is no int.

    :raises ValueError: that names the argument
    """
    if not isinstance(value, kinds) or isinstance(value, bool):
        names = " or ".join("None" if k is type(None) else k.__name__ for k in kinds)
        raise ValueError(f"{argument} must be {names}, not {type(value).__name__}")


def forgetful(function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """For functions that are given secrets: what they raise about these leaves without a trace of
    them, which tracebacks with locals would show."""

    @wraps(function)
    def forgetting(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        try:
            return function(*args, **kwargs)
        except (TypeError, ValueError, Warning) as error:
            del args, kwargs
            error.__cause__ = error.__context__ = None
            raise error.with_traceback(None)  # noqa: B904 - the same one

    return forgetting
