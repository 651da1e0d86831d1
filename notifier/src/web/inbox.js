// The user's stored events, as far as the page must know: how many are not read, and which was the last one here.

export class Inbox {
  /** What is given back to the server as `since`: `user.<epoch>.<seq>`, or empty. */
  position;
  /** How many are not read; null while that is not known, and where nothing is kept. */
  unread = null;
  #newest = 0;
  /** Up to which event `unread` counts, as far as that was said. */
  #counted = null;

  constructor(position = "") {
    this.position = position;
  }

  /** Takes any frame. */
  receive(frame) {
    if (frame.type === "connected") this.#connected(frame);
    else if (frame.type === "resumed" || frame.type === "stream_reset") this.#goOn(frame);
    else if (frame.type === "inbox.updated") this.#count(frame.data);
    else this.#event(frame);
  }

  /** The frame that says that all is read, or null where there is nothing to say. */
  readAll() {
    return this.unread > 0 ? { type: "read", up_to: this.#newest } : null;
  }

  #connected(frame) {
    this.unread = null;
    this.#counted = null;
    this.#newest = own(frame.streams)?.seq ?? 0;
    this.#count(frame);
  }

  /** All before was shown, or is lost. */
  #goOn(frame) {
    const stream = own(frame.streams ?? [frame]);
    if (stream !== undefined) this.#move(stream);
  }

  /** Events to everybody have numbers too, of another stream, but neither of these two. */
  #event(frame) {
    this.#count(frame);
    const isOwn = Number.isInteger(frame.unread) || frame.type === "task.updated";
    if (!isOwn || !isPosition(frame) || "room_id" in frame || "chat_id" in frame) return;
    this.#newest = Math.max(this.#newest, frame.seq);
    const [, epoch, seq] = this.position.split(".");
    if (epoch !== frame.epoch || frame.seq > Number(seq)) this.#move(frame);
  }

  #move({ epoch, seq }) {
    this.position = `user.${epoch}.${seq}`;
  }

  /** What was counted first may come last. Of the same events fewer are unread later. */
  #count(fields) {
    if (!Number.isInteger(fields?.unread)) return;
    const { epoch, seq, unread } = fields;
    if (isPosition(fields)) {
      const last = this.#counted;
      const isLate = epoch === last?.epoch && (seq < last.seq || (seq === last.seq && unread > this.unread));
      if (isLate) return;
      this.#counted = { epoch, seq };
    }
    this.unread = unread;
  }
}

function own(streams) {
  return streams?.find((stream) => stream.audience === "user" && isPosition(stream));
}

function isPosition({ epoch, seq }) {
  return typeof epoch === "string" && Number.isInteger(seq);
}
