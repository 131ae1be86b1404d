// The checker's front end. It shows what the Python side sends and sends what the person does; it decides nothing.
// Text from files reaches the page as text nodes and attributes only.

const PRIORS = [.001, .002, .005, .01, .02, .05, .1, .2, .3, .5];
const SHAPES = {                                     // a verdict has a shape of its own, so that colour is not needed
  real: ["M12 2a10 10 0 1 0 0 20 10 10 0 0 0 0-20z", "M7.5 12.3l3 3 6-6.3"],
  fake: ["M12 1.8 23 21.5H1z", "M12 8.8v6 M12 17.6v1"],
  unsure: ["M4 3h16a1 1 0 0 1 1 1v16a1 1 0 0 1-1 1H4a1 1 0 0 1-1-1V4a1 1 0 0 1 1-1z", "M9 9.2a3 3 0 1 1 4.4 2.7c-1 .6-1.4 1-1.4 2.1 M12 16.8v1"],
  none: ["M7.9 2h8.2L22 7.9v8.2L16.1 22H7.9L2 16.1V7.9z", "M8.5 8.5l7 7 M15.5 8.5l-7 7"],
};

const HEADS = { real: "Looks like a photograph", fake: "Looks generated", unsure: "Unsure" };

function fill(node, attrs, children) {
  for (const [k, v] of Object.entries(attrs ?? {})) {
    if (typeof v === "function") node.addEventListener(k, v);
    else if (v === true) node.setAttribute(k, "");
    else if (v !== false && v != null) node.setAttribute(k, v);
  }
  node.append(...children.flat(3).filter(c => c != null && c !== false));
  return node;
}
const h = (tag, attrs, ...children) => fill(document.createElement(tag), attrs, children);
const s = (tag, attrs, ...children) => fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attrs, children);
const icon = label => s("svg", { class: "ff-icon", viewBox: "0 0 24 24", "aria-hidden": "true", "data-label": label || "none" },
  s("path", { d: SHAPES[label || "none"][0], class: "ff-shape" }), s("path", { d: SHAPES[label || "none"][1], class: "ff-sign" }));
const percent = v => `${100 * v}%`;

