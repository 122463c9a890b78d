"""Messages and prompts, validated, and the histories made from them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import Any, Literal, Self, TypeVar

from gprochat_anyio._errors import InvalidPromptError

_P = TypeVar("_P")
_T = TypeVar("_T")

_ROLES = {
    "user": "user",
    "assistant": "model",
    "model": "model",
    "system": "system",
    "developer": "system",
}


@dataclass(frozen=True, slots=True, repr=False)
class Message:
    """One message of a conversation. Its `repr` hides the text, to keep prompts out of logs.

    :param role: `"user"`; `"assistant"` or `"model"`; `"system"` or `"developer"`.
    :param content: The text.
    :raises InvalidPromptError: If the role is unknown, or the text is blank or not valid Unicode.
    """

    role: str
    content: str

    def __post_init__(self) -> None:
        if not isinstance(self.role, str) or self.role not in _ROLES:
            known = ", ".join(map(repr, _ROLES))
            raise InvalidPromptError(f"a message has an unknown role; use one of {known}")
        object.__setattr__(self, "content", _text_of(self.content))

    def __repr__(self) -> str:
        return f"Message(role={self.role!r}, {len(self.content)} characters)"

    @property
    def wire_role(self) -> Literal["user", "model", "system"]:
        """The role's name on the GPROChat wire, which has no `"system"`: see `folded`."""
        return _ROLES[self.role]  # type: ignore[return-value]


Prompt = str | Message | Sequence[Message | Mapping[str, Any]]
"""A prompt: the user's text, one message, or a history whose last message is the user's."""


class FieldedPrompt(tuple[Message, ...]):  # noqa: SLOT001 - subclasses of tuple cannot have slots
    """A history with additional fields for the body of its request, if the API supports them.

    :param fields: Fields as of `Client.openai`, which they override.
    """

    fields: Mapping[str, Any]

    def __new__(cls, messages: Iterable[Message], fields: Mapping[str, Any]) -> Self:
        made = super().__new__(cls, messages)
        made.fields = fields
        return made


def history(prompt: Prompt) -> tuple[Message, ...]:
    """Return a prompt as a history that every API accepts.

    The messages of user and model alternate, and the last is the user's. One message with all
    system texts comes first, if there are any. Consecutive messages of one role are joined by a
    blank line: models reject them, and a GPROChat site's own page drops all but the last.

    :raises InvalidPromptError: If an API would reject the prompt, or reply without text.
    """
    if isinstance(prompt, str):
        return (Message("user", prompt),)
    messages = _messages(prompt)
    system = "\n\n".join(m.content for m in messages if m.wire_role == "system")
    turns = [m for m in messages if m.wire_role != "system"]
    if not turns:
        raise InvalidPromptError("the prompt has no user message; add one")
    if turns[-1].wire_role != "user":
        raise InvalidPromptError("the last message must be the user's; append the question to ask")
    merged = [
        Message(role, "\n\n".join(m.content for m in run))
        for role, run in groupby(turns, key=attrgetter("wire_role"))
    ]
    return (Message("system", system), *merged) if system else tuple(merged)


def folded(messages: Sequence[Message]) -> Sequence[Message]:
    """Fold the system message into the user's first message.

    :param messages: A history, as `history` returns it.
    """
    if messages[0].wire_role != "system":
        return messages
    system, *rest = messages
    first = next(i for i, m in enumerate(rest) if m.wire_role == "user")
    rest[first] = Message("user", f"{system.content}\n\n{rest[first].content}")
    return rest


def refused_fields(fields: Mapping[str, Any]) -> InvalidPromptError:
    """Return the error for a prompt with fields, in an API that does not support them."""
    names = ", ".join(sorted(fields))
    return InvalidPromptError(
        f"only OpenAI's API supports fields of a single prompt; remove {names} from its body"
    )


def checked(make: Callable[[_P], _T], prompt: _P) -> _T | InvalidPromptError:
    """Call `make` with a prompt. Return its result, or the error for the caller to raise.

    The frames of a traceback keep their local variables, and error reports show them. The caller
    therefore raises the error from a frame that does not hold the prompt.
    """
    try:
        return make(prompt)
    except InvalidPromptError as error:
        error.__context__ = None
        return error.with_traceback(None)


def flattened(messages: Iterable[Message | Mapping[str, Any]]) -> Message:
    """Flatten a history into one user message.

    :raises InvalidPromptError: If there is no text, or it is not valid Unicode.
    """
    return Message("user", format_prompt(messages))


def format_prompt(messages: Iterable[Message | Mapping[str, Any]]) -> str:
    """Flatten a history into one text, as the original provider does.

    A single message gives its content unchanged. Several messages give a line `Role: content` for
    each that is not blank, and a last line `Assistant:`.

    :raises InvalidPromptError: If there is no text.
    """
    pairs = [(m.role, m.content) if isinstance(m, Message) else _pair(m) for m in messages]
    spoken = [(role, content) for role, content in pairs if content.strip()]
    if not spoken:
        raise InvalidPromptError("the prompt has no text; give at least one message with text")
    if len(pairs) == 1:
        return pairs[0][1]
    lines = [f"{role.capitalize()}: {content}" for role, content in spoken]
    return "\n".join([*lines, "Assistant:"])


def _messages(prompt: Message | Sequence[Message | Mapping[str, Any]]) -> tuple[Message, ...]:
    if isinstance(prompt, Message):
        return (prompt,)
    if isinstance(prompt, Mapping) or not isinstance(prompt, Iterable):
        raise InvalidPromptError(
            "a prompt must be a str, a Message or a sequence of messages, not "
            f"{type(prompt).__name__}"
        )
    return tuple(m if isinstance(m, Message) else Message(*_pair(m)) for m in prompt)


def _pair(message: object) -> tuple[str, str]:
    if not isinstance(message, Mapping) or not {"role", "content"} <= message.keys():
        raise InvalidPromptError('a message must be a Message or {"role": ..., "content": ...}')
    role = message["role"]
    if not isinstance(role, str):
        raise InvalidPromptError(f"a message's role must be a str, not {type(role).__name__}")
    return role, _joined(message["content"])


def _joined(content: object) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, Sequence) or isinstance(content, bytes | bytearray):
        raise InvalidPromptError(
            "a message's content must be a str or a list of text parts, not "
            f"{type(content).__name__}"
        )
    texts = []
    for part in content:
        text = part.get("text") if isinstance(part, Mapping) else None
        if not isinstance(text, str) or part.get("type", "text") != "text":
            raise InvalidPromptError(
                'a part of a message\'s content must be {"type": "text", "text": ...}; '
                "other parts are not supported"
            )
        texts.append(text)
    return "".join(texts)


def _text_of(content: object) -> str:
    text = _joined(content)
    if not text or text.isspace():
        raise InvalidPromptError(
            "a message is blank, which gets an empty reply; give it text, or leave it out"
        )
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            place = error.start
        else:
            return text
        raise InvalidPromptError(
            f"a message has a lone surrogate at character {place}, which is not valid text; "
            "decode its source with errors='replace'"
        )
    return text
