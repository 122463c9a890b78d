"""`gprochat check`: a site or a model, step by step from the name to the first text."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from socket import SOCK_STREAM
from typing import Any, Final

import anyio
import click
from click.core import ParameterSource

from gprochat_anyio import (
    AuthenticationError,
    Client,
    GPROChatError,
    RequestTimeoutError,
    Retry,
    SiteConnectionError,
    SiteError,
)
from gprochat_anyio._request.address import SiteAddress
from gprochat_anyio.transport._connecting import Opened, connect
from gprochat_anyio.transport._failures import ConnectFailure, reason_of
from gprochat_anyio.transport._target import Target

from ._exit_codes import EXIT_STATUSES, exit_status, say, with_options
from ._model import APIS
from ._options import (
    SECONDS,
    backend_option,
    base_url_option,
    hidden_help_option,
    model_name_option,
    model_option,
    password_option,
    proxy_option,
    secret_key_option,
    site_option,
    url_option,
)
from ._output import Output, PipeClosedError
from ._site import Site
from ._sites import one_site

_QUESTION: Final = "Say hello."
_MISSING: Final = 404  # all paths of a site, where another kind of server is
_HINT: Final = "; if this is a server with OpenAI's API, give --model openai and --base-url"

_EPILOG: Final = f"""\b
Also: --backend asyncio or trio; --timeout-connect SECONDS, for each step;
--timeout-first-chunk SECONDS, from the question to the first text.
{EXIT_STATUSES}"""


@click.command(epilog=_EPILOG, short_help="Find out what is wrong with a site, and what to do.")
@click.argument("place", metavar="[URL]", required=False)
@site_option()
@url_option("The same as URL (or set GPROCHAT_URL).")
@model_option(APIS)
@model_name_option
@base_url_option
@secret_key_option
@password_option
@proxy_option
@click.option("--timeout-connect", type=SECONDS, hidden=True)
@click.option("--timeout-first-chunk", type=SECONDS, hidden=True)
@backend_option
@hidden_help_option
@click.pass_context
def check(ctx: click.Context, /, *, place: str | None, backend: str, **_: Any) -> None:
    """Check the site at URL step by step: its name, TCP, TLS, password and key.

    It asks one short question. The first step that fails says what to do, and
    decides the exit status.
    """
    if place is not None:
        if ctx.params["url"] is not None:
            raise click.UsageError("give URL or --url, not both.")
        ctx.params["url"] = place
        ctx.set_parameter_source("url", ParameterSource.COMMANDLINE)
    site = one_site(ctx)
    if site.embedded:
        raise click.UsageError(
            "there is no site to check: give its URL, or --site with a configured name."
        )
    if site.members:
        names = " and ".join(f"--site {member.label}" for member in site.members)
        raise click.UsageError(f"{site.label} is a fleet: check its sites one by one, {names}.")
    try:
        status = anyio.run(_Check(site).run, backend=backend)
    except PipeClosedError:
        status = 0
    except OSError as error:  # of stdout
        say(error.strerror or str(error))
        status = exit_status(error)
    ctx.exit(status)


class _Check:
    """The check of one site, step by step."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._output = Output()

    async def run(self) -> int:
        """Run the steps until one fails, write their results, and return the exit status."""
        step = "settings"
        try:
            async with self._site.own_client(retry=Retry(attempts=1)) as client:
                address = SiteAddress(client.url, proxy=self._site.proxy)
                self._output.write(f"{address.url}\n")
                for step, do in self._steps(client, address):
                    began = time.perf_counter()
                    said = await do()
                    self._tell("ok", step, f"{said} ({time.perf_counter() - began:.3f} s)")
        except (GPROChatError, ValueError) as error:
            said = with_options(self._site.words_of(error))
            if not self._site.inside and isinstance(error, SiteError) and error.status == _MISSING:
                said = f"{said.removesuffix('.')}{_HINT}"
            self._tell("FAILED", step, said)
            return exit_status(error)
        return 0

    def _tell(self, how: str, step: str, said: str) -> None:
        self._output.line(f"{how:6}  {step:10}  {' '.join(said.split())}", indent=20)

    def _steps(
        self, client: Client, address: SiteAddress
    ) -> list[tuple[str, Callable[[], Awaitable[str]]]]:
        way = _Way(address, client.timeouts.connect)
        steps = [("name", way.look_up), ("TCP", way.connect)]
        if address.target.scheme == "https":
            steps.append(("TLS", way.start_tls))
        asking = _SiteCheck(client, has_password=self._site.password is not None)
        if not self._site.inside:
            steps.append(("password", asking.check_password))
        return [*steps, ("key, text", asking.ask)]


