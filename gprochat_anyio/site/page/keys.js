// Keyboard input.

/** Return true for Enter without Shift, unless it ends a composition of an input method. */
export function isSubmit(event) {
  // Safari reports the Enter that ends a composition after the composition, with this key code.
  return event.key === "Enter" && !event.shiftKey && !event.isComposing && event.keyCode !== 229;
}
