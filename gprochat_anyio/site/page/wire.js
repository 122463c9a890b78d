// The site's wire protocol. The page's cookie replaces the signature of requests.

const HOME = new URL("../", import.meta.url);
const GENERATE = new URL("../api/generate", import.meta.url);
const AUTH = new URL("../api/auth", import.meta.url);
const MARKER = "Internal server error";
const WRONG_PASSWORD = "Invalid password.";
const WRONG_SIGNATURE = "Invalid signature.";

/** The failure of a request, with a message for the user. */
export class WireError extends Error {}

/** Return true if the site accepts a password, or requires none. */
export async function accepts(password) {
  const response = await send(AUTH, { pass: password });
  if (!response.ok) throw await refusal(response);
  return (await response.json()).code === 0;
}

/**
 * Yield the text of a reply as it arrives.
 *
 * Aborting the signal throws its reason. Any other failure throws a WireError after the text that
 * has arrived.
 */
export async function* replyTo(messages, credentials, signal) {
  const response = await open(messages, credentials, signal);
  const reader = response.body.getReader();
  const decoder = new TextDecoder();
  const tail = new Tail();
  let failed = false;
  try {
    for (let read; !(read = await reader.read()).done; ) {
      yield tail.push(decoder.decode(read.value, { stream: true }));
    }
  } catch {
    failed = true;
  }
  yield tail.push(decoder.decode());
  // A reply that broke off may lack the marker: the browser discards unread text.
  if (tail.text === MARKER) failed = true;
  else yield tail.text;
  signal.throwIfAborted();
  if (failed) throw new WireError("The reply was interrupted.");
}

async function open(messages, credentials, signal) {
  for (let renewed = false; ; ) {
    const body = { messages, time: Date.now(), pass: credentials.password };
    const response = await send(GENERATE, body, signal);
    if (response.ok && response.headers.get("content-type")?.startsWith("text/plain")) {
      return response;
    }
    const error = await refusal(response);
    if (error.message === WRONG_PASSWORD) {
      if (!(await credentials.ask())) throw new WireError("The site requires a password.");
    } else if (error.message !== WRONG_SIGNATURE) {
      throw error;
    } else if (renewed) {
      throw new WireError(
        "The site does not recognize its own page. The proxy in front of it must forward the Host header.",
      );
    } else {
      // The cookie is missing, or the site's secret key has changed.
      await send(HOME, null, signal);
      renewed = true;
    }
    signal.throwIfAborted();
  }
}

/** Send a GET request, or a POST request if there is a body. */
async function send(url, body, signal) {
  const options = { cache: "no-store", redirect: "error", signal };
  if (body !== null) {
    options.method = "POST";
    options.headers = { "content-type": "text/plain;charset=UTF-8" };
    options.body = JSON.stringify(body);
  }
  try {
    return await fetch(url, options);
  } catch {
    signal?.throwIfAborted();
    throw new WireError("The site cannot be reached.");
  }
}

async function refusal(response) {
  const text = await response.text().catch(() => "");
  let said = null;
  try {
    said = JSON.parse(text).error.message;
  } catch {
    // The response comes from something else, such as a proxy.
  }
  if (typeof said === "string" && said) return new WireError(said);
  if (response.ok) return new WireError("The response is not from a GPROChat site.");
  return new WireError(`The site responded with status ${response.status}.`);
}

/** The end of a reply, which is held back while it may become the failure marker. */
class Tail {
  text = "";

  push(text) {
    const all = this.text + text;
    let held = Math.min(all.length, MARKER.length);
    while (!MARKER.startsWith(all.slice(all.length - held))) held -= 1;
    this.text = all.slice(all.length - held);
    return all.slice(0, all.length - held);
  }
}
