"""Streaming chat with GPROChat sites under structured concurrency, on asyncio and Trio."""

from ._client import Client as Client
from ._errors import AuthenticationError as AuthenticationError
from ._errors import EmptyReplyError as EmptyReplyError
from ._errors import GPROChatError as GPROChatError
from ._errors import InvalidPromptError as InvalidPromptError
from ._errors import RateLimitError as RateLimitError
from ._errors import ReplyInterruptedError as ReplyInterruptedError
from ._errors import RequestTimeoutError as RequestTimeoutError
from ._errors import SiteConnectionError as SiteConnectionError
from ._errors import SiteError as SiteError
from ._errors import UnexpectedResponseError as UnexpectedResponseError
from ._messages import Message as Message
from ._messages import format_prompt as format_prompt
from ._provider import GPROChat as GPROChat
from ._reply import Reply as Reply
from ._reply import Timing as Timing
from ._retry import Retry as Retry
from ._stream import ReplyStream as ReplyStream
from ._timeouts import Timeouts as Timeouts
from ._version import __version__ as __version__