let marks = 0;
function bar(row) {
  const id = `ff-hatch-${++marks}`, { score, threshold, band, stability } = row;
  return s("svg", { class: "ff-bar", role: "img", "aria-label": row.alt, "data-label": row.label },
    s("defs", null, s("pattern", { id, width: 6, height: 6, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" }, s("rect", { width: 2.5, height: 6, class: "ff-hatch" }))),
    s("rect", { x: 0, y: 13, width: "100%", height: 10, rx: 5, class: "ff-track" }),
    band && s("rect", { x: percent(band[0]), y: 13, width: percent(band[1] - band[0]), height: 10, fill: `url(#${id})`, class: "ff-band" }),
    stability && s("g", { class: "ff-span" }, s("line", { x1: percent(stability.low), x2: percent(stability.high), y1: 18, y2: 18 }),
      [stability.low, stability.high].map(v => s("line", { x1: percent(v), x2: percent(v), y1: 13.5, y2: 22.5 }))),
    s("line", { x1: percent(threshold), x2: percent(threshold), y1: 5, y2: 31, class: "ff-threshold" }),
    s("svg", { x: percent(threshold), y: 0, overflow: "visible" }, s("path", { d: "M-5 0h10l-5 7z", class: "ff-arrow" })),
    s("svg", { x: percent(score), y: 18, overflow: "visible" }, s("circle", { r: 7, class: "ff-mark" })));
}

function render({ model, el }) {
  const page = document.body.dataset.voila !== undefined;          // a page of its own, not a cell
  const top = page ? 1 : 2, head = k => `h${top + k}`;               // heading levels: a notebook has its own h1
  const cards = new Map(), jobs = [], answered = new Map(), gone = new Set();    // gone: removed here, not yet there
  const early = [];                                                // files that came before the Python side has spoken
  let state = null, busy = null, setting = false, asked = 0, unset = null, notice = "", pasted = 0, silence = 0, ended = false;
  const send = (message, buffers) => {
    if (ended) return;
    if (message.kind === "set") asked++;
    model.send(message, undefined, buffers);
  };

  // ---- the page's parts, in the order of the Tab key
  const status = h("p", { class: "ff-status", role: "status", "aria-live": "polite" });
  const file = h("input", { type: "file", multiple: true, accept: "image/*,.heic,.heif,.hif", hidden: true, tabindex: -1, "aria-hidden": "true", change: () => { add([...file.files]); file.value = ""; } });
  const choose = h("button", { type: "button", class: "ff-primary", click: () => file.click() }, "Choose images");
  const limits = h("p", { class: "ff-soft" });
  const path = h("input", { type: "text", id: "ff-path", autocomplete: "off", spellcheck: "false", placeholder: "/pictures/photo.jpg" });
  const where = h("label", { for: "ff-path" }, "Or a file or folder on this computer");
  const form = h("form", { class: "ff-path", hidden: true, submit: e => { e.preventDefault(); notice = ""; if (path.value.trim()) send({ kind: "path", path: path.value }); } },
    where, h("div", { class: "ff-line" }, path, h("button", { type: "submit" }, "Check")));
  const drop = h("div", { class: "ff-drop" }, h("div", { class: "ff-droptext" }, choose, h("span", { class: "ff-or" }, "or drop them here, or paste one"), file), limits);
  const tOut = h("output", { for: "ff-threshold" }), pOut = h("output", { for: "ff-prior" });
  const t = h("input", { type: "range", id: "ff-threshold", min: 0, max: 1, step: .001, input: () => set({ threshold: +t.value }) });
  const prior = h("input", { type: "range", id: "ff-prior", min: 0, max: PRIORS.length - 1, step: 1, input: () => set({ prior: PRIORS[+prior.value] }) });
  const stored = h("div", { class: "ff-line", role: "group", "aria-label": "Stored thresholds" });
  const faces = h("input", { type: "checkbox", id: "ff-faces", change: () => options() }), stable = h("input", { type: "checkbox", id: "ff-stability", change: () => options() });
  const note = h("p", { class: "ff-soft", id: "ff-note" });
  const settings = h("details", { class: "ff-settings", open: innerWidth > 700 }, h("summary", null, "Settings for all images"),
    h("div", { class: "ff-two" },
      h("div", null, h("label", { for: "ff-threshold" }, "Threshold: ", tOut), t, stored),
      h("div", null, h("label", { for: "ff-prior" }, "Share of generated images among those you get: ", pOut), prior, note)),
    h("div", { class: "ff-line" }, h("label", { class: "ff-check" }, faces, "Find the faces and look at each (off: the middle of the whole image)"), h("label", { class: "ff-check" }, stable, "Test whether the verdict holds when the image is re-saved and rescaled")));
  const save = h("button", { type: "button", click: () => send({ kind: "csv" }) }, "Save as CSV");
  const clear = h("button", { type: "button", click: () => { jobs.length = 0; forget([...cards.keys()]); choose.focus(); } }, "Remove all");
  const actions = h("div", { class: "ff-line", hidden: true }, save, clear), tools = h("div", { class: "ff-tools" }, status, actions);
  const list = h("ul", { class: "ff-cards", role: "list", "aria-label": "Results" });
  const meanings = h("ul", { role: "list" });
  const empty = h("div", { class: "ff-empty" }, h("p", null, h("strong", null, "No image yet."), " Each one becomes a card with one of these verdicts:"), meanings);
  const about = h("p", { class: "ff-soft ff-about" }), keep = h("p", { class: "ff-soft ff-keep" }), problem = h("div", { class: "ff-problem", role: "alert", hidden: true });
  const farewell = h("div", { class: "ff-problem ff-ended", role: "alert", hidden: true, tabindex: -1 });
  const key = h("p", { class: "ff-soft ff-key", "aria-hidden": "true", hidden: true });
  const foot = h("footer", { class: "ff-foot" });
  const work = h("div", { hidden: true }, h("section", { "aria-label": "Add images", class: "ff-intake" }, drop, form, keep), settings, h(head(1), { class: "ff-unseen" }, "Results"), tools, key, list, empty);
  const root = h("div", { class: "ff", "data-lm-suppress-shortcuts": "true", "data-page": page ? "" : null },
    h("header", { class: "ff-head" }, h(head(0), { class: "ff-title" }, "Is this face a photograph?"), about), problem, farewell, work, foot);
  el.append(root);

  // ---- light or dark: the notebook's theme in JupyterLab, the system's on a page of its own
  const media = matchMedia("(prefers-color-scheme: dark)");
  const theme = () => {
    const lab = document.body.dataset.jpThemeLight;
    root.dataset.theme = (page || lab === undefined ? media.matches : lab === "false") ? "dark" : "light";
    if (page) { document.documentElement.dataset.ffTheme = root.dataset.theme; document.title = "fakeface: is this face a photograph?"; document.documentElement.lang = "en"; }
  };
  const watch = new MutationObserver(theme); watch.observe(document.body, { attributes: true, attributeFilter: ["data-jp-theme-light"] });
  media.addEventListener("change", theme); theme();

  // ---- images come in
  function add(files) {
    if (!state && !ended) { for (const f of files) early.push(f); return; }
    if (ended || state.problem || !files.length) return;
    const room = Math.max(0, state.limits.cards - cards.size); notice = files.length > room ? state.limits.full : "";
    for (const f of files.slice(0, room)) {
      const id = crypto.randomUUID ? crypto.randomUUID() : `${Date.now()}-${Math.random()}`;
      wait(id, f.name || `pasted image ${++pasted}.png`, { file: f });
    }
    if (tools.getBoundingClientRect().bottom > innerHeight - 120) tools.scrollIntoView({ block: "start" });
    next(); say();
  }
  function wait(id, name, job) {
    cards.set(id, { ...cards.get(id), id, name, state: "waiting" }); jobs.push({ id, name, ...job }); draw(id); say();
  }
  function again(c) {                                               // with the settings of now; what is being looked at is asked for once more behind it
    if (jobs.some(j => j.id === c.id)) return;
    if (busy?.id === c.id) jobs.push({ id: c.id, name: c.name, kind: "again" });
    else wait(c.id, c.name, { kind: "again" });
  }
  function forget(ids) { notice = ""; for (const id of ids) gone.add(id); send({ kind: "remove", ids }); }
  const unfinished = () => [...new Map([busy, ...jobs].filter(Boolean).map(j => [j.id, j])).values()];    // each image once
  const answer = (id, part) => new Promise(done => answered.set(`${id}/${part}`, done));
  async function next() {
    if (busy || !jobs.length) return;
    busy = jobs.shift(); const { id, name, file: f, kind } = busy, card = cards.get(id);
    if (!card) { busy = null; return next(); }
    card.state = "working"; draw(id); say();
    if (!f) return send({ kind, id });
    const wanted = () => busy?.id === id && !gone.has(id);          // it may be removed while a piece is read or under way
    if (!f.size || f.size > state.limits.bytes) return send({ kind: "refuse", id, name, size: f.size });
    const size = state.limits.part, parts = Math.max(1, Math.ceil(f.size / size));
    for (let part = 0; part < parts && wanted(); part++) {    // small pieces, one at a time: the websocket drops large messages in silence
      let data;
      try { data = await f.slice(part * size, (part + 1) * size).arrayBuffer(); } catch { return wanted() && send({ kind: "refuse", id, name, size: null }); }
      if (!wanted()) return;
      const heard = part < parts - 1 && answer(id, part);
      send({ kind: "part", id, name, part, parts, size: f.size }, [data]);
      if (heard) await heard;
    }
  }
  function done(id) {
    if (busy?.id === id) busy = null;
    for (const [k, go] of answered) if (k.startsWith(`${id}/`)) { answered.delete(k); go(); }
    next(); say();
  }
  const mine = e => page || e.composedPath().includes(root) || root.contains(document.activeElement);
  const over = e => { if (![...e.dataTransfer.types].includes("Files")) return; e.preventDefault(); e.stopPropagation(); root.classList.add("ff-over"); };
  const leave = e => { if (!e.relatedTarget || !root.contains(e.relatedTarget)) root.classList.remove("ff-over"); };
  const dropped = e => { if (!e.dataTransfer.files.length) return; e.preventDefault(); e.stopPropagation(); root.classList.remove("ff-over"); add([...e.dataTransfer.files]); };
  const paste = e => {
    const files = [...(e.clipboardData?.files ?? [])]; if (!files.length || !mine(e)) return;
    e.preventDefault(); add(files.map(f => f.name && f.name !== "image.png" ? f : new File([f], `pasted image ${++pasted}.png`, { type: f.type })));
  };
  const place = page ? document : root;
  const leaving = e => { if (page && !e.persisted && cards.size) send({ kind: "remove", ids: [...cards.keys()] }); };      // a page that closes takes its images along
  const listeners = [[place, "dragover", over], [place, "dragleave", leave], [place, "drop", dropped], [document, "paste", paste], [window, "pagehide", leaving]];
  for (const [o, k, f] of listeners) o.addEventListener(k, f);

  // ---- sliders: one question at a time, the last value wins
  function set(values) {
    Object.assign(state, values); sliders(); unset = { ...unset, ...values };
    if (!setting) flush();
  }
  function flush() { if (unset) { setting = true; send({ kind: "set", ...unset }); unset = null; } else setting = false; }
  function options() {
    send({ kind: "set", faces: faces.checked, stability: stable.checked });
    for (const c of cards.values()) if (busy?.id === c.id || c.rows?.length) again(c);    // no verdict of before is shown beside a switch of now
    next(); say();
  }
  function sliders() {
    const i = PRIORS.reduce((a, p, k) => Math.abs(p - state.prior) < Math.abs(PRIORS[a] - state.prior) ? k : a, 0);
    t.value = state.threshold; prior.value = i; tOut.textContent = state.threshold.toFixed(3); pOut.textContent = `${100 * PRIORS[i]}%`;
    t.setAttribute("aria-valuetext", tOut.textContent); prior.setAttribute("aria-valuetext", pOut.textContent);
    for (const b of stored.children) b.setAttribute("aria-pressed", Math.abs(b.dataset.value - state.threshold) < 5e-4);
  }

  // ---- what is shown
  function say() {
    const left = unfinished().length, total = cards.size;
    status.textContent = [left ? `Checking: ${total - left} of ${total} done …` : state?.summary, notice].filter(Boolean).join(" ");
    actions.hidden = key.hidden = !total; empty.hidden = !!total; root.classList.toggle("ff-some", !!total); list.setAttribute("aria-busy", left > 0);
    clearTimeout(silence);
    if (left) silence = setTimeout(() => { status.textContent = "No answer for a minute. If this page was left alone for long, its process has ended: reload the page and add the images again."; }, 60000);
  }
  function face(c) {                                                // the image, with face boxes or the heat-map over it
    const heat = c.state ? null : c.heat?.[c.shown];                // while it is looked at again, what was found before is not shown
    if (!c.thumb) return h("div", { class: "ff-pic ff-nopic" }, !c.state && icon("none"));
    return h("div", { class: "ff-pic" }, h("img", { src: heat?.image ?? c.thumb, alt: heat?.image ? `Heat-map over ${c.name}` : `Small copy of ${c.name}` }),
      !c.state && !heat?.image && c.rows.some(r => r.box) && s("svg", { viewBox: `0 0 ${c.width} ${c.height}`, "aria-hidden": "true", class: "ff-boxes" },
        c.rows.map((r, i) => r.box && [s("rect", { x: r.box[0], y: r.box[1], width: r.box[2] - r.box[0], height: r.box[3] - r.box[1] }),
          c.rows.length > 1 && s("text", { x: r.box[0], y: r.box[1], dx: ".25em", dy: ".95em", "font-size": .09 * Math.max(c.width, c.height) }, String(i + 1))])));
  }
  function dropMaps(c) {                                            // heat-maps of what is no longer said
    for (const i in c.heat) {
      const said = c.rows[i]?.label === "real" ? "real" : "fake";
      if (c.heat[i].image && c.heat[i].shows !== said) { delete c.heat[i]; if (c.shown === +i) c.shown = null; }
    }
  }
  function heatButton(c, i) {
    const on = c.shown === i, heat = c.heat?.[i], waiting = on && !heat;
    const click = () => {
      if (waiting) return;
      c.shown = on ? null : i;
      if (!on && !heat?.image) { delete c.heat[i]; send({ kind: "heatmap", id: c.id, row: i }); }
      draw(c.id);
    };
    return [h("button", { type: "button", class: "ff-small", "aria-pressed": String(on && !!heat?.image), "aria-disabled": waiting ? "true" : null, "data-key": `heat ${i}`, click }, waiting ? "Heat-map …" : on && heat.image ? "Hide heat-map" : "Heat-map"),
      on && heat && h("p", { class: heat.error ? "ff-warn" : "ff-soft", role: "status" }, heat.error || `Bright: where the network found what speaks for ${heat.shows === "real" ? "a photograph" : "a generated image"}. It shows where it looked, not that it is right.`)];
  }
  function verdict(c, r, i) {
    return h("section", { class: "ff-row", "data-label": r.label }, c.rows.length > 1 && h(head(3), { class: "ff-verdict ff-minor", "data-label": r.label }, icon(r.label), `${r.looked_at[0].toUpperCase()}${r.looked_at.slice(1)}: ${r.head.toLowerCase()}`),
      h("div", { class: "ff-shown" }, c.seen?.[i] && h("img", { src: c.seen[i], class: "ff-seen", alt: `What was looked at: ${r.looked_at}, ${r.place}` }),
        h("div", null, h("p", { class: "ff-words" }, r.words), h("p", { class: "ff-soft" }, `Looked at: ${[r.looked_at, r.place].filter(Boolean).join(", ")}`))),
      r.score !== null && [bar(r),
        h("div", { class: "ff-scale", "aria-hidden": "true" }, h("span", null, "0 photographed"), h("span", { class: "ff-score" }, `score ${r.score_text}`), h("span", null, "generated 1"))],
      r.prior && h("p", { class: "ff-prior" }, r.prior), r.stable && h("p", null, r.stable),
      r.warnings.length > 0 && h("ul", { class: "ff-warnings", role: "list", "aria-label": "Warnings" }, r.warnings.map(w => h("li", null, w))),
      r.score !== null && h("div", { class: "ff-heat" }, heatButton(c, i)));
  }
  function draw(id) {
    const c = cards.get(id); if (!c) return;
    const label = c.state ? "" : c.label, was = c.node, open = was?.querySelector("details")?.open;
    const focus = was?.contains(document.activeElement) ? document.activeElement.dataset.key : null;    // a card is drawn anew; the focus stays where it was
    c.node = h("li", { class: "ff-card", "data-label": label || "none", "data-state": c.state ?? "done" }, face(c), h("div", { class: "ff-body" },
      h(head(2), { class: "ff-name" }, h("bdi", null, c.name)),
      !c.state && c.declared && h("p", { class: "ff-says" }, "About the file itself, apart from the score: ", c.declared),
      c.state ? h("p", { class: "ff-verdict" }, h("span", { class: "ff-spin", "aria-hidden": "true" }), c.state === "working" ? "Looking at it …" : "Waiting")
        : h("p", { class: "ff-verdict", "data-label": label || "none" }, icon(label), c.head),
      !c.state && c.outdated && h("p", { class: "ff-warn ff-outdated" }, c.outdated),
      !c.state && c.error && h("p", { class: "ff-error" }, c.error), !c.state && c.rows.map((r, i) => verdict(c, r, i)),
      !c.state && c.facts?.length > 0 && h("details", { open: open || null }, h("summary", { "data-key": "facts" }, "What the file says about itself"),
        h("dl", null, c.facts.flatMap(([k, v]) => [h("dt", null, k), h("dd", null, v)]))),
      h("button", { type: "button", class: "ff-remove", "data-key": "remove", "aria-label": `Remove ${c.name}`, title: "Remove", click: () => remove(id) }, "×")));
    if (was?.isConnected) was.replaceWith(c.node); else list.append(c.node);
    if (focus) (c.node.querySelector(`[data-key="${focus}"]`) ?? c.node.querySelector(".ff-remove")).focus();
  }
  function remove(id) {
    const n = cards.get(id)?.node, to = n?.nextElementSibling ?? n?.previousElementSibling;
    const k = jobs.findIndex(j => j.id === id); if (k >= 0) jobs.splice(k, 1);
    forget([id]); (to?.querySelector(".ff-remove") ?? choose).focus();
  }

  // ---- the program behind the page may end: it died, was ended, or its computer is gone
  const kernel = model.widget_manager?.kernel;
  function end(cut = false) {                                       // cut: the connection is lost, whatever became of the program
    if (ended) return;
    const left = unfinished(), lost = [...left, ...early]; ended = true; busy = null; jobs.length = 0; notice = "";
    for (const go of answered.values()) go();
    answered.clear(); clearTimeout(silence);
    for (const { id } of left) Object.assign(cards.get(id) ?? {}, { state: null, thumb: "", label: "", head: "Not checked", outdated: "", rows: [], facts: [], heat: {}, warnings: [], error: `The ${cut ? "connection to the program" : "program"} behind this page ended before this image was judged.` });
    for (const { id } of left) draw(id);
    farewell.replaceChildren(h(head(1), null, `The ${cut ? "connection to the program" : "program"} behind this page has ended`),
      cut ? h("p", null, "If fakeface serve still runs, reload this page. If it has ended, do not: start it again and open the address that it prints.") : "",
      h("p", null, page ? "What is shown below stays until the page is reloaded. Then add the images that you need once more." : "What is shown below stays until the cell is run again."),
      lost.length ? h("p", null, "Not judged: ", lost.map(({ name }, i) => [i > 0 && ", ", h("bdi", null, name)])) : "",
      page ? h("button", { type: "button", class: "ff-primary", click: () => location.reload() }, "Reload the page") : "");
    farewell.hidden = false; for (const part of [drop, form, settings]) part.inert = true;
    if (state && left.length) state.summary = `${cards.size} image${cards.size === 1 ? "" : "s"}, ${left.length} of them not judged.`;
    say(); actions.hidden = true; farewell.scrollIntoView({ block: "start" }); farewell.focus();
  }
  const judge = (_, status) => { if (["dead", "restarting", "autorestarting", "terminating"].includes(status)) end(); };
  // Another program may have taken the port since: nothing is sent to it, no question either, and no connection is opened again.
  const lost = (_, status) => { if (page && status !== "connected") { end(true); kernel.dispose(); } };
  kernel?.statusChanged?.connect(judge); kernel?.connectionStatusChanged?.connect(lost);
  const code = text => text.split("`").map((x, i) => i % 2 ? h("code", null, x) : x);

  // ---- what the Python side says
  const hear = {
    state(m) {
      state = m; about.replaceChildren(...code(m.about)); problem.hidden = !m.problem; work.hidden = !!m.problem;
      problem.replaceChildren(h(head(1), null, "No detector"), ...m.problem.split("\n").filter(Boolean).map(x => h("p", null, ...code(x))));
      limits.textContent = m.limits.text; form.hidden = !m.paths; faces.checked = m.faces; stable.checked = m.stability; keep.textContent = m.keep; where.textContent = m.below ? `Or a file or folder below ${m.below}` : "Or a file or folder on this computer"; path.placeholder = m.below ? "photo.jpg" : "/pictures/photo.jpg"; foot.textContent = m.foot;
      stored.replaceChildren(...(m.stored ?? []).map(b => h("button", { type: "button", class: "ff-small", title: b.hint, "data-value": b.value, click: () => set({ threshold: b.value }) }, b.text)));
      note.textContent = m.note; explain(m); for (const c of m.cards) { put(c); if (c.outdated && c.again) again(c); } if (!m.problem) sliders(); next(); say();
      add(early.splice(0));
    },
    card({ card, summary }) { if (!gone.has(card.id)) put(card); state.summary = summary; done(card.id); },
    relabel(m) {
      state.summary = m.summary; note.textContent = m.note; explain(m);
      asked = Math.max(0, asked - 1);
      if (!asked) { faces.checked = m.faces; stable.checked = m.stability; }    // another view of the same cards may have switched
      for (const u of m.cards) {
        const c = cards.get(u.id); if (!c) continue;
        Object.assign(c, u); dropMaps(c); draw(u.id); if (u.outdated && u.again && busy?.id !== u.id) again(c);
      }
      flush(); next(); say();
    },
    ack({ id, part }) { const k = `${id}/${part}`; answered.get(k)?.(); answered.delete(k); },
    paths({ files }) { path.value = ""; for (const { id, name } of files) wait(id, name, { kind: "open" }); next(); },
    heatmap({ id, row, image, shows, error }) { const c = cards.get(id); if (c) { c.heat[row] = { image, shows, error }; dropMaps(c); draw(id); } },
    removed({ ids, summary }) { state.summary = summary; for (const id of ids) { cards.get(id)?.node.remove(); cards.delete(id); gone.delete(id); done(id); } },
    csv({ name, text }) {
      const url = URL.createObjectURL(new Blob(["\ufeff", text], { type: "text/csv" })), a = h("a", { href: url, download: name });
      root.append(a); a.click(); a.remove(); setTimeout(() => URL.revokeObjectURL(url), 1000);
    },
    say({ text }) { notice = text; setting = false; asked = 0; say(); },
  };
  const put = card => { cards.set(card.id, { ...cards.get(card.id), state: jobs.some(j => j.id === card.id) ? "waiting" : null, heat: {}, shown: null, ...card }); draw(card.id); };
  const legend = m => [h("span", null, s("svg", { width: 14, height: 14, viewBox: "-7 -7 14 14" }, s("circle", { r: 5, class: "ff-mark" })), "score"),
    h("span", null, s("svg", { width: 12, height: 14, viewBox: "-6 0 12 14" }, s("path", { d: "M-5 0h10l-5 7z", class: "ff-arrow" }), s("line", { y1: 0, y2: 14, class: "ff-threshold" })), `threshold ${m.threshold.toFixed(3)}`),
    m.band && m.band[0] < m.band[1] ? h("span", null, h("span", { class: "ff-swatch" }), `unsure from ${m.band[0].toFixed(3)} up to ${m.band[1].toFixed(3)}`) : "",
    h("span", null, s("svg", { width: 22, height: 14, viewBox: "0 -7 22 14", class: "ff-span" }, s("line", { x1: 2, x2: 20, y1: 0, y2: 0 }), s("line", { x1: 2, x2: 2, y1: -4.5, y2: 4.5 }), s("line", { x1: 20, x2: 20, y1: -4.5, y2: 4.5 })), "re-saved and rescaled")];
  const explain = m => {                                           // which scores get which word, as the slider stands
    if (!m.words) return;
    key.replaceChildren(...legend(m), ...["real", "fake"].map(k => h("span", null, icon(k), `${HEADS[k]}: ${m.words[k]}`)));
    meanings.replaceChildren(...Object.entries(HEADS).map(([k, head]) => h("li", null, icon(k), h("span", null, h("strong", null, head), `: ${m.words[k]}`))));
  };
  const message = m => hear[m?.kind]?.(m);
  model.on("msg:custom", message); send({ kind: "hello", page });
  return () => {
    model.off("msg:custom", message); media.removeEventListener("change", theme); watch.disconnect(); clearTimeout(silence);
    kernel?.statusChanged?.disconnect(judge); kernel?.connectionStatusChanged?.disconnect(lost);
    for (const [o, k, f] of listeners) o.removeEventListener(k, f);
  };
}

export default { render };
