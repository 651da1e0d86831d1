// The form that starts a job.

import { request } from "./api.js";
import { shortId } from "./format.js";
import { recall, remember } from "./session.js";

/** `accepted({ id, kind, title })` is called for every job the server took. */
export class JobForm {
  #form;
  #status;
  #token;
  #accepted;
  #sending = false;

  constructor(form, { token, accepted }) {
    this.#form = form;
    this.#status = form.querySelector("[role=status]");
    this.#token = token;
    this.#accepted = accepted;
    const { kind, args } = form.elements;
    kind.value = recall("kind") ?? kind.value;
    args.value = recall("args") ?? args.value;
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
    });
  }

  async #submit() {
    if (this.#sending) return;
    const job = this.#read();
    if (job === null) return;
    this.#setSending(true);
    const answer = await postJob(job, this.#token());
    this.#setSending(false);
    if (answer.problem) return this.#say(answer.problem, "bad");
    remember("kind", job.kind);
    remember("args", this.#form.elements.args.value);
    this.#offerKind(job.kind);
    this.#say(`Queued as ${shortId(answer.id)}.`, "good");
    this.#accepted({ id: answer.id, kind: job.kind, title: job.title ?? null });
  }

  /** The job as typed, or null after having said what is wrong with it. */
  #read() {
    const { kind, args, title } = this.#form.elements;
    for (const field of [kind, args]) field.removeAttribute("aria-invalid");
    const job = { kind: kind.value.trim() };
    if (job.kind === "") return this.#reject(kind, "Kind is missing: name the kind of job to run.");
    try {
      job.args = JSON.parse(args.value);
    } catch (error) {
      return this.#reject(args, `Args are not valid JSON: ${error.message}`);
    }
    if (title.value.trim() !== "") job.title = title.value.trim();
    return job;
  }

  #reject(field, words) {
    field.setAttribute("aria-invalid", "true");
    field.focus();
    this.#say(words, "bad");
    return null;
  }

  #say(words, tone) {
    this.#status.textContent = words;
    this.#status.dataset.tone = tone;
  }

  #setSending(sending) {
    this.#sending = sending;
    if (sending) this.#say("Sending…", "plain");
    // Not `disabled`: a disabled button loses the keyboard's focus.
    this.#form.querySelector("button").setAttribute("aria-disabled", String(sending));
  }

  #offerKind(kind) {
    const list = this.#form.elements.kind.list;
    if ([...list.options].some((option) => option.value === kind)) return;
    list.append(new Option(kind, kind));
  }
}

/** `{ id }`, or `{ problem }`. */
async function postJob(job, token) {
  const unanswered = "The job may have been taken: check the list before starting it again.";
  const { body, problem } = await request("POST", "/api/tasks", { token, body: job, unanswered });
  if (problem) return { problem };
  return typeof body?.task_id === "string" ? { id: body.task_id } : { problem: "The server did not say what became of the job." };
}
