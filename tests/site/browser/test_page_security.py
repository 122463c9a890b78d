"""Text never becomes markup, and other origins are refused."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from anyio.from_thread import BlockingPortal
from support.browsing import Browser, ChatTab, PuppetModel, expect, site_of, tab_of

from gprochat_anyio.site import echo_model

pytestmark = pytest.mark.slow

RUN = "document.title='run'"
PAYLOADS = [
    f"<script>{RUN}</script>",
    f"<img src=x onerror={RUN}>",
    f"<svg onload={RUN}>",
    f"<svg><script>{RUN}</script></svg>",
    f"<svg><animate onbegin={RUN} attributeName=x dur=1s>",
    f"<iframe srcdoc='<script>parent.{RUN}</script>'></iframe>",
    f"<iframe src=javascript:parent.{RUN}></iframe>",
    f"<body onload={RUN}>",
    f"<details open ontoggle={RUN}>",
    f"<input autofocus onfocus={RUN}>",
    f"<video><source onerror={RUN}></video>",
    f"<audio src=x onerror={RUN}>",
    f"<object data=javascript:{RUN}>",
    f"<embed src=javascript:{RUN}>",
    f"<math><mtext><script>{RUN}</script></mtext></math>",
    f"<marquee onstart={RUN}>",
    f"<form><button formaction=javascript:{RUN}>X</button></form>",
    f"<base href=javascript:{RUN}//>",
    "<meta http-equiv=refresh content='0;url=http://evil.test/'>",
    "<link rel=stylesheet href=http://evil.test/x.css>",
    "<style>@import 'http://evil.test/x.css';</style>",
    f"<template><script>{RUN}</script></template>",
    f"</textarea><script>{RUN}</script>",
    f"</title></div><script>{RUN}</script>",
    f"<!--><script>{RUN}</script>-->",
    f"<![CDATA[<script>{RUN}</script>]]>",
    f"&lt;script&gt;{RUN}&lt;/script&gt;",
    f"[a](javascript:{RUN})",
    f"[a](JaVaScRiPt:{RUN})",
    f"[a](java\tscript:{RUN})",
    f"[a](&#106;avascript:{RUN})",
    f"[a](\x01javascript:{RUN})",
    f"[a](vbscript:{RUN})",
    f"[a](data:text/html,<script>{RUN}</script>)",
    "[a](blob:http://127.0.0.1/x)",
    "[a](file:///etc/passwd)",
    "[a](//evil.test/x)",
    "[a](/api/generate)",
    f"<javascript:{RUN}>",
    f"![a](javascript:{RUN})",
    "![a](http://evil.test/x.png)",
    f'[a](http://evil.test/"onmouseover={RUN}//)',
    f'[a](http://evil.test/ "x" onmouseover={RUN}")',
    f"http://evil.test/\"onmouseover='{RUN}'",
    f"[<img src=x onerror={RUN}>](http://evil.test)",
    f"**<b onmouseover={RUN}>**x",
    f"`<img src=x onerror={RUN}>`",
    f"```<img src=x onerror={RUN}>\n<script>{RUN}</script>\n```",
    f'```"onclick="{RUN}\nx\n```',
    f"| <script>{RUN}</script> | b |\n|---|---|\n| <img src=x onerror={RUN}> | c |",
    f"> <script>{RUN}</script>\n> - <svg onload={RUN}>",
    f"# <img src=x onerror={RUN}>",
    f"1. <iframe onload={RUN}>\n   <script>{RUN}</script>",
    "{{constructor.constructor('document.title=1')()}}",
    "\u202e<script>\u2028document.title='run'</script>",
]
FORMATTING = {
    *("A", "BLOCKQUOTE", "BR", "BUTTON", "CODE", "DEL", "DIV", "EM", "H3", "HR", "LI", "OL", "P"),
    *("PRE", "SPAN", "STRONG", "TABLE", "TBODY", "TD", "TH", "THEAD", "TR", "UL"),
}
ATTRIBUTES = {"aria-label", "class", "href", "rel", "role", "start", "tabindex", "target", "type"}


def check(tab: ChatTab, *, replies: int) -> None:
    """Assert that nothing ran, and that replies only have Markdown's elements."""
    expect(tab.replies).to_have_count(replies)
    tags, attributes, links = tab.page.evaluate(
        """() => {
            const nodes = [...document.querySelectorAll(".turn .question-text *, .reply-text *")];
            return [
                nodes.map((node) => node.tagName),
                nodes.flatMap((node) => node.getAttributeNames()),
                nodes.filter((node) => node.href).map((node) => [node.protocol, node.rel]),
            ];
        }"""
    )
    assert set(tags) <= FORMATTING
    assert set(attributes) <= ATTRIBUTES
    assert all(link == ["http:", "noopener noreferrer"] for link in links)
    assert tab.page.locator(".question-text *").count() == 0
    assert tab.page.title() == "gprochat"


