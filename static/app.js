/* What htmx leaves to us. No inline script, no eval: markup says what it wants by data attributes.
   Everything here improves a page that works without it. */
"use strict";
(() => {
  const root = document.documentElement;
  const by = (id) => document.getElementById(id);
  const on = (name, act) => document.addEventListener(name, act);
  const isPoll = (elt) => /\bevery\b/.test(elt.getAttribute("hx-trigger") || "");
  root.classList.add("js");

  /* ---- toasts: ok and info fade, errors stay until closed */
  function icon(name) {
    const drawn = document.querySelector("svg.icon use");
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    svg.setAttribute("class", "icon");
    svg.setAttribute("aria-hidden", "true");
    const use = svg.appendChild(document.createElementNS(svg.namespaceURI, "use"));
    use.setAttribute("href", (drawn ? drawn.getAttribute("href").split("#")[0] : "/static/icons.svg") + "#" + name);
    return svg;
  }
  function fade(box) {
    setTimeout(() => (box.matches(":hover, :focus-within") ? fade(box) : box.remove()), 7000);
  }
  function toast({ text, level = "ok" }) {
    const box = document.createElement("div");
    const words = document.createElement("span");
    const close = document.createElement("button");
    box.className = "toast toast-" + level;
    words.textContent = text;
    close.type = "button";
    close.className = "plain";
    close.dataset.dismiss = "";
    close.setAttribute("aria-label", document.body.dataset.closeLabel);
    close.append(icon("cross"));
    box.append(icon({ ok: "check", error: "alert" }[level] || "info"), words, close);
    if (level === "error") {
      by("alerts").replaceChildren(box);
    } else {
      by("toasts").append(box);
      fade(box);
    }
  }
  document.querySelectorAll("#toasts > .toast").forEach(fade);
  on("toast", (event) => toast(event.detail));

  /* ---- live parts: silent in hidden tabs, a note while the server does not answer */
  on("htmx:beforeRequest", (event) => {
    const { elt } = event.detail;
    if (document.hidden && (isPoll(elt) || "seen" in elt.dataset)) event.preventDefault(); // nobody has seen it
  });
  on("visibilitychange", () => {
    if (!document.hidden) document.body.dispatchEvent(new Event("wake"));
  });
  function stale(lost) {
    const note = by("stale");
    const text = lost ? note.dataset.text : "";
    if (note.textContent !== text) note.textContent = text;
  }
  on("htmx:afterRequest", (event) => {
    const { elt, xhr, requestConfig } = event.detail;
    const lost = !xhr.status || xhr.status >= 500;
    if (isPoll(elt)) stale(lost);
    else if (!lost) stale(false);
    else if (cancelled.has(xhr)) return;
    else if (!xhr.status && requestConfig.verb !== "get") toast({ text: document.body.dataset.lost, level: "error" });
  });

  /* ---- outerHTML swaps morph: what is there stays, with its focus and caret, what is unfolded and what was typed.
     A look (GET) keeps every field that a person edited; the answer to a deed keeps what was edited after it left. */
  const edited = new WeakMap(); // field → when
  const sentAt = new WeakMap(); // request → when
  const cancelled = new WeakSet(); // requests that a person ended
  let since = 0;
  let focused = false;
  on("input", ({ target }) => {
    const group = target.type === "radio" ? document.getElementsByName(target.name) : [target];
    group.forEach((field) => edited.set(field, performance.now()));
  });
  on("htmx:beforeRequest", (event) => sentAt.set(event.detail.xhr, performance.now()));
  function mayChange(name, elt) {
    if (name === "open") return !elt.matches("details, dialog");
    if (!["value", "checked", "selected"].includes(name)) return true;
    const field = elt.closest("select") || elt;
    const kept = edited.get(field) > since;
    if (!kept) edited.delete(field);
    return !kept;
  }
  on("htmx:beforeSwap", (event) => {
    const { target, xhr, requestConfig } = event.detail;
    since = requestConfig.verb === "get" ? 0 : sentAt.get(xhr);
    focused = target.contains(document.activeElement);
    const style = xhr.getResponseHeader("HX-Reswap") || requestConfig.elt.getAttribute("hx-swap");
    if (style === "outerHTML") event.detail.swapOverride = "morph";
  });
  if (window.htmx) {
    window.htmx.defineExtension("morph", {
      isInlineSwap: (style) => style === "morph",
      handleSwap: (style, target, fragment) =>
        style === "morph" &&
        window.Idiomorph.morph(target, fragment.children, {
          morphStyle: "outerHTML",
          callbacks: { beforeAttributeUpdated: mayChange },
        }),
    });
  }
  /* what had the focus is gone: the part that it stood in has it now, not the beginning of the page */
  function refocus(part) {
    const now = document.activeElement;
    if ((now !== document.body && now.checkVisibility()) || !part || !part.isConnected) return;
    part.tabIndex = -1;
    part.focus({ preventScroll: true });
  }

  /* ---- the title says how far it is */
  const title = document.title;
  function entitle() {
    const part = document.querySelector("[data-percent]");
    if (part) document.title = part.dataset.percent ? `${part.dataset.percent} · ${title}` : title;
  }

  /* ---- a short summary for screen readers, at most every 10 seconds */
  let spoken = 0;
  function announce() {
    const said = document.querySelector("[data-announce]");
    const text = said ? said.dataset.announce : "";
    if (text && by("announcer").textContent !== text && Date.now() - spoken > 10000) {
      by("announcer").textContent = text;
      spoken = Date.now();
    }
  }

  /* ---- a broadcast that stopped or ended by itself: the parts beside its state load themselves anew */
  const stateOf = () => (by("live") ? by("live").dataset.state : "");
  let state = stateOf();
  on("htmx:afterSettle", () => {
    if (state === stateOf()) return;
    state = stateOf();
    document.body.dispatchEvent(new Event("state-changed"));
  });

  /* ---- dialogs */
  function open(dialog) {
    if (dialog && dialog.id === "keys") listKeys(dialog.querySelector("dl"));
    if (dialog && !dialog.open) dialog.showModal();
  }

  /* ---- shortcuts: whatever has a data-key on this page; letters by their place, so that Cyrillic layouts work */
  function listKeys(list) {
    list.replaceChildren();
    document.querySelectorAll("[data-key]").forEach((one) => {
      const key = document.createElement("kbd");
      key.textContent = one.dataset.key;
      const name = document.createElement("dd");
      name.textContent = one.labels && one.labels.length ? one.labels[0].textContent : one.textContent.trim();
      list.appendChild(document.createElement("dt")).append(key);
      list.append(name);
    });
  }
  on("keydown", (event) => {
    if (document.body.dataset.shortcuts === "off" || event.ctrlKey || event.metaKey || event.altKey) return;
    // A dialog that has just closed may hold the focus for a moment longer.
    if (event.target.closest("input, select, textarea") || document.querySelector("dialog[open]")) return;
    const placed = event.code === "Slash" && !event.shiftKey ? "/" : event.code.replace(/^Key/, "").toLowerCase();
    const meant = [...document.querySelectorAll("[data-key]")].find(
      ({ dataset: { key } }) => key === event.key || (key === placed && !event.shiftKey),
    );
    if (!meant) return;
    event.preventDefault();
    if (meant.matches("input")) meant.select();
    meant.focus();
    if (meant.matches("a, button")) meant.click();
  });
  on("htmx:afterSwap", (event) => {
    announce();
    entitle();
    const target = event.detail.target;
    if (target.id === "dialog" && target.firstElementChild) open(target);
    const problem = target.querySelector && target.querySelector("[data-focus]");
    if (problem) problem.focus();
    else if (focused) refocus(by(target.id));
  });
  on("htmx:afterRequest", (event) => {
    const dialog = event.detail.elt.closest("dialog");
    if (dialog && event.detail.successful && event.detail.requestConfig.verb !== "get") {
      dialog.close();
      refocus(by(event.detail.target.id));
    }
  });

  /* ---- clicks */
  async function copy(button) {
    try {
      await navigator.clipboard.writeText(button.dataset.copy);
    } catch {
      const field = document.createElement("textarea");
      field.value = button.dataset.copy;
      (button.closest("dialog") || document.body).append(field);
      field.select();
      document.execCommand("copy");
      field.remove();
      button.focus();
    }
    toast({ text: button.dataset.copied, level: "ok" });
  }
  function insert(button) {
    const field = by(button.dataset.into) || button.form.querySelector("textarea");
    field.setRangeText(button.dataset.insert, field.selectionStart, field.selectionEnd, "end");
    field.focus();
    field.dispatchEvent(new Event("input", { bubbles: true }));
    field.dispatchEvent(new Event("keyup", { bubbles: true }));
    const popup = button.closest("details[data-popup]");
    if (popup) popup.open = false;
  }
  on("click", (event) => {
    const hit = (selector) => event.target.closest(selector);
    const opener = hit("[data-dialog]");
    if (opener && by(opener.dataset.dialog)) {
      event.preventDefault();
      open(by(opener.dataset.dialog));
    }
    const closer = hit("[data-close]");
    if (closer && closer.closest("dialog")) {
      event.preventDefault();
      closer.closest("dialog").close();
    }
    if (event.target.matches("dialog")) event.target.close();
    if (hit("[data-dismiss]")) hit("[data-dismiss]").closest(".toast, .notice").remove();
    if (hit("[data-cancel]")) cancel(hit("[data-upload]"));
    if (hit("[data-copy]")) copy(hit("[data-copy]"));
    if (hit("[data-insert]")) insert(hit("[data-insert]"));
  });
  /* an open popup goes when the pointer or the focus is elsewhere: it would lie over what has it */
  for (const name of ["click", "focusin"]) {
    on(name, (event) => {
      document.querySelectorAll("details[data-popup][open]").forEach((popup) => {
        if (!popup.contains(event.target)) popup.open = false;
      });
    });
  }
  on("keydown", (event) => {
    const popup = event.key === "Escape" && document.querySelector("details[data-popup][open]");
    if (popup) {
      popup.open = false;
      popup.querySelector("summary").focus();
    }
  });

  /* ---- the operator desk: Ctrl+Enter sends, Alt+Down and Alt+Up lead to the neighbours in the list */
  on("keydown", (event) => {
    const form = event.key === "Enter" && (event.ctrlKey || event.metaKey) && event.target.closest("[data-send-keys]");
    if (form && !event.isComposing) {
      event.preventDefault();
      form.requestSubmit();
    }
    const step = event.altKey && !event.ctrlKey && !event.metaKey && { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const links = step ? [...document.querySelectorAll("[data-conversation]")] : [];
    const at = links.findIndex((link) => link.hasAttribute("aria-current"));
    const next = links[at < 0 ? 0 : at + step];
    if (next) {
      event.preventDefault();
      next.click();
    }
  });

  /* ---- a plain form is sent once, however often its button is pressed */
  on("submit", (event) => {
    const form = event.target;
    const download = event.submitter && event.submitter.hasAttribute("formaction"); // the page stays
    if (form.method !== "post" || form.hasAttribute("hx-post") || event.defaultPrevented || download) return;
    if (form.dataset.sent) return event.preventDefault();
    form.dataset.sent = "1";
    setTimeout(() => delete form.dataset.sent, 10000); // an answer that is a download leaves the page standing
  });
  window.addEventListener("pageshow", () => {
    document.querySelectorAll("form[data-sent]").forEach((form) => delete form.dataset.sent);
  });

  /* ---- uploads: size, name, bar, drag and drop over the real file field */
  const size = (bytes) => {
    const [unit, power] = bytes < 1048576 ? ["kilobyte", 1024] : ["megabyte", 1048576];
    const form = { style: "unit", unit, unitDisplay: "short", maximumFractionDigits: 1 };
    return new Intl.NumberFormat(root.lang, form).format(bytes / power);
  };
  const fill = (text, values) => text.replace(/\{(\w+)\}/g, (_all, name) => values[name]);
  function chosen(drop) {
    const input = drop.querySelector("input[type=file]");
    const file = input.files[0];
    const problem = drop.querySelector("[data-upload-error]");
    problem.replaceChildren();
    if (!file) return;
    if (file.size > Number(drop.dataset.max)) {
      const words = document.createElement("span");
      words.textContent = fill(drop.dataset.tooLarge, { size: size(file.size) });
      problem.replaceChildren(icon("alert"), words);
      input.value = "";
      return;
    }
    drop.querySelector(".drop-text").textContent = `${file.name} · ${size(file.size)}`;
    const box = drop.closest("[data-upload]");
    if (box && window.htmx) window.htmx.trigger(box, "upload");
  }
  on("change", (event) => {
    const drop = event.target.matches("input[type=file]") && event.target.closest("[data-drop]");
    if (drop) chosen(drop);
  });
  /* a file may be dropped anywhere on a page that wants one; text that is dragged about is left alone */
  const place = (target) =>
    (target.closest && target.closest("[data-drop]")) || document.querySelector("[data-drop-anywhere] [data-drop]");
  for (const name of ["dragenter", "dragover", "dragleave", "drop"]) {
    on(name, (event) => {
      const drop = event.dataTransfer.types.includes("Files") && place(event.target);
      if (!drop || document.querySelector("dialog[open]")) return;
      event.preventDefault();
      drop.classList.toggle("drop-over", name === "dragenter" || name === "dragover");
      const more = name === "drop" && drop.closest(".append");
      if (more && !more.querySelector("[role=switch]").checked) more.querySelector("[role=switch]").click();
      if (name === "drop" && event.dataTransfer.files.length) {
        drop.querySelector("input[type=file]").files = event.dataTransfer.files;
        chosen(drop);
      }
    });
  }
  const span = (seconds) => {
    const [unit, n] = seconds < 60 ? ["second", seconds] : ["minute", Math.round(seconds / 60)];
    return new Intl.NumberFormat(root.lang, { style: "unit", unit, unitDisplay: "short" }).format(n);
  };
  const uploads = new WeakMap(); // where one goes on → its request, and when it began
  on("htmx:beforeSend", ({ detail: { elt, xhr } }) => {
    if (elt.matches("[data-upload]")) uploads.set(elt, { xhr, began: performance.now() });
  });
  function cancel(uploading) {
    const { xhr } = uploads.get(uploading);
    cancelled.add(xhr);
    xhr.abort();
    const drop = uploading.querySelector("[data-drop]");
    drop.querySelector(".drop-text").textContent = drop.dataset.empty;
    drop.querySelector("input").focus();
  }
  function bar(uploading, percent, text) {
    const box = uploading.querySelector("[data-upload-progress]");
    if (!box) return;
    box.hidden = percent === null;
    box.querySelector("progress").value = percent || 0;
    box.querySelector(".progress-text").textContent = text;
  }
  on("htmx:xhr:progress", (event) => {
    const uploading = event.target.closest("[data-upload]");
    const drop = uploading && uploading.querySelector("[data-drop]");
    const { loaded, total, lengthComputable } = event.detail;
    if (!drop || !lengthComputable || !loaded) return;
    const p = Math.floor((100 * loaded) / total);
    const { began } = uploads.get(uploading) || {};
    const left = Math.ceil((((performance.now() - began) / loaded) * (total - loaded)) / 1000);
    const words = { p, a: size(loaded), b: size(total), t: span(left) };
    uploading.querySelector("[data-cancel]").hidden = loaded >= total;
    bar(uploading, p, loaded < total ? fill(drop.dataset.uploading, words) : drop.dataset.checking);
  });
  on("htmx:afterRequest", (event) => {
    const uploading = event.target.closest("[data-upload]");
    if (!uploading) return;
    bar(uploading, null, "");
    const input = uploading.querySelector("input[type=file]");
    if (input) input.value = "";
  });

  /* ---- out of reach: a page is kept for it, which looks for the server until it is there again */
  const keeper = document.body.dataset.offline;
  if (keeper && "serviceWorker" in navigator) {
    window.addEventListener("load", () => navigator.serviceWorker.register(keeper).catch(() => {}));
  }
  if (document.querySelector("[data-reach]")) {
    const reach = async () => {
      const found = await fetch(location.href, { method: "HEAD", cache: "no-store" }).catch(() => null);
      if (found && found.status < 500) location.reload();
      else setTimeout(reach, 3000);
    };
    setTimeout(reach, 3000);
    window.addEventListener("online", () => location.reload());
  }

  /* ---- theme without a reload; the language keeps what was typed */
  on("submit", (event) => {
    const value = event.submitter && event.submitter.value;
    if (event.target.matches("[data-theme-switch]")) {
      event.preventDefault();
      delete event.target.dataset.sent;
      if (value === "system") delete root.dataset.theme;
      else root.dataset.theme = value;
      const secure = location.protocol === "https:" ? "; Secure" : "";
      document.cookie = `molva_theme=${value}; Path=/; Max-Age=31536000; SameSite=Lax${secure}`;
      document.querySelector("meta[name=color-scheme]").content = value === "system" ? "light dark" : value;
      document.querySelectorAll("[data-theme-switch] button").forEach((button) => {
        button.setAttribute("aria-pressed", String(button.value === value));
      });
    } else if (event.target.matches("[data-language-switch]")) {
      event.target.elements.next.value = location.pathname + location.search; // a new form may be a draft by now
      const kept = [...document.querySelectorAll("form[data-keep] [id]")]
        .filter((field) => "value" in field && field.name && !/^(file|password|hidden|submit|button)$/.test(field.type))
        .map((field) => [field.id, /^(checkbox|radio)$/.test(field.type) ? field.checked : field.value]);
      if (kept.length) sessionStorage.setItem("kept:" + location.pathname, JSON.stringify(kept));
    }
  });
  const kept = sessionStorage.getItem("kept:" + location.pathname);
  sessionStorage.removeItem("kept:" + location.pathname);
  for (const [id, value] of JSON.parse(kept || "[]")) {
    const field = by(id);
    if (field) field[typeof value === "boolean" ? "checked" : "value"] = value;
  }
  /* where one is shows in a row of places that is longer than the screen */
  function showPlace() {
    document.querySelectorAll(":is(.menu, .tabs) [aria-current]").forEach((here) => {
      const row = here.closest("ul");
      const [one, all] = [here.getBoundingClientRect(), row.getBoundingClientRect()];
      if (one.right + 24 > all.right) row.scrollLeft += one.right + 24 - all.right; // the next one peeps out
      else if (one.left < all.left) row.scrollLeft -= all.left + 24 - one.left;
    });
  }
  showPlace();
  let wide = innerWidth;
  window.addEventListener("resize", () => {
    if (wide !== innerWidth) showPlace(); // a phone's bars come and go with the height alone
    wide = innerWidth;
  });
  document.fonts.ready.then(showPlace);
  announce();
  entitle();
})();