class _Way:
    """The steps of connecting to a site, or to its proxy."""

    def __init__(self, address: SiteAddress, limit: float | None) -> None:
        self._target = address.target
        self._limit = limit
        proxy = self._target.proxy
        self._host, self._port = (
            (self._target.host, self._target.port) if proxy is None else (proxy.host, proxy.port)
        )
        self._whose = "" if proxy is None else "the proxy "

    async def look_up(self) -> str:
        """Look up the host's addresses."""
        try:
            with self._within("no response from the name server"):
                found = await anyio.getaddrinfo(self._host, self._port, type=SOCK_STREAM)
        except RequestTimeoutError:  # which is an OSError, too
            raise
        except (OSError, UnicodeError) as error:
            raise SiteConnectionError(
                f"{self._whose}{self._host} was not found: {reason_of(error)}; check the spelling,"
                " and whether this machine has a network and a name server"
            ) from None
        addresses = sorted({str(entry[4][0]) for entry in found})
        if addresses == [self._host]:
            return f"{self._whose}{self._host} is an address, not a name"
        return f"{self._whose}{self._host} is {', '.join(addresses)}"

    async def connect(self) -> str:
        """Connect, and close the connection."""
        target = Target("http", self._host, self._port)
        (await self._connected(target, "connection")).socket.close()
        return f"{self._whose}{self._host} accepts connections on port {self._port}"

    async def start_tls(self) -> str:
        """Connect, through the proxy if there is one, and verify the certificate."""
        opened = await self._connected(self._target, "TLS handshake")
        opened.socket.close()
        tls = opened.layers[-1].ssl_object
        until = (tls.getpeercert() or {}).get("notAfter")
        return f"{tls.version()}, with a valid certificate until {until}"

    async def _connected(self, target: Target, what: str) -> Opened:
        try:
            with self._within(f"no {what}"):
                return await connect(target, ssl_context=None, uds=None)
        except ConnectFailure as error:
            advice = (
                f"check the URL of {self._whose.strip() or 'the site'},"
                " and whether it is up and no firewall is in between"
            )
            if "WRONG_VERSION_NUMBER" in str(error):
                advice = "nothing speaks TLS there; check the port, or try http://"
            elif target.scheme == "https":
                advice = "check the URL; for an authority of your own, set SSL_CERT_FILE"
            raise SiteConnectionError(f"{error}; {advice}") from None

    @contextmanager
    def _within(self, what: str) -> Iterator[None]:
        limit = self._limit
        try:
            with anyio.fail_after(limit):
                yield
        except TimeoutError:
            raise RequestTimeoutError(
                f"{what} within {limit:g} s; check the network, or give --timeout-connect more",
                phase="connect",
                limit=limit or 0.0,
            ) from None


class _SiteCheck:
    """The steps that send requests to the site."""

    def __init__(self, client: Client, *, has_password: bool) -> None:
        self._client = client
        self._has_password = has_password

    async def check_password(self) -> str:
        """Check the password."""
        if await self._client.check_password():
            return "the site accepts it" if self._has_password else "the site requires none"
        raise AuthenticationError(
            "the site refuses it; set password (GPROCHAT_PASSWORD) to the site's own"
            if self._has_password
            else "the site requires one; set password (GPROCHAT_PASSWORD) to it"
        )

    async def ask(self) -> str:
        """Check the secret key, and measure the time to the first text."""
        async with self._client.stream(_QUESTION) as chunks:
            wait = chunks.timing.first_chunk
        if self._client.model is not None:
            return f"first text of {self._client.model} after {wait:.3f} s"
        return f"the site accepts the key; first text after {wait:.3f} s"
