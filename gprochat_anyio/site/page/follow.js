// Keeps the end of the conversation in view, unless the user has scrolled up.

const NEAR = 48;

export class Follow {
  #scroller;
  #following = true;
  #top = 0;
  #onChange;

  /** `onChange(following)` is called when the user leaves the end, or returns to it. */
  constructor(scroller, content, onChange) {
    this.#scroller = scroller;
    this.#onChange = onChange;
    scroller.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    const observer = new ResizeObserver(() => this.#following && this.toEnd());
    observer.observe(content);
    observer.observe(scroller);
  }

  toEnd() {
    this.#scroller.scrollTop = this.#scroller.scrollHeight;
    this.#top = this.#scroller.scrollTop;
    this.#set(true);
  }

  #scrolled() {
    const { scrollTop, scrollHeight, clientHeight } = this.#scroller;
    // Growing content moves the end away, so only scrolling up means that the user left it.
    if (scrollHeight - scrollTop - clientHeight < NEAR) this.#set(true);
    else if (scrollTop < this.#top - 1) this.#set(false);
    this.#top = scrollTop;
  }

  #set(following) {
    if (following !== this.#following) this.#onChange(following);
    this.#following = following;
  }
}
