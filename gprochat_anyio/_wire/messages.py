"""What counts as a prompt, and the history it becomes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import Any, Literal, TypeVar

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
    """One turn of a conversation.

    :param role: `"user"`, `"assistant"` or `"model"`, `"system"` or `"developer"`
    :param content: the text. Its `repr` never shows it, so that prompts stay out of logs.
    :raises InvalidPromptError: for another role, a blank text, or one that is no Unicode text
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
        """The role in a GPROChat site's terms, which has no `"system"`: see `folded`."""
        return _ROLES[self.role]  # type: ignore[return-value]


Prompt = str | Message | Sequence[Message | Mapping[str, Any]]
"""A user's text, one message, or a history whose last message is the user's."""


def history(prompt: Prompt) -> tuple[Message, ...]:
    """Return a prompt as the history that every API accepts: it alternates, and ends with the user.

    Before that comes one message with all system texts, if there are any. Neighbours of one role
    are joined, with a blank line between: models refuse them, and a GPROChat site's own page drops
    all but the last.

    :raises InvalidPromptError: For what an API would refuse or answer with nothing.
    """
    if isinstance(prompt, str):
        return (Message("user", prompt),)
    messages = _messages(prompt)
    system = "\n\n".join(m.content for m in messages if m.wire_role == "system")
    turns = [m for m in messages if m.wire_role != "system"]
    if not turns:
        raise InvalidPromptError("the prompt has no message of the user; add one")
    if turns[-1].wire_role != "user":
        raise InvalidPromptError("the last message must be the user's; append the question to ask")
    merged = [
        Message(role, "\n\n".join(m.content for m in run))
        for role, run in groupby(turns, key=attrgetter("wire_role"))
    ]
    return (Message("system", system), *merged) if system else tuple(merged)


def folded(messages: Sequence[Message]) -> Sequence[Message]:
    """Return a history without a system message: its text is put before the user's first.

    :param messages: as `history` returns them
    """
    if messages[0].wire_role != "system":
        return messages
    system, *rest = messages
    first = next(i for i, m in enumerate(rest) if m.wire_role == "user")
    rest[first] = Message("user", f"{system.content}\n\n{rest[first].content}")
    return rest


def checked(make: Callable[[_P], _T], prompt: _P) -> _T | InvalidPromptError:
    """What is made of a prompt, or why it is refused, to be raised where nothing holds the prompt.

    The frames that an exception passes keep their locals, and error reports show them.
    """
    try:
        return make(prompt)
    except InvalidPromptError as error:
        error.__context__ = None
        return error.with_traceback(None)


def flattened(messages: Iterable[Message | Mapping[str, Any]]) -> Message:
    """A history as one message of the user's.

    :raises InvalidPromptError: when there is no text at all, or it is no Unicode text
    """
    return Message("user", format_prompt(messages))


def format_prompt(messages: Iterable[Message | Mapping[str, Any]]) -> str:
    """Flatten a history into one text, as the original provider did.

    One message gives its content unchanged. Several give a line `Role: content` for each that
    is not blank, then a last line `Assistant:`.

    :raises InvalidPromptError: when there is no text at all
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
            f"a prompt is a str, a Message or a sequence of messages, not {type(prompt).__name__}"
        )
    return tuple(m if isinstance(m, Message) else Message(*_pair(m)) for m in prompt)


def _pair(message: object) -> tuple[str, str]:
    if not isinstance(message, Mapping) or not {"role", "content"} <= message.keys():
        raise InvalidPromptError('a message is a Message or {"role": ..., "content": ...}')
    role = message["role"]
    if not isinstance(role, str):
        raise InvalidPromptError(f"a message's role is a str, not {type(role).__name__}")
    return role, _joined(message["content"])


def _joined(content: object) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, Sequence) or isinstance(content, bytes | bytearray):
        raise InvalidPromptError(
            f"a message's content is a str or a list of text parts, not {type(content).__name__}"
        )
    texts = []
    for part in content:
        text = part.get("text") if isinstance(part, Mapping) else None
        if not isinstance(text, str) or part.get("type", "text") != "text":
            raise InvalidPromptError(
                'a part of a message\'s content is {"type": "text", "text": ...}; '
                "a GPROChat site takes nothing else"
            )
        texts.append(text)
    return "".join(texts)


def _text_of(content: object) -> str:
    text = _joined(content)
    if not text or text.isspace():
        raise InvalidPromptError("a message is blank; a site answers it with nothing: leave it out")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            place = error.start
        else:
            return text
        raise InvalidPromptError(
            f"a message holds half a surrogate pair at character {place}, which is no text; "
            "decode its source with errors='replace'"
        )
    return text
