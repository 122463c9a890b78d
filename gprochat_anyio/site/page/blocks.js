// Splits Markdown into blocks, line by line. HTML is treated as text.

const FENCE = /^( {0,3})(`{3,}|~{3,})([^`]*)$/;
const HEADING = /^ {0,3}(#{1,6})(?:[ \t]+(.*))?$/;
const RULE = /^ {0,3}([-*_])[ \t]*(?:\1[ \t]*){2,}$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^( *)([-*+]|\d{1,9}[.)])( {1,4}(?=\S)|$| )/;
const INDENT = /^[ \t]*(?:[-*+]|\d{1,9}[.)])?[ \t]*/;
const MAX_DEPTH = 12;
/** Size at which a block is split if possible: browsers repeat the layout of a block that grows. */
export const MAX_BLOCK = 16 * 1024;

/** Return the blocks of a text. */
export function blocksOf(lines, depth = 0) {
  const blocks = [];
  const splitter = new BlockSplitter((block) => blocks.push(block), depth);
  for (const line of lines) splitter.push(line);
  splitter.end();
  return blocks;
}

/** A splitter that takes lines, and passes each block on as soon as it is complete. */
export class BlockSplitter {
  open = null;
  #onBlock;
  #depth;

  constructor(onBlock, depth = 0) {
    this.#onBlock = onBlock;
    this.#depth = depth;
  }

  push(line) {
    if (this.open?.kind === "code") this.#code(line);
    else this.#start(line.replace(INDENT, (indent) => indent.replaceAll("\t", "    ")));
  }

  end() {
    const block = this.open;
    this.open = null;
    if (block) this.#onBlock(this.#complete(block));
  }

  #begin(block) {
    this.end();
    this.open = block;
  }

  #code(line) {
    const { fence, indent, lines } = this.open;
    const end = FENCE.exec(line);
    if (end && end[2].startsWith(fence) && !end[3].trim()) this.end();
    else lines.push(outdented(line, indent));
  }

  #start(line) {
    if (this.open?.kind === "list") {
      const full = this.open.size > MAX_BLOCK && beginsItem(this.open, line);
      if (!full && continuesList(this.open, line)) {
        this.open.lines.push(line);
        this.open.size += line.length;
        return;
      }
      this.end();
    }
    const fence = FENCE.exec(line);
    const heading = HEADING.exec(line);
    const nests = this.#depth < MAX_DEPTH;
    if (!line.trim()) {
      this.end();
    } else if (fence) {
      this.#begin({ kind: "code", fence: fence[2], indent: fence[1].length, language: fence[3].trim(), lines: [] });
    } else if (heading) {
      const text = (heading[2] ?? "").trimEnd().replace(/(^|[ \t])#+$/, "");
      this.#begin({ kind: "heading", level: heading[1].length, text });
      this.end();
    } else if (RULE.test(line)) {
      this.#begin({ kind: "rule" });
      this.end();
    } else if (nests && QUOTE.test(line)) {
      if (this.open?.kind !== "quote" || this.open.size > MAX_BLOCK) {
        this.#begin({ kind: "quote", lines: [], size: 0 });
      }
      this.open.lines.push(line.replace(QUOTE, ""));
      this.open.size += line.length;
    } else if (nests && this.#beginsList(line)) {
      const [, space, marker] = ITEM.exec(line);
      this.#begin({ kind: "list", indent: space.length, marker, lines: [line], size: line.length, fence: fenceOf(line, null) });
    } else if (this.open?.kind === "table" && line.includes("|")) {
      const { alignments, size } = this.open;
      if (size > MAX_BLOCK) this.#begin({ kind: "table", alignments, rows: [null], size: 0 });
      this.open.rows.push(cells(line));
      this.open.size += line.length;
    } else if (this.open?.kind === "paragraph") {
      this.#paragraph(line);
    } else {
      this.#begin({ kind: "paragraph", lines: [line], size: line.length });
    }
  }

  #beginsList(line) {
    const item = ITEM.exec(line);
    if (!item || item[1].length > 3) return false;
    // A wrapped line may begin with a number, such as a year.
    return this.open?.kind !== "paragraph" || !/^\d/.test(item[2]) || parseInt(item[2], 10) === 1;
  }

  #paragraph(line) {
    const { lines } = this.open;
    const alignments = lines.length === 1 && lines[0].includes("|") ? alignmentsOf(line) : null;
    if (alignments !== null && alignments.length === cells(lines[0]).length) {
      this.open = { kind: "table", alignments, rows: [cells(lines[0])], size: 0 };
      return;
    }
    lines.push(line);
    this.open.size += line.length;
    if (this.open.size > MAX_BLOCK) this.end();
  }

  #complete(block) {
    if (block.kind === "quote") return { kind: "quote", blocks: blocksOf(block.lines, this.#depth + 1) };
    if (block.kind === "list") return list(block, this.#depth + 1);
    return block;
  }
}

/** Remove at most `indent` spaces from the start of a line. */
export function outdented(line, indent) {
  let at = 0;
  while (at < indent && line[at] === " ") at += 1;
  return line.slice(at);
}

const isOrdered = (marker) => /^\d/.test(marker);

/** Return the fence that is open after a line of a list, or null. `open` was open before it. */
function fenceOf(line, open) {
  const fence = FENCE.exec(line.replace(ITEM, "").trimStart());
  if (!fence) return open;
  if (open === null) return fence[2];
  return fence[2].startsWith(open) && !fence[3].trim() ? null : open;
}

function beginsItem({ indent, fence }, line) {
  const item = fence === null ? ITEM.exec(line) : null;
  return item !== null && item[1].length <= indent + 1;
}

function continuesList(block, line) {
  const blankBefore = !block.lines.at(-1).trim();
  const indent = line.length - line.trimStart().length;
  const wasFenced = block.fence !== null;
  const item = ITEM.exec(line);
  let goes;
  if (wasFenced || !line.trim()) goes = true;
  else if (indent > block.indent + 1) goes = true;
  else if (item && !RULE.test(line)) goes = isOrdered(item[2]) === isOrdered(block.marker);
  else goes = !blankBefore && ![FENCE, HEADING, RULE, QUOTE].some((start) => start.test(line));
  if (goes) block.fence = fenceOf(line, block.fence);
  return goes;
}

function list(block, depth) {
  const items = [];
  let fence = null;
  let width = 0;
  for (const line of block.lines) {
    if (beginsItem({ indent: block.indent, fence }, line)) {
      width = ITEM.exec(line)[0].length;
      items.push([line.slice(width)]);
    } else {
      items.at(-1).push(outdented(line, width));
    }
    fence = fenceOf(line, fence);
  }
  const start = isOrdered(block.marker) ? parseInt(block.marker, 10) : null;
  return { kind: "list", start, items: items.map((lines) => blocksOf(lines, depth)) };
}

function cells(line) {
  const found = [""];
  const row = line.trim().replace(/^\|/, "");
  for (const part of row.matchAll(/\\\||\||[^\\|]+|\\/g)) {
    if (part[0] === "|") found.push("");
    else found[found.length - 1] += part[0] === "\\|" ? "|" : part[0];
  }
  if (found.length > 1 && !found.at(-1).trim()) found.pop();
  return found.map((cell) => cell.trim());
}

function alignmentsOf(line) {
  const found = cells(line);
  if (!found.every((cell) => /^:?-+:?$/.test(cell))) return null;
  return found.map((cell) => {
    if (!cell.endsWith(":")) return "start";
    return cell.startsWith(":") ? "center" : "end";
  });
}
