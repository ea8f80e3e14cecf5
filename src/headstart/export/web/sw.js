// After the first load the page works offline: all its files are kept, under a name that changes with them. Names are of
// this folder, since all pages of a host share its caches.
const FOLDER = `headstart ${self.registration.scope} `;
const VERSION = `${FOLDER}headstart-VERSION`;
const FILES = ["./", "index.html", "style.css", "icon.svg", "manifest.webmanifest", "app.js", "model.js", "preprocess.js",
  "about.json", "model.onnx", "ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"];

self.addEventListener("install", (event) => {
  event.waitUntil(caches.open(VERSION).then((cache) => cache.addAll(FILES)).then(() => self.skipWaiting()));
});
self.addEventListener("activate", (event) => {
  const isOld = (name) => name.startsWith(FOLDER) && name !== VERSION;
  event.waitUntil(caches.keys().then((names) => Promise.all(names.filter(isOld).map((name) => caches.delete(name)))));
});
self.addEventListener("fetch", (event) => {
  event.respondWith(caches.match(event.request, { cacheName: VERSION }).then((found) => found || fetch(event.request)));
});
