"""Keep secrets and prompts out of reprs, tracebacks and exception chains."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


class Hidden(bytes):
    """Bytes with secrets. The `repr` hides them from tracebacks that show local variables."""

    def __repr__(self) -> str:
        return f"<{len(self)} bytes of a request>"


class HiddenText(str):
    """Text with a secret, such as a header field with a key. The `repr` hides it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<{len(self)} characters>"


def hide_arguments(function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """Decorate a function that takes secrets, to keep its arguments out of tracebacks.

    Errors about the arguments leave without a traceback, an exception chain or a frame that holds
    them: tracebacks with local variables would show the secrets.
    """

    @wraps(function)
    def forgetting(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        try:
            return function(*args, **kwargs)
        except (TypeError, ValueError, Warning) as error:
            del args, kwargs
            error.__cause__ = error.__context__ = None
            raise error.with_traceback(None)  # noqa: B904 - re-raised

    return forgetting


def strip_traceback(error: Exception) -> Exception:
    """Remove an error's traceback and chain, which may hold a prompt or a secret. Return it."""
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)
