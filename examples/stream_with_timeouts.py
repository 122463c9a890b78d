"""A reply as it arrives, with timeouts and a handler for each kind of failure."""

import sys

import anyio

from gprochat_anyio import (
    Client,
    GPROChatError,
    RateLimitError,
    ReplyInterruptedError,
    RequestTimeoutError,
    Timeouts,
)


async def main() -> None:
    async with Client.from_env(timeouts=Timeouts(connect=5, idle=10)) as client:
        try:
            async with client.stream("Tell me a story", timeouts=Timeouts(total=30)) as chunks:
                async for chunk in chunks:
                    print(chunk, end="", flush=True)
        except (RequestTimeoutError, ReplyInterruptedError) as error:
            sys.exit(f"\nonly {len(error.partial_text)} characters came: {error}")
        except RateLimitError as error:
            sys.exit(f"try again in {error.retry_after or 60:.0f} s")
        except GPROChatError as error:
            sys.exit(str(error))
        print()


anyio.run(main)
