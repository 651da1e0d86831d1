// Where the token lives, and how far its user has come: in this tab only. The token is never longer in the address bar than
// it takes to read it.

const KEY = "bellhop.token";
const POSITION = "bellhop.position";

/** Also held here, for browsers that forbid storage. */
let held = null;

/** Moves a token from `#token=…` into the tab's storage. Returns true when there was one. */
export function adoptTokenFromAddress() {
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (token === null) return false;
  history.replaceState(null, "", location.pathname + location.search);
  keepToken(token.trim());
  return true;
}

export function currentToken() {
  return held ?? read(() => sessionStorage.getItem(KEY));
}

export function keepToken(token) {
  // It may be another user's.
  if (token !== currentToken()) keepPosition("");
  held = token;
  write(() => sessionStorage.setItem(KEY, token));
}

export function forgetToken() {
  held = null;
  write(() => sessionStorage.removeItem(KEY));
  write(() => sessionStorage.removeItem(POSITION));
}

/** How far the page has shown the stored events, or an empty text. */
export function currentPosition() {
  return read(() => sessionStorage.getItem(POSITION)) ?? "";
}

export function keepPosition(position) {
  write(() => sessionStorage.setItem(POSITION, position));
}

/** What is wrong with a token that was typed in, or null. Only the server knows whether it is a good one. */
export function tokenProblem(token) {
  if (token === "") return "Paste a token first.";
  if (/^[\w-]+\.[\w-]+\.[\w-]+$/.test(token)) return null;
  return "This is not a token: one has three parts of letters, digits, - and _, joined by dots.";
}

export function recall(key) {
  return read(() => localStorage.getItem(`bellhop.${key}`));
}

export function remember(key, value) {
  write(() => localStorage.setItem(`bellhop.${key}`, value));
}

// A browser may forbid storage, and then throws on the first touch; the page works without it.
function read(get) {
  try {
    return get();
  } catch {
    return null;
  }
}

function write(put) {
  try {
    put();
  } catch {
    return;
  }
}