def test_there_are_enough_payloads() -> None:
    assert len(set(PAYLOADS)) >= 40


def test_prompts_and_replies_are_text(tab: ChatTab, model: PuppetModel, site: str) -> None:
    for number, payload in enumerate(PAYLOADS, 1):
        tab.field.evaluate("(field, text) => { field.value = text; }", payload)
        tab.field.press("Enter")
        # In pieces, so that incomplete markup is rendered as well.
        model.say("before ", payload[: len(payload) // 2])
        model.end(payload[len(payload) // 2 :], "\n\n", payload)
        tab.settled()
        expect(tab.questions).to_have_count(number)
    check(tab, replies=len(PAYLOADS))
    for link in tab.page.locator(".reply-text a").all()[:5]:
        link.hover()
    tab.page.reload()
    check(tab, replies=len(PAYLOADS))
    assert all(request.startswith(f"{site}/") for request in tab.requests)


def test_files_and_errors_are_text(tab: ChatTab, model: PuppetModel, site: str) -> None:
    turns = [{"question": p, "reply": p, "state": "done"} for p in PAYLOADS]
    tab.store({"id": "a", "title": PAYLOADS[0], "updated": 1, "turns": turns})
    check(tab, replies=len(PAYLOADS))
    expect(tab.page.locator("#title")).to_have_text(PAYLOADS[0])
    tab.import_file(f"{PAYLOADS[1]}.json", '[{"role": 1}]')
    expect(tab.page.locator("#notice")).to_contain_text("Message 1")
    tab.page.locator("#scroller").evaluate("node => { node.scrollTop = 0; }")
    check(tab, replies=len(PAYLOADS))
    assert all(request.startswith(f"{site}/") for request in tab.requests)


def test_the_policy_blocks_scripts_and_markup(tab: ChatTab) -> None:
    refused = tab.page.evaluate(
        """() => {
            const script = document.createElement("script");
            script.append("document.title = 'run'");
            try { document.body.append(script); } catch {}
            try { document.body.innerHTML = "<b>markup</b>"; } catch (error) { return error.name; }
        }"""
    )
    assert refused == "TypeError"
    check(tab, replies=0)


ATTACK = """async (url) => {
    const body = JSON.stringify({
        messages: [{ role: "user", parts: [{ text: "an attack" }] }], time: 1, sign: SIGN });
    const results = [];
    for (const mode of ["cors", "no-cors"])
        for (const path of ["/api/generate", "/v1/chat/completions"])
            results.push(
                await fetch(url + path, { method: "POST", mode, body, credentials: "include" })
                    .then((response) => response.text(), (error) => error.name));
    return results;
}""".replace("SIGN", '"' + "0" * 64 + '"')


@contextmanager
def foreign_page() -> Iterator[int]:
    """Serve a foreign page on every name of this machine."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<title>foreign</title><iframe></iframe>")

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("host", ["127.0.0.1", "evil.test"])
def test_a_page_of_another_origin_is_refused(
    host: str, tab: ChatTab, model: PuppetModel, site: str
) -> None:
    assert tab.page.context.cookies(site)
    with foreign_page() as port:
        other = tab.page.context.new_page()
        other.goto(f"http://{host}:{port}/")
        results = other.evaluate(ATTACK, site)
        assert set(results) <= {"TypeError", ""}
        # A foreign page cannot frame the site either, which prevents clickjacking.
        other.locator("iframe").evaluate("(frame, url) => { frame.src = url; }", f"{site}/")
        expect(other.frame_locator("iframe").locator("#composer")).to_have_count(0)
        other.close()
    assert model.asked == []


@pytest.mark.parametrize("page", [False, True])
def test_a_rebound_host_is_refused(page: bool, browser: Browser, portal: BlockingPortal) -> None:
    with site_of(portal, echo_model, secret_key="the secret key", page=page) as url:
        rebound = f"http://rebound.test:{url.rpartition(':')[2]}"
        with tab_of(browser, f"{rebound}/") as tab:
            results = tab.page.evaluate(ATTACK, rebound)
    assert not any("an attack" in result for result in results)
