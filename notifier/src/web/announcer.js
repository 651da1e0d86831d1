// Says aloud, through a live region, that tasks started or ended; progress would drown everything else out.

/** Milliseconds in which announcements are gathered, so that a burst is one sentence. */
const GATHER = 600;

/** More than this many at once are only counted. */
const SPOKEN_AT_ONCE = 3;

export class Announcer {
  #region;
  #pending = [];

  constructor(region) {
    this.#region = region;
  }

  say(sentence) {
    this.#pending.push(sentence);
    if (this.#pending.length === 1) setTimeout(() => this.#flush(), GATHER);
  }

  #flush() {
    const sentences = this.#pending.splice(0);
    this.#region.textContent = sentences.length > SPOKEN_AT_ONCE
      ? `${sentences.length} tasks started or ended.`
      : sentences.join(" ");
  }
}
