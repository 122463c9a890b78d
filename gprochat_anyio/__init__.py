"""Streaming chat under structured concurrency, on asyncio and Trio: GPROChat, OpenAI's API, Gemini.

Importing the package imports nothing else. Each name is imported when it is first used.
"""

from importlib import import_module

from ._version import __version__ as __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ._client import Client as Client
    from ._conversation.conversation import Conversation as Conversation
    from ._errors import AuthenticationError as AuthenticationError
    from ._errors import EmptyReplyError as EmptyReplyError
    from ._errors import GPROChatError as GPROChatError
    from ._errors import InsecureSiteWarning as InsecureSiteWarning
    from ._errors import InvalidPromptError as InvalidPromptError
    from ._errors import RateLimitError as RateLimitError
    from ._errors import ReplyInterruptedError as ReplyInterruptedError
    from ._errors import RequestTimeoutError as RequestTimeoutError
    from ._errors import SiteConnectionError as SiteConnectionError
    from ._errors import SiteError as SiteError
    from ._errors import UnexpectedResponseError as UnexpectedResponseError
    from ._fanout.fan_out import as_completed as as_completed
    from ._fanout.fan_out import fan_out as fan_out
    from ._fanout.fan_out import gather as gather
    from ._fanout.outcomes import Chunk as Chunk
    from ._fanout.outcomes import Failed as Failed
    from ._fanout.outcomes import Finished as Finished
    from ._fanout.outcomes import Outcome as Outcome
    from ._fanout.race import race as race
    from ._fleet.fleet import Fleet as Fleet
    from ._fleet.member import EndpointState as EndpointState
    from ._g4f_provider import GPROChat as GPROChat
    from ._request.limiter import Limiter as Limiter
    from ._request.limiter import LimiterStatistics as LimiterStatistics
    from ._request.reply import Reply as Reply
    from ._request.reply import Timing as Timing
    from ._request.stream import ReplyStream as ReplyStream
    from ._settings import Retry as Retry
    from ._settings import Timeouts as Timeouts
    from ._sync.sync_client import SyncClient as SyncClient
    from ._sync.sync_conversation import SyncConversation as SyncConversation
    from ._sync.sync_stream import SyncReplyStream as SyncReplyStream
    from ._wire.messages import Message as Message
    from ._wire.messages import format_prompt as format_prompt
    from ._wire.usage import Usage as Usage

_NAMES = {
    "_client": "Client",
    "_conversation.conversation": "Conversation",
    "_errors": "AuthenticationError EmptyReplyError GPROChatError InsecureSiteWarning "
    "InvalidPromptError RateLimitError ReplyInterruptedError RequestTimeoutError "
    "SiteConnectionError SiteError UnexpectedResponseError",
    "_fanout.fan_out": "as_completed fan_out gather",
    "_fanout.outcomes": "Chunk Failed Finished Outcome",
    "_fanout.race": "race",
    "_fleet.fleet": "Fleet",
    "_fleet.member": "EndpointState",
    "_g4f_provider": "GPROChat",
    "_request.limiter": "Limiter LimiterStatistics",
    "_request.reply": "Reply Timing",
    "_request.stream": "ReplyStream",
    "_settings": "Retry Timeouts",
    "_sync.sync_client": "SyncClient",
    "_sync.sync_conversation": "SyncConversation",
    "_sync.sync_stream": "SyncReplyStream",
    "_wire.messages": "Message format_prompt",
    "_wire.usage": "Usage",
}
_MODULES = {name: module for module, names in _NAMES.items() for name in names.split()}

__all__ = ["__version__", *_MODULES]  # noqa: PLE0604 # pyright: ignore[reportUnsupportedDunderAll]


if not TYPE_CHECKING:  # pragma: no branch - type checkers would accept any name

    def __getattr__(name: str) -> object:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(f".{_MODULES[name]}", __name__), name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
