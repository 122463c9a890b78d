// Renders a block's Markdown as DOM nodes, in time proportional to its length.

import { el, fill } from "./dom.js";

const SPECIAL = /[\\`*_~[!<\n]|https?:\/\//g;
const BARE_LINK = /https?:\/\/[^\s<>"'`]{1,2000}/y;
const ANGLE_LINK = /<((?:https?:\/\/|mailto:)[^\s<>]{1,2000})>/y;
const DESTINATION = /\(<?([^\s<>()]*(?:\([^\s<>()]*\)[^\s<>()]*)*)>?(?:[ \n]{1,4}"[^"\n]{0,300}")?\)/y;
const PUNCTUATION = /[!-/:-@[-`{-~]/;
const WORD = /[\p{L}\p{N}]/u;
const SPACE = /\s/;
const MAX_DEPTH = 24;
const TAGS = { "*1": "em", "*2": "strong", _1: "em", _2: "strong", "~2": "del" };

/** Return the DOM nodes of a block's text. */
export function inline(text, inLink = false) {
  return new InlineParser(text, inLink).nodes();
}

/** Return an absolute address that is safe to link to, or null. */
export function safeAddress(address) {
  const url = URL.canParse(address) ? new URL(address) : null;
  return url && ["http:", "https:", "mailto:"].includes(url.protocol) ? url.href : null;
}

function link(address, children) {
  const properties = { href: address, rel: "noopener noreferrer", target: "_blank" };
  return fill(el("a", properties), children);
}

function matchAt(pattern, text, at) {
  pattern.lastIndex = at;
  return pattern.exec(text);
}

function runLength(text, at) {
  let end = at;
  while (text[end] === text[at]) end += 1;
  return end - at;
}

class InlineParser {
  #text;
  #inLink;
  #plainFrom = 0;
  // The first frame is the block. The others are open emphases.
  #frames = [{ char: "", length: 0, children: [] }];
  #ticks = null;
  #brackets = null;

  constructor(text, inLink) {
    this.#text = text;
    this.#inLink = inLink;
  }

  nodes() {
    let at = 0;
    for (let found; (found = matchAt(SPECIAL, this.#text, at)); ) {
      at = this.#special(found[0], found.index);
    }
    this.#flush(this.#text.length);
    this.#collapse(0);
    return this.#frames[0].children;
  }

  /** Handle a special character, and return the position at which to continue. */
  #special(found, at) {
    switch (found[0]) {
      case "\\":
        return this.#escape(at);
      case "`":
        return this.#code(at);
      case "*":
      case "_":
      case "~":
        return this.#emphasis(found, at);
      case "[":
        return this.#link(at, at);
      case "!":
        // An image is shown as a link: the page loads nothing from other sites.
        return this.#text[at + 1] === "[" ? this.#link(at + 1, at) : at + 1;
      case "<":
        return this.#angle(at);
      case "\n":
        return this.#emit(at, at + 1, el("br"));
      default:
        return this.#bare(at);
    }
  }

  #emit(from, to, node) {
    this.#flush(from);
    this.#frames.at(-1).children.push(node);
    this.#plainFrom = to;
    return to;
  }

  #flush(to) {
    if (to > this.#plainFrom) this.#frames.at(-1).children.push(this.#text.slice(this.#plainFrom, to));
    this.#plainFrom = to;
  }

  #escape(at) {
    const next = this.#text[at + 1];
    if (next === "\n") return this.#emit(at, at + 2, el("br"));
    return next && PUNCTUATION.test(next) ? this.#emit(at, at + 2, next) : at + 1;
  }

  #code(at) {
    const length = runLength(this.#text, at);
    const end = this.#closingTicks(length, at);
    if (end === undefined) return at + length;
    let code = this.#text.slice(at + length, end).replaceAll("\n", " ");
    if (code.startsWith(" ") && code.endsWith(" ") && code.trim()) code = code.slice(1, -1);
    return this.#emit(at, end + length, el("code", {}, code));
  }

  /** Return the start of the next run of `length` backticks. Calls must be in order. */
  #closingTicks(length, after) {
    if (this.#ticks === null) {
      this.#ticks = new Map();
      for (const run of this.#text.matchAll(/`+/g)) {
        const runs = this.#ticks.get(run[0].length) ?? { next: 0, places: [] };
        runs.places.push(run.index);
        this.#ticks.set(run[0].length, runs);
      }
    }
    const runs = this.#ticks.get(length) ?? { next: 0, places: [] };
    while (runs.places[runs.next] <= after) runs.next += 1;
    return runs.places[runs.next];
  }

  #link(at, from) {
    const end = this.#inLink ? undefined : this.#closingBracket(at);
    const target = end === undefined ? null : matchAt(DESTINATION, this.#text, end + 1);
    const address = target && safeAddress(target[1]);
    if (!address) return at + 1;
    const label = this.#text.slice(at + 1, end) || address;
    return this.#emit(from, end + 1 + target[0].length, link(address, inline(label, true)));
  }

  #closingBracket(at) {
    if (this.#brackets === null) {
      this.#brackets = new Map();
      const open = [];
      for (const bracket of this.#text.matchAll(/\\.|[[\]]/gs)) {
        if (bracket[0] === "[") open.push(bracket.index);
        else if (bracket[0] === "]" && open.length) this.#brackets.set(open.pop(), bracket.index);
      }
    }
    return this.#brackets.get(at);
  }

  #angle(at) {
    const found = this.#inLink ? null : matchAt(ANGLE_LINK, this.#text, at);
    const address = found && safeAddress(found[1]);
    return address ? this.#emit(at, at + found[0].length, link(address, [found[1]])) : at + 1;
  }

  #bare(at) {
    const before = this.#text[at - 1];
    if (this.#inLink || (before && WORD.test(before))) return at + 4;
    let shown = matchAt(BARE_LINK, this.#text, at)?.[0] ?? "";
    while (".,;:!?*_~]".includes(shown.at(-1) ?? " ")) shown = shown.slice(0, -1);
    if (shown.endsWith(")") && !shown.includes("(")) shown = shown.slice(0, -1);
    const address = safeAddress(shown);
    return address ? this.#emit(at, at + shown.length, link(address, [shown])) : at + 4;
  }

  #emphasis(char, at) {
    const text = this.#text;
    const end = at + runLength(text, at);
    if (char === "~" && end - at !== 2) return end;
    const before = text[at - 1] ?? " ";
    const after = text[end] ?? " ";
    const within = char === "_" && WORD.test(before) && WORD.test(after);
    let left = end - at;
    if (!within && !SPACE.test(before)) {
      while (left > 0 && this.#close(char, end - left, left)) left -= this.#closed;
    }
    if (left > 0 && left <= 3 && !within && !SPACE.test(after) && this.#frames.length < MAX_DEPTH) {
      this.#flush(end - left);
      this.#frames.push({ char, length: left, children: [] });
      this.#plainFrom = end;
    }
    return end;
  }

  #closed = 0;

  /** Close the innermost emphasis of this kind, or a part of it. Return false without one. */
  #close(char, at, available) {
    const index = this.#frames.findLastIndex((frame) => frame.char === char);
    if (index < 1) return false;
    this.#flush(at);
    this.#collapse(index);
    const frame = this.#frames[index];
    this.#closed = Math.min(2, frame.length, available);
    frame.children = [fill(el(TAGS[char + this.#closed]), frame.children)];
    frame.length -= this.#closed;
    if (frame.length === 0) {
      this.#frames.pop();
      this.#frames.at(-1).children.push(...frame.children);
    }
    this.#plainFrom = at + this.#closed;
    return true;
  }

  /** Turn the unclosed emphases within a frame back into text. */
  #collapse(index) {
    const { children } = this.#frames[index];
    for (const frame of this.#frames.splice(index + 1)) {
      children.push(frame.char.repeat(frame.length));
      for (const child of frame.children) children.push(child);
    }
  }
}
