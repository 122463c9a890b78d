"""Markdown as elements: the same result at once and in pieces."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from support.browsing import Browser, ChatTab, PuppetModel, expect, tab_of

pytestmark = pytest.mark.slow

RENDER = """async (texts) => {
    const { MarkdownView } = await import(new URL("page/markdown.js", location.href));
    const root = document.createElement("div");
    document.body.append(root);
    const view = new MarkdownView(root);
    for (const text of texts) {
        view.push(text);
        await new Promise(requestAnimationFrame);
    }
    await view.end();
    root.remove();
    for (const part of root.querySelectorAll(".part")) part.replaceWith(...part.childNodes);
    for (const bar of root.querySelectorAll(".code-bar button")) bar.remove();
    for (const node of root.querySelectorAll("[class], [rel], [role], [tabindex]"))
        for (const name of ["class", "rel", "role", "tabindex", "target", "aria-label"])
            node.removeAttribute(name);
    return root.innerHTML;
}"""


def code(text: str, language: str = "") -> str:
    part = f"<span>{text}</span>" if text else ""
    return f"<div><div><span>{language}</span></div><pre><code>{part}</code></pre></div>"


CASES = {
    "": "",
    "a\nb": "<p>a<br>b</p>",
    "a\r\nb\r\n\r\nc": "<p>a<br>b</p><p>c</p>",
    "# a #\n## b\n####### c": "<h3>a</h3><h4>b</h4><p>####### c</p>",
    "#a": "<p>#a</p>",
    "a\n***\nb": "<p>a</p><hr><p>b</p>",
    "*a* _b_ **c** __d__ ***e*** ~~f~~": (
        "<p><em>a</em> <em>b</em> <strong>c</strong> <strong>d</strong> "
        "<em><strong>e</strong></em> <del>f</del></p>"
    ),
    "**a *b***": "<p><strong>a <em>b</em></strong></p>",
    "***a** b*": "<p><em><strong>a</strong> b</em></p>",
    "*a **b* c": "<p>*a *<em>b</em> c</p>",
    "2 * 3 * 4, a_b_c, **, ~x~, *a": "<p>2 * 3 * 4, a_b_c, **, ~x~, *a</p>",
    "\\*a\\* \\a b\\\nc": "<p>*a* \\a b<br>c</p>",
    "`a *b*` ``c`d`` `` ` `` `e": "<p><code>a *b*</code> <code>c`d</code> <code>`</code> `e</p>",
    "[a *b*](http://c.test/d_(e) 'f')": '<p>[a <em>b</em>](<a href="http://c.test/d_(e)">'
    "http://c.test/d_(e)</a> 'f')</p>",
    '[a *b*](http://c.test/d_(e) "f")': '<p><a href="http://c.test/d_(e)">a <em>b</em></a></p>',
    "[a [b] c](mailto:d@e.test)": '<p><a href="mailto:d@e.test">a [b] c</a></p>',
    "![a](https://b.test/c.png)": '<p><a href="https://b.test/c.png">a</a></p>',
    "[https://a.test](https://b.test)": '<p><a href="https://b.test/">https://a.test</a></p>',
    "<https://a.test> (see https://b.test/c). xhttps://d.test": (
        '<p><a href="https://a.test/">https://a.test</a> (see <a href="https://b.test/c">'
        "https://b.test/c</a>). xhttps://d.test</p>"
    ),
    "[a](b) [c] (d) [e](f g)": "<p>[a](b) [c] (d) [e](f g)</p>",
    "```py\na\n\n  b\n```\nc": code("a\n\n  b\n", "py") + "<p>c</p>",
    "~~~\n```\n~~~~\na": code("```\n") + "<p>a</p>",
    "```\na\n``` b\n": code("a\n``` b\n"),
    "  ```\n  a\n   b\nc\n  ```": code("a\n b\nc\n"),
    "````\n```\n````": code("```\n"),
    "```\n": code(""),
    "- a\n- b\n  - c\n- d": (
        "<ul><li><p>a</p></li><li><p>b</p><ul><li><p>c</p></li></ul></li><li><p>d</p></li></ul>"
    ),
    "3. a\n\n   b\n4. c\nd\n\ne": (
        '<ol start="3"><li><p>a</p><p>b</p></li><li><p>c<br>d</p></li></ol><p>e</p>'
    ),
    "1. a\n  - b\n2. c": (
        '<ol start="1"><li><p>a</p><ul><li><p>b</p></li></ul></li><li><p>c</p></li></ol>'
    ),
    "- a\n1. b": '<ul><li><p>a</p></li></ul><ol start="1"><li><p>b</p></li></ol>',
    "- ```\n  a\n\n  - b\n  ```\n- c": (
        f"<ul><li>{code('a&#10;&#10;- b&#10;')}</li><li><p>c</p></li></ul>".replace("&#10;", "\n")
    ),
    "-\ta\n\n\tb": "<ul><li><p>a</p><p>b</p></li></ul>",
    "in\n1986. a": "<p>in<br>1986. a</p>",
    "> a\n> > b\n>\n> - c": (
        "<blockquote><p>a</p><blockquote><p>b</p></blockquote>"
        "<ul><li><p>c</p></li></ul></blockquote>"
    ),
    "a | b\n:-: | -:\n**c** | d\\|e\nf\n\ng | h": (
        "<div><table><thead><tr><th>a</th><th>b</th></tr></thead><tbody>"
        "<tr><td><strong>c</strong></td><td>d|e</td></tr></tbody></table></div>"
        "<p>f</p><p>g | h</p>"
    ),
    "| a |\n|---|": "<div><table><thead><tr><th>a</th></tr></thead><tbody></tbody></table></div>",
    "a | b\n--- | --- | ---": "<p>a | b<br>--- | --- | ---</p>",
    "<b>a</b> &amp; <!-- c -->": "<p>&lt;b&gt;a&lt;/b&gt; &amp;amp; &lt;!-- c --&gt;</p>",
}


def test_markdown_at_once_and_in_pieces(tab: ChatTab) -> None:
    for text, expected in CASES.items():
        assert tab.page.evaluate(RENDER, [text]) == expected, text
        pieces = [text[n : n + 4] for n in range(0, len(text), 4)]
        assert tab.page.evaluate(RENDER, pieces) == expected, text


def test_incomplete_blocks_are_shown(tab: ChatTab, model: PuppetModel) -> None:
    tab.ask("one")
    for text, shown in [
        ("Some **bo", "Some **bo"),
        ("ld**\n\n```p", "Some bold"),
        ("y\nprint(", "print("),
        (")\n``", "print()"),
        ("`\nend", "end"),
    ]:
        model.say(text)
        expect(tab.replies).to_contain_text(shown)
    expect(tab.replies.locator("strong")).to_have_text("bold")
    expect(tab.replies.locator("code")).to_have_text("print()\n")
    assert "`" not in tab.replies.inner_text()
    model.end()
    tab.settled()


def test_copy(tab: ChatTab, model: PuppetModel, site: str) -> None:
    tab.page.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=site)
    tab.ask("one")
    model.end("*See:*\n```js\nlet a\n\nlet b\n```")
    tab.settled()
    for clicked, copied in [
        (tab.page.locator(".code-bar button"), "let a\n\nlet b"),
        (
            tab.page.locator(".reply > .actions button").first,
            "*See:*\n```js\nlet a\n\nlet b\n```",
        ),
    ]:
        clicked.click()
        expect(clicked).to_have_text("Copied")
        assert tab.page.evaluate("navigator.clipboard.readText()") == copied


HOSTILE: dict[str, Callable[[int], str]] = {
    "stars": lambda n: "*" * 300 * n,
    "open emphases": lambda n: "*a " * 100 * n,
    "closed emphases": lambda n: "*a* " * 75 * n,
    "mixed emphases": lambda n: "*a _b " * 50 * n + "c_ " * 50 * n,
    "other emphases": lambda n: "*a b_ " * 50 * n,
    "brackets": lambda n: "[" * 300 * n,
    "links without an end": lambda n: "[a](" * 75 * n,
    "links": lambda n: "[a](http://b.test) " * 10 * n,
    "equal backticks": lambda n: "`a` " * 75 * n,
    "backticks": lambda n: "".join("`" * k + " " for k in range(1, int(22 * n**0.5))),
    "quotes": lambda n: ">" * 100 * n,
    "nested lists": lambda n: "\n".join(" " * k + "- a" for k in range(int(22 * n**0.5))),
    "fences": lambda n: "```\n" * 50 * n,
    "one line": lambda n: "word " * 60 * n,
    "no space": lambda n: "x" * 300 * n,
    "table": lambda n: "a|b\n-|-\n" + "c|d\n" * 20 * n,
    "list": lambda n: "- item *a*\n" * 20 * n,
    "spaces": lambda n: "#" + " " * 300 * n + "-" + " " * 300 * n + "x",
    "pipes": lambda n: "|" * 300 * n + "\n" + "|-" * 150 * n,
    "addresses": lambda n: "http://a." * 30 * n,
    "punctuation": lambda n: ("http://a" + "." * 1900 + " ") * (n // 6),
}
"""Texts whose length is proportional to `n`, about 300 characters for each."""


def test_work_is_proportional_to_the_size_of_a_text(browser: Browser, site: str) -> None:
    rendered = """async (text) => {
        const { MarkdownView } = await import(new URL("page/markdown.js", location.href));
        const view = new MarkdownView(document.createElement("div"));
        view.push(text);
        await view.end();
    }"""
    growth, per_character = {}, {}
    # A new process: code that is compiled before the counting begins is not counted.
    with tab_of(browser, "about:blank") as tab:
        profiler = tab.page.context.new_cdp_session(tab.page)
        profiler.send("Profiler.enable")
        profiler.send("Profiler.startPreciseCoverage", {"callCount": True, "detailed": True})
        tab.page.goto(site)

        def work(text: str) -> int:
            """Count the code blocks that the page runs for a text. Unlike a time, this is exact."""
            profiler.send("Profiler.takePreciseCoverage")  # resets the counts
            tab.page.evaluate(rendered, text)  # times out at a pattern that searches without end
            scripts = profiler.send("Profiler.takePreciseCoverage")["result"]
            return sum(
                part["count"]
                for script in scripts
                if "/page/" in script["url"]
                for function in script["functions"]
                for part in function["ranges"]
            )

        for name, text in HOSTILE.items():
            whole = work(text(480))
            growth[name] = whole / work(text(60))
            per_character[name] = whole / len(text(480))
    # 8 if linear, 16 for a growing block that is rendered repeatedly, 64 if quadratic.
    assert max(growth.values()) < 20, growth
    # Blocks are limited, so work that is quadratic within one grows linearly.
    assert max(per_character.values()) < 20, per_character
