// Requests to the notifier's HTTP API.

/** Milliseconds the server has for its answer. */
const ANSWER_DEADLINE = 15_000;

/** What came back: `{ status, body }`, or `{ problem }` in the server's words when it has some, else in `unanswered`'s. */
export async function request(method, path, { token, body, unanswered }) {
  const headers = { authorization: `Bearer ${token}` };
  if (body !== undefined) headers["content-type"] = "application/json";
  let response;
  let answer = null;
  try {
    response = await fetch(path, {
      method,
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: AbortSignal.timeout(ANSWER_DEADLINE),
    });
    answer = await response.json().catch(() => null);
  } catch (error) {
    return { problem: `No answer from the server (${error.message}). ${unanswered}` };
  }
  if (response.ok) return { status: response.status, body: answer };
  return { problem: answer?.error?.message ?? `The server answered ${response.status} ${response.statusText}.` };
}
