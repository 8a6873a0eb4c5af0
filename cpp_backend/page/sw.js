// Upstream's page leaves a service worker with the browser, which would show it here, too. This one, which the browser finds in its place,
// removes itself and shows what the server has. This page installs none.
addEventListener("install", () => skipWaiting());
addEventListener("activate", (event) => event.waitUntil((async () => {
  await registration.unregister();
  await Promise.all((await caches.keys()).map((key) => caches.delete(key)));
  (await clients.matchAll({ type: "window" })).forEach((client) => client.navigate(client.url));
})()));
