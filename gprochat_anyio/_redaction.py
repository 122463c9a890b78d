"""Keep secrets and prompts out of reprs, tracebacks and exception chains."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


class Hidden(bytes):
    """Holds secrets, which no traceback with locals is to show: a cancellation has one."""

    def __repr__(self) -> str:
        return f"<{len(self)} bytes of a request>"


class HiddenText(str):
    """A text with a secret, such as a header field with a key, which no repr is to show."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<{len(self)} characters>"


def hide_arguments(function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
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


def strip_traceback(error: Exception) -> Exception:
    """The error without a trace of what it was made from: that may hold a prompt or a secret."""
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)
