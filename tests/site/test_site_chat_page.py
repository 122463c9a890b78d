"""The chat page's files, and requests that need no signature."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.site_wire import signed

import gprochat_anyio.site
from gprochat_anyio.site import create_app, echo_model
from gprochat_anyio.site._chat_page import COOKIE

SITE = "http://127.0.0.1"
OWN = {"origin": SITE, "sec-fetch-site": "same-origin"}
FILES = sorted(Path(gprochat_anyio.site.__file__).parent.joinpath("page").iterdir())
UNSIGNED = signed("hello", sign=None)

make_app = partial(create_app, echo_model, secret_key="the secret key")


def visiting(app: Any, base_url: str = SITE) -> httpx.AsyncClient:
    """Return an HTTP client with a browser's cookies."""
    transport = httpx.ASGITransport(app)
    return httpx.AsyncClient(transport=transport, base_url=base_url, trust_env=False, verify=False)  # noqa: S501 - no TLS here, and creating a context is slow


@pytest.fixture
async def visitor() -> AsyncIterator[httpx.AsyncClient]:
    async with visiting(make_app()) as visitor:
        assert (await visitor.get("/")).status_code == 200
        yield visitor


async def test_the_content_security_policy_allows_only_the_page_s_files(
    visitor: httpx.AsyncClient,
) -> None:
    for path in ["/", *(f"/page/{file.name}" for file in FILES if file.suffix != ".html")]:
        headers = (await visitor.get(path)).headers
        policy = dict(
            rule.strip().split(" ", 1) for rule in headers["content-security-policy"].split(";")
        )
        assert policy == {
            "default-src": "'none'",
            "script-src": "'self'",
            "style-src": "'self'",
            "connect-src": "'self'",
            "img-src": "'self' data:",
            "base-uri": "'none'",
            "form-action": "'none'",
            "frame-ancestors": "'none'",
            "require-trusted-types-for": "'script'",
            "trusted-types": "'none'",
        }
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cross-origin-resource-policy"] == "same-origin"


async def test_files_have_a_type_and_an_etag(visitor: httpx.AsyncClient) -> None:
    for file in FILES:
        path = "/" if file.name == "index.html" else f"/page/{file.name}"
        response = await visitor.get(path)
        assert response.content == file.read_bytes()
        assert (
            response.headers["content-type"]
            == {
                ".html": "text/html; charset=utf-8",
                ".css": "text/css; charset=utf-8",
                ".js": "text/javascript; charset=utf-8",
                ".svg": "image/svg+xml",
            }[file.suffix]
        )
        again = await visitor.get(path, headers={"if-none-match": response.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        other = await visitor.get(path, headers={"if-none-match": '"another"'})
        assert (other.status_code, other.content) == (200, response.content)
        assert (await visitor.head(path)).content == b""


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        ({"model_name": "a/model"}, "a/model"),
        ({"model_name": '"><script>\n\ud800'}, "&quot;&gt;&lt;script&gt;\n?"),
        ({"model_name": "a/model", "passwords": ["a password"]}, ""),
        ({}, ""),
    ],
)
async def test_the_page_names_the_model_of_an_open_site(
    options: dict[str, Any], shown: str
) -> None:
    async with visiting(make_app()) as unnamed, visiting(make_app(**options)) as visitor:
        page, other = await visitor.get("/"), await unnamed.get("/")
    assert f'<meta name="model" content="{shown}">' in page.text
    assert (page.headers["etag"] == other.headers["etag"]) == (shown == "")


@pytest.mark.parametrize("path", ["/page/", "/page/index.html", "/page/../_app.py", "/index.html"])
async def test_other_paths_are_not_served(path: str, visitor: httpx.AsyncClient) -> None:
    assert (await visitor.get(path)).status_code == 404


