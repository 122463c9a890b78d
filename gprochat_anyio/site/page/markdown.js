// Renders Markdown while it arrives.

import { BlockSplitter, MAX_BLOCK, blocksOf, outdented } from "./blocks.js";
import { copyButton, el, fill } from "./dom.js";
import { inline } from "./inline.js";

const CODE_PART = 8 * 1024;
/** Size of a part. Browsers skip the layout of parts that are not visible. */
const PART = 16 * 1024;
/** Maximum size of text per frame. More would block the page. */
const PER_FRAME = 32 * 1024;

/** A code block. Its text is in parts, because browsers repeat the layout of a part that grows. */
class CodeBlock {
  #code = el("code");
  #part = null;

  constructor(language) {
    const copy = copyButton(() => this.#code.textContent.replace(/\n$/, ""));
    const bar = el("div", { class: "code-bar" }, [el("span", {}, language.split(/\s/)[0]), copy]);
    const pre = el("pre", { tabindex: "0", role: "region", "aria-label": "Code" }, [this.#code]);
    this.element = el("div", { class: "code-block" }, [bar, pre]);
  }

  append(text) {
    let rest = text;
    while (rest) {
      if (this.#part === null) {
        this.#part = el("span", { class: "code-part" });
        this.#code.append(this.#part);
        this.#part.size = 0;
      }
      const room = Math.max(CODE_PART - this.#part.size, 0);
      const end = rest.indexOf("\n", room) + 1 || rest.length;
      this.#part.append(rest.slice(0, end));
      this.#part.size += end;
      if (this.#part.size >= CODE_PART && rest[end - 1] === "\n") this.#part = null;
      rest = rest.slice(end);
    }
  }
}

function table({ alignments, rows }) {
  const row = (tag, texts) =>
    fill(
      el("tr"),
      alignments.map((side, i) => fill(el(tag, { class: `to-${side}` }), inline(texts[i] ?? ""))),
    );
  const [header, ...others] = rows; // null if this continues a split table
  const body = fill(el("tbody"), others.map((texts) => row("td", texts)));
  const head = header === null ? [] : [el("thead", {}, [row("th", header)])];
  const grid = el("table", {}, [...head, body]);
  return el("div", { class: "table", tabindex: "0", role: "region", "aria-label": "Table" }, [grid]);
}

function elementOf(block) {
  switch (block.kind) {
    case "heading":
      // The page's own headings have higher levels.
      return fill(el(`h${Math.min(block.level + 2, 6)}`), inline(block.text));
    case "rule":
      return el("hr");
    case "code": {
      const code = new CodeBlock(block.language);
      if (block.lines.length) code.append(`${block.lines.join("\n")}\n`);
      return code.element;
    }
    case "quote":
      return fill(el("blockquote"), block.blocks.map(elementOf));
    case "list": {
      const items = block.items.map((blocks) => fill(el("li"), blocks.map(elementOf)));
      return fill(block.start === null ? el("ul") : el("ol", { start: block.start }), items);
    }
    case "table":
      return table(block);
    default:
      return fill(el("p"), inline(block.lines.map((line) => line.trim()).join("\n")));
  }
}

/**
 * A view of growing Markdown.
 *
 * A complete block is rendered once. The open block is rendered again as it grows. If it is long,
 * this happens each time it has grown by a quarter; until then, new text is shown unformatted.
 */
export class MarkdownView {
  #root;
  #onBlock;
  #splitter = new BlockSplitter((block) => this.#complete(block));
  #queue = "";
  #line = "";
  #openLines = [];
  #openSize = 0;
  #renderedSize = 0;
  #part = el("div", { class: "part" });
  #partSize = 0;
  #open = el("div", { class: "open" });
  #after = el("div", { class: "plain" });
  #code = null;
  #lineShown = 0;
  #frame = null;
  #onEnd = null;

  constructor(root, onBlock = () => {}) {
    this.#root = root;
    this.#onBlock = onBlock;
    root.replaceChildren(this.#part, this.#open, this.#after);
  }

  /** Add text, which the next frames show. */
  push(text) {
    this.#queue += text;
    this.#schedule();
  }

  /** End the text. The promise resolves once everything is shown. */
  end() {
    this.#schedule();
    return new Promise((resolve) => {
      this.#onEnd = resolve;
    });
  }

  #schedule() {
    this.#frame ??= requestAnimationFrame(() => this.#show());
  }

  #show() {
    this.#frame = null;
    this.#read(this.#queue.slice(0, PER_FRAME));
    this.#queue = this.#queue.slice(PER_FRAME);
    if (this.#queue) this.#schedule();
    if (this.#onEnd && !this.#queue) this.#finish();
    else this.#showOpen();
  }

  #finish() {
    if (this.#line) this.#feed(this.#line);
    this.#splitter.end();
    this.#open.remove();
    this.#after.remove();
    this.#onEnd();
  }

  #showOpen() {
    if (this.#code !== null) {
      // A line that may become the closing fence is not shown yet.
      if (!/^[ \t]*[`~]*[ \t]*$/.test(this.#line)) {
        this.#showLine(outdented(this.#line, this.#splitter.open.indent));
      }
      return;
    }
    const size = this.#openSize + this.#line.length;
    if (size <= MAX_BLOCK || size > this.#renderedSize * 1.25) {
      const { open } = this.#splitter;
      // The lines of a continued table lack its header, so they cannot be parsed again.
      const goesOn = open?.kind === "table" && open.rows[0] === null;
      const blocks = goesOn ? [open] : blocksOf([...this.#openLines, this.#line]);
      this.#open.replaceChildren();
      fill(this.#open, blocks.map(elementOf));
      this.#after.replaceChildren();
      this.#renderedSize = size;
      this.#lineShown = this.#line.length;
    } else {
      this.#after.append(this.#line.slice(this.#lineShown));
      this.#lineShown = this.#line.length;
    }
  }

  #read(text) {
    let from = 0;
    for (let end; (end = text.indexOf("\n", from)) >= 0; from = end + 1) {
      this.#feed(this.#line + text.slice(from, end));
    }
    this.#line += text.slice(from);
    const kind = this.#splitter.open?.kind ?? "paragraph";
    while (kind === "paragraph" && this.#line.length > MAX_BLOCK) {
      const space = this.#line.lastIndexOf(" ", MAX_BLOCK);
      const end = space > 0 ? space : MAX_BLOCK;
      const rest = this.#line.slice(end);
      this.#feed(this.#line.slice(0, end));
      this.#splitter.end();
      this.#line = rest;
    }
  }

  #feed(line) {
    const code = this.#code;
    this.#splitter.push(line.endsWith("\r") ? line.slice(0, -1) : line);
    const { open } = this.#splitter;
    if (open?.kind === "code") {
      if (code === null) this.#beginCode(open.language);
      else this.#showLine(`${open.lines.at(-1)}\n`);
    } else if (open) {
      if (this.#renderedSize > MAX_BLOCK) this.#after.append(`${line.slice(this.#lineShown)}\n`);
      this.#openLines.push(line);
      this.#openSize += line.length + 1;
    }
    this.#line = "";
    this.#lineShown = 0;
  }

  #beginCode(language) {
    this.#code = new CodeBlock(language);
    this.#part.append(this.#code.element);
  }

  #showLine(line) {
    this.#partSize += line.length - this.#lineShown;
    this.#code.append(line.slice(this.#lineShown));
    this.#lineShown = line.length;
  }

  #complete(block) {
    let element = this.#code?.element;
    if (element) this.#code = null;
    else this.#part.append((element = elementOf(block)));
    this.#partSize += this.#openSize;
    if (this.#partSize > PART) {
      this.#part = el("div", { class: "part" });
      this.#partSize = 0;
      this.#open.before(this.#part);
    }
    this.#open.replaceChildren();
    this.#after.replaceChildren();
    this.#openLines = [];
    this.#openSize = this.#renderedSize = 0;
    this.#onBlock(element);
  }
}
