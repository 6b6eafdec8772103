"use strict";
/* A page of ours where the browser's own would say that nothing can be reached. Nothing else is kept or changed. */
const KEPT = {{ kept|tojson }};
const PARTS = {{ parts|tojson }};
const shown = () => caches.match(PARTS[0]);
self.addEventListener("install", (event) => {
  event.waitUntil(caches.open(KEPT).then((cache) => cache.addAll(PARTS)).then(() => self.skipWaiting()));
});
self.addEventListener("activate", (event) => {
  const forget = (names) => Promise.all(names.filter((name) => name !== KEPT).map((name) => caches.delete(name)));
  event.waitUntil(caches.keys().then(forget).then(() => self.clients.claim()));
});
self.addEventListener("fetch", (event) => {
  const { request } = event;
  const { pathname, search } = new URL(request.url);
  if (request.mode === "navigate" && request.method === "GET" && !/\.\w+$/.test(pathname)) {
    /* 502 and 504 are the proxy's words for the same */
    const look = (answer) => ([502, 504].includes(answer.status) ? shown() : answer);
    event.respondWith(fetch(request).then(look).catch(shown));
  } else if (PARTS.includes(pathname + search)) {
    event.respondWith(fetch(request).catch(() => caches.match(request)));
  }
});