def test_the_files_have_no_inline_script_or_style_and_no_foreign_address() -> None:
    sources = {file.name: file.read_text(encoding="utf-8") for file in FILES}
    index = sources["index.html"]
    assert re.findall(r"<script[^>]*>", index) == ['<script type="module" src="page/main.js">']
    assert not re.search(r"(?i)<style|\bstyle=|\bon\w+=|javascript:", index)
    for name, source in sources.items():
        addresses = set(re.findall(r"(?:https?:)?//[\w.-]+\.\w+", source))
        assert addresses <= {"http://www.w3.org"}, name  # SVG's namespace
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", source
        )


def test_scripts_are_short() -> None:
    long = {f.name for f in FILES if f.suffix == ".js" and len(f.read_bytes().splitlines()) > 250}
    assert not long


async def test_the_page_s_own_requests_need_no_signature(visitor: httpx.AsyncClient) -> None:
    response = await visitor.post("/api/generate", content=UNSIGNED, headers=OWN)
    assert (response.status_code, response.text) == (200, "hello")
    old_browser = await visitor.post("/api/generate", content=UNSIGNED, headers={"origin": SITE})
    assert old_browser.status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"sec-fetch-site": "same-origin"},
        {"origin": "null"},
        {"origin": ""},
        {"origin": "http://127.0.0.1:81"},
        {"origin": "http://other.test"},
        {"origin": "http://127.0.0.1.evil.test"},
        {"origin": "127.0.0.1"},
        {"origin": SITE, "sec-fetch-site": "none"},
    ],
)
async def test_other_requests_with_the_cookie_need_a_signature(
    headers: dict[str, str], visitor: httpx.AsyncClient
) -> None:
    response = await visitor.post("/api/generate", content=UNSIGNED, headers=headers)
    assert response.status_code in (401, 403)  # no signature, or another origin


@pytest.mark.parametrize("cookie", [None, "", "0" * 64, "é"])
async def test_requests_without_the_cookie_need_a_signature(cookie: str | None) -> None:
    headers = OWN if cookie is None else {**OWN, "cookie": f"{COOKIE}={cookie}"}
    async with visiting(make_app()) as visitor:
        response = await visitor.post(
            "/api/generate",
            content=UNSIGNED,
            headers={name.encode(): value.encode() for name, value in headers.items()},
        )
    assert response.status_code == 401


async def test_the_cookie_is_private_and_does_not_reveal_the_key() -> None:
    async with visiting(make_app()) as visitor:
        plain = (await visitor.get("/")).headers["set-cookie"]
    assert re.fullmatch(rf"{COOKIE}=[0-9a-f]{{64}}; HttpOnly; Path=/; SameSite=strict", plain)
    async with visiting(make_app(), "https://127.0.0.1") as visitor:
        secure = (await visitor.get("/")).headers["set-cookie"]
    assert secure == f"{plain}; Secure"
    async with visiting(create_app(secret_key="another key")) as visitor:
        assert (await visitor.get("/")).headers["set-cookie"] != plain


async def test_the_cookie_is_valid_in_every_process_of_a_site(visitor: httpx.AsyncClient) -> None:
    async with visiting(make_app()) as other:
        other.cookies = visitor.cookies
        assert (await other.post("/api/generate", content=UNSIGNED, headers=OWN)).text == "hello"


async def test_the_page_needs_the_password() -> None:
    async with visiting(make_app(passwords=["a password"])) as visitor:
        await visitor.get("/")
        ask = partial(visitor.post, "/api/generate", headers=OWN)
        assert (await ask(content=UNSIGNED)).json() == {"error": {"message": "Invalid password."}}
        right = signed("hello", sign=None, pass_="a password")
        assert (await ask(content=right)).text == "hello"


async def test_a_site_without_a_page(visitor: httpx.AsyncClient) -> None:
    async with visiting(make_app(page=False)) as other:
        for path in ("/", "/page/main.js"):
            assert (await other.get(path)).status_code == 404
        other.cookies = visitor.cookies
        response = await other.post("/api/generate", content=UNSIGNED, headers=OWN)
        assert response.status_code == 401
