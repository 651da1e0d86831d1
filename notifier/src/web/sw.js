// Shows what is pushed while no page is open, and leads back to one.

/** For a message that cannot be read. */
const UNREADABLE = { title: "Bellhop", body: "Something has happened." };

self.addEventListener("install", () => self.skipWaiting());
self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));

// Also while a page is open and seen: browsers let us have messages only if each is shown (`userVisibleOnly`), and else say
// themselves that something went on behind the user's back, or take the subscription away.
self.addEventListener("push", (event) => event.waitUntil(show(read(event.data))));

self.addEventListener("notificationclick", (event) => {
  event.notification.close();
  event.waitUntil(open(ownAddress(event.notification.data?.url)));
});

// A page posts the new one, because only a page has a token. If none is open, the next does.
self.addEventListener("pushsubscriptionchange", (event) => event.waitUntil(renew(event)));

function read(data) {
  try {
    const said = data.json();
    return typeof said?.title === "string" ? said : UNREADABLE;
  } catch {
    return UNREADABLE;
  }
}

function show({ title, body, tag, url, event, seq }) {
  const text = (value) => (typeof value === "string" ? value : undefined);
  return self.registration.showNotification(title, { body: text(body), tag: text(tag), data: { url: text(url), event, seq } });
}

/** Never another site's, whatever the message says. */
function ownAddress(url) {
  const address = new URL(url ?? "/", self.location.origin);
  return address.origin === self.location.origin ? address : new URL("/", self.location.origin);
}

async function open(address) {
  const pages = await self.clients.matchAll({ type: "window", includeUncontrolled: true });
  const page = pages.find((one) => new URL(one.url).pathname === address.pathname);
  return page === undefined ? self.clients.openWindow(address.href) : page.focus();
}

async function renew({ oldSubscription, newSubscription }) {
  if (!newSubscription && oldSubscription) await self.registration.pushManager.subscribe(oldSubscription.options);
  const pages = await self.clients.matchAll({ type: "window", includeUncontrolled: true });
  for (const page of pages) page.postMessage({ type: "push-subscription-changed" });
}
