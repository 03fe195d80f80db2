// The page's script: what is asked is in the address, and what was found below it.

const PAGE = 48; // photographs that are asked for at once
const PAUSE = 480; // after so many the page grows only when asked to
const SENT_EDGE = 1024; // pixels: pictures go to the server no larger
const RETRIES = 4;

const $ = (id) => document.getElementById(id);
const about = document.body.dataset;
const [small, large] = about.sizes.split(" ").map(Number);
const count = (n) => n.toLocaleString("en-US");
const total = Number(about.photographs);

let asked = {}; // as the address says
let picture = null; // a file of the visitor's, which no address can say
let hits = [];
let next = null;
let request = null;
let pause = PAUSE; // from this many on
let shown = -1; // in the dialog
let foldable = true; // whether there are folders or dates
let here = ""; // the address of what is shown

// -- the address ---------------------------------------------------------------------------------

const KEYS = ["q", "like", "labels", "folder", "since", "until", "all"];

function readAddress() {
  const given = new URLSearchParams(location.search);
  asked = {};
  for (const key of KEYS) if (given.has(key)) asked[key] = given.get(key);
  if (given.has("token")) history.replaceState(null, "", address(asked)); // it is a cookie now
}

function address(what) {
  const given = new URLSearchParams();
  for (const key of KEYS) {
    if (what[key] || (key === "labels" && what.labels !== undefined)) given.set(key, what[key]);
  }
  const text = given.toString();
  return text ? `/?${text}` : "/";
}

function go(changes, { keepPicture = false } = {}) {
  const filters = { folder: asked.folder, since: asked.since, until: asked.until };
  asked = { ...filters, ...changes };
  if (!keepPicture) setPicture(null);
  history.pushState(null, "", address(asked));
  show();
}

// -- asking --------------------------------------------------------------------------------------

class Refusal extends Error {
  constructor(status, words) {
    super(words);
    this.status = status;
  }
}

async function fetched(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, { ...options, credentials: "same-origin" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal(0, "The server does not answer. Is lateen serve still running?");
  }
  if (answer.ok) return answer;
  const told = await answer.json().catch(() => ({}));
  const words = [told.error || `The server answered ${answer.status}.`, told.remedy];
  throw new Refusal(answer.status, words.filter(Boolean).join(" "));
}

async function ask(path, options) {
  return (await fetched(path, options)).json();
}

function filters() {
  return Object.fromEntries(
    ["folder", "since", "until"].filter((key) => asked[key]).map((key) => [key, asked[key]]),
  );
}

const encoded = (id) => id.split("/").map(encodeURIComponent).join("/");

async function found(offset, signal) {
  const cut = asked.all ? "0" : "1";
  if (picture) {
    const form = new FormData();
    form.append("image", await smaller(picture), "picture");
    const fields = { query: asked.q || "", k: PAGE, offset, cut, ...filters() };
    for (const [key, value] of Object.entries(fields)) form.append(key, value);
    return ask("/api/search", { method: "POST", body: form, signal });
  }
  const given = new URLSearchParams({ k: PAGE, offset, ...filters() });
  if (asked.like) return ask(`/api/similar/${encoded(asked.like)}?${given}`, { signal });
  given.set("q", asked.q);
  given.set("cut", cut);
  return ask(`/api/search?${given}`, { signal });
}

async function smaller(file) {
  // Also so that what the file says of where it was taken stays here.
  try {
    const bitmap = await createImageBitmap(file);
    const scale = Math.min(1, SENT_EDGE / Math.min(bitmap.width, bitmap.height));
    const canvas = document.createElement("canvas");
    canvas.width = Math.round(bitmap.width * scale);
    canvas.height = Math.round(bitmap.height * scale);
    const drawing = canvas.getContext("2d");
    drawing.fillStyle = "#fff";
    drawing.fillRect(0, 0, canvas.width, canvas.height);
    drawing.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
    bitmap.close();
    return (await new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.92))) || file;
  } catch {
    return file; // of a format that the server may know, and this browser does not
  }
}

// -- what is shown -------------------------------------------------------------------------------

async function show() {
  request?.abort();
  request = new AbortController();
  const { signal } = request;
  const sorts = asked.labels !== undefined;
  say();
  complain();
  const idle = sorts ? !asked.labels.trim() : !picture && !asked.like && !(asked.q || "").trim();
  for (const id of ["start", "start-labels", "nothing"]) $(id).hidden = true;
  $("copy").hidden = idle || Boolean(picture);
  writeForm(sorts);
  $("end").textContent = "";
  $("more").hidden = true;
  next = null;
  pause = PAUSE;
  if (idle) {
    empty();
    $(sorts ? "start-labels" : "start").hidden = false;
    return;
  }
  busy(true);
  try {
    await (sorts ? sortByLabels(signal) : find(signal));
  } catch (error) {
    if (error.name === "AbortError") return;
    empty();
    complain(error, show);
  }
  if (!signal.aborted) busy(false);
}

async function find(signal) {
  const answer = await found(0, signal);
  empty();
  window.scrollTo(0, 0);
  $("nothing").hidden = !answer.nothing && answer.among > 0;
  $("nothing-title").textContent = answer.among ? "Nothing like that here" : "No photographs";
  $("anyway").hidden = !answer.nothing;
  if (!answer.among) {
    $("nothing-words").textContent = "There are none in that folder, of that time.";
    say("No photographs.");
    return;
  }
  if (answer.nothing) {
    const percent = (value) => `${(100 * value).toFixed(1)} %`;
    const probable = answer.nearest ? percent(answer.nearest.probability) : "";
    $("nothing-words").textContent =
      `Of ${count(answer.among)} photographs, the nearest shows it with a probability of ` +
      `${probable}, and below ${percent(answer.cut_off)} none is shown.`;
    say("Nothing like that here.");
    return;
  }
  add(answer);
  watching.unobserve($("more"));
  watching.observe($("more"));
  const among = `among ${count(answer.among)} photographs`;
  const what = picture ? (asked.q ? `A picture and ${asked.q}` : "Like the picture") : "";
  const like = asked.like ? `Like ${fileName(asked.like)}` : "";
  say(among, what || like || answer.query);
}

function add(answer) {
  const start = hits.length;
  hits.push(...answer.hits);
  $("grid").append(...answer.hits.map((hit, place) => tile(hit, start + place, hits)));
  next = answer.next;
  $("more").hidden = next === null;
  if (next !== null) return;
  const left = answer.among - hits.length;
  $("end").textContent = "";
  if (left > 0 && answer.cut_off !== null) {
    const words = document.createElement("span");
    words.textContent = `The other ${count(left)} hardly show it. `;
    const button = document.createElement("button");
    button.type = "button";
    button.className = "plain";
    button.textContent = "Show them anyway";
    button.onclick = () => go({ ...asked, all: "1" }, { keepPicture: true });
    $("end").append(words, button);
  }
}

async function more() {
  watching.unobserve($("more")); // so that it is looked again whether it is in sight
  if (next === null || $("grid").ariaBusy === "true") return;
  const { signal } = request;
  const offset = next;
  busy(true);
  try {
    const answer = await found(offset, signal);
    if (!signal.aborted) {
      add(answer);
      watching.observe($("more"));
      if (answer.hits.length) say(`${count(hits.length)} photographs`, undefined, true);
    }
  } catch (error) {
    if (error.name === "AbortError") return;
    complain(error, more);
    $("more").hidden = true;
  }
  if (!signal.aborted) busy(false);
}

async function sortByLabels(signal) {
  const labels = asked.labels.split(",").map((label) => label.trim()).filter(Boolean);
  say("Sorting …");
  const answer = await ask("/api/classify", {
    method: "POST", signal, headers: { "content-type": "application/json" },
    body: JSON.stringify({ labels, k: 24, filter: filters() }),
  });
  empty();
  window.scrollTo(0, 0);
  for (const { label, count: many, hits: surest } of answer.labels) {
    const start = hits.length;
    hits.push(...surest);
    const section = element("section", { className: "label" });
    const heading = element("h2");
    const meter = element("meter", { max: Math.max(1, answer.among), value: many });
    meter.setAttribute("aria-hidden", "true");
    const words = `${count(many)} · ${percentOf(many, answer.among)}`;
    const number = element("span", { className: "count", textContent: words });
    heading.append(element("span", { textContent: label }), meter, number);
    const row = element("ul", { className: "grid" });
    row.setAttribute("aria-label", `The surest of ${label}`);
    row.append(...surest.map((hit, place) => tile(hit, start + place)));
    const none = element("p", { className: "none", textContent: "none" });
    section.append(heading, surest.length ? row : none);
    $("labels").append(section);
  }
  say(`${count(answer.among)} photographs`, `${labels.length} labels`);
}

const percentOf = (part, whole) => `${whole ? ((100 * part) / whole).toFixed(1) : 0} %`;
const fileName = (id) => id.slice(id.lastIndexOf("/") + 1);
const element = (name, values = {}) => Object.assign(document.createElement(name), values);

function score(hit) {
  if (hit.confidence !== undefined) return `${(100 * hit.confidence).toFixed(0)} %`;
  if (hit.probability !== undefined) {
    const percent = 100 * hit.probability;
    return `${percent.toFixed(percent < 10 ? 1 : 0)} %`;
  }
  return hit.score.toFixed(3);
}

function fileSize(bytes) {
  return bytes < 1e6 ? `${Math.ceil(bytes / 1e3)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}

function describe(hit) {
  return (hit.captions && hit.captions[0]) || fileName(hit.id);
}

function tile(hit, place) {
  const known = hit.width > 0 && hit.height > 0;
  const ratio = known ? Math.min(2.6, Math.max(0.5, hit.width / hit.height)) : 1;
  const item = element("li", { className: "tile" });
  item.style.setProperty("--ratio", ratio.toFixed(4));
  const link = element("a", { href: `/api/image/${encoded(hit.id)}` });
  link.onclick = (event) => {
    if (event.metaKey || event.ctrlKey || event.shiftKey) return;
    event.preventDefault();
    open(place);
  };
  const image = element("img", {
    alt: describe(hit), loading: place < 12 ? "eager" : "lazy", decoding: "async",
    width: Math.round(small * ratio), height: small,
  });
  const source = (size) => `/api/thumbnail/${encoded(hit.id)}?size=${size}`;
  image.srcset = `${source(small)} ${small}w, ${source(large)} ${large}w`;
  image.sizes = `${Math.round(Math.max(ratio, 1) * 220)}px`;
  image.onerror = () => lost(image, source(small), link);
  link.append(image);
  const words = element("span", { className: "about" });
  words.append(element("span", { textContent: fileName(hit.id) }));
  words.append(element("b", { textContent: score(hit) }));
  link.append(words);
  const like = element("button", { className: "like", type: "button", textContent: "More like this" });
  like.setAttribute("aria-label", `More like ${describe(hit)}`);
  like.onclick = () => go({ like: hit.id });
  item.append(link, like);
  return item;
}

async function lost(image, source, link) {
  const tries = Number(image.dataset.tries || 0);
  const error = await fetched(source).then(() => null, (why) => why);
  const busy = error === null || [429, 503].includes(error.status);
  if (busy && tries < RETRIES) {
    image.dataset.tries = tries + 1;
    await new Promise((done) => setTimeout(done, 500 * 2 ** tries));
    const set = image.srcset;
    image.srcset = "";
    image.srcset = set;
    return;
  }
  const words = error instanceof Refusal ? error.message : "It cannot be shown.";
  const note = element("span", { className: "lost", textContent: words });
  image.replaceWith(note);
  link.querySelector(".about")?.remove();
}

function empty() {
  hits = [];
  $("grid").replaceChildren();
  $("labels").replaceChildren();
}

function busy(is) {
  for (const id of ["grid", "labels"]) $(id).setAttribute("aria-busy", String(is));
}

function say(text = "", what = undefined, keep = false) {
  const status = $("status");
  status.classList.toggle("hidden", !$("nothing").hidden); // where a heading says it
  const first = keep ? status.querySelector("b") : null;
  status.replaceChildren();
  const bold = what ? element("b", { textContent: what }) : first;
  if (bold) status.append(bold, " ");
  status.append(text);
  if (!keep) document.title = `${what ? `${what} – ` : ""}${about.name} – lateen`;
}

function complain(error, again) {
  $("problem").replaceChildren();
  if (!error) return;
  const text = error.message || String(error);
  const box = element("p", { className: "problem", textContent: text });
  if (again && ![400, 404, 413, 422].includes(error.status)) {
    const button = element("button", { type: "button", textContent: "Try again" });
    button.onclick = () => {
      complain();
      again();
    };
    box.append(button);
  }
  $("problem").append(box);
  say();
}

// -- the form ------------------------------------------------------------------------------------

function writeForm(sorts) {
  here = location.search;
  const words = $("words");
  words.value = (sorts ? asked.labels : asked.q) || "";
  const label = sorts ? "Labels, with commas" : "What is on the photograph";
  words.placeholder = picture ? "Words beside the picture" : label;
  $("words-label").textContent = words.placeholder;
  $("choose").hidden = sorts;
  for (const [id, current] of [["to-find", !sorts], ["to-labels", sorts]]) {
    current ? $(id).setAttribute("aria-current", "page") : $(id).removeAttribute("aria-current");
  }
  writeFilters();
}

function writeFilters() {
  const folder = $("folder");
  const given = asked.folder || "";
  if (given && ![...folder.options].some((option) => option.value === given)) {
    folder.add(new Option(given, given));
  }
  folder.value = given;
  $("since").value = wholeDay(asked.since, "-01");
  $("until").value = wholeDay(asked.until, "-31");
  const some = Boolean(asked.folder || asked.since || asked.until);
  $("clear").hidden = !some;
  $("unfold").textContent = foldable ? `Folder and date${some ? ": some" : ""}` : "Link";
  $("unfold").hidden = !foldable && $("copy").hidden;
}

const wholeDay = (text) => (/^\d{4}-\d\d-\d\d$/.test(text || "") ? text : "");

function setPicture(file) {
  const image = $("picture").querySelector("img");
  if (image.src) URL.revokeObjectURL(image.src);
  image.removeAttribute("src");
  picture = file;
  $("picture").hidden = !file;
  if (file) image.src = URL.createObjectURL(file);
  else $("file").value = "";
}

function searchWith(file) {
  if (!file) return;
  setPicture(file);
  go({ q: "" }, { keepPicture: true });
}

$("form").onsubmit = (event) => {
  event.preventDefault();
  const text = $("words").value.trim();
  if (asked.labels !== undefined) go({ labels: text });
  else if (text || picture) go({ q: text }, { keepPicture: true });
  if (matchMedia("(hover: none)").matches) $("words").blur(); // the keyboard goes
};
$("choose").onclick = () => $("file").click();
$("file").onchange = () => searchWith($("file").files[0]);
$("remove").onclick = () => {
  go({ q: asked.q });
  $("words").focus();
};
$("anyway").onclick = () => go({ ...asked, all: "1" }, { keepPicture: true });
for (const id of ["folder", "since", "until"]) {
  $(id).onchange = () => go({ ...asked, [id]: $(id).value }, { keepPicture: true });
}
$("clear").onclick = () =>
  go({ ...asked, folder: "", since: "", until: "" }, { keepPicture: true });
$("unfold").onclick = () => {
  const open = $("filters").classList.toggle("open");
  $("unfold").setAttribute("aria-expanded", String(open));
};
for (const [id, changes] of [["to-find", {}], ["to-labels", { labels: "" }], ["home", {}]]) {
  $(id).onclick = (event) => {
    if (event.metaKey || event.ctrlKey) return;
    event.preventDefault();
    go(id === "home" ? { folder: "", since: "", until: "" } : changes);
    $("words").focus();
  };
}
$("more").onclick = () => {
  pause = hits.length + PAUSE;
  more();
};
$("copy").onclick = async () => {
  const link = new URL(address(asked), location.href).href;
  try {
    await navigator.clipboard.writeText(link);
  } catch {
    const field = element("textarea", { value: link }); // where there is no https
    document.body.append(field);
    field.select();
    document.execCommand("copy");
    field.remove();
  }
  $("copy").textContent = "Link copied";
  setTimeout(() => ($("copy").textContent = "Copy link"), 2000);
};

// Pictures that are dropped or pasted.
let inside = 0;
const hasFile = (event) => [...(event.dataTransfer?.types || [])].includes("Files");
addEventListener("dragenter", (event) => {
  if (hasFile(event)) $("drop").classList.toggle("on", ++inside > 0);
});
addEventListener("dragleave", (event) => {
  if (hasFile(event)) $("drop").classList.toggle("on", --inside > 0);
});
addEventListener("dragover", (event) => hasFile(event) && event.preventDefault());
addEventListener("drop", (event) => {
  inside = 0;
  $("drop").classList.remove("on");
  if (!hasFile(event)) return;
  event.preventDefault();
  searchWith(event.dataTransfer.files[0]);
});
addEventListener("paste", (event) => {
  const file = [...(event.clipboardData?.files || [])][0];
  if (!file) return;
  event.preventDefault();
  searchWith(file);
});

// -- one photograph ------------------------------------------------------------------------------

function open(place) {
  shown = place;
  const hit = hits[place];
  const image = $("view-image");
  $("view-problem").textContent = "";
  image.hidden = false;
  // The thumbnail is there already, and stands in until the large one is.
  image.src = `/api/thumbnail/${encoded(hit.id)}?size=${large}`;
  image.alt = describe(hit);
  if (hit.width && hit.height) {
    image.width = hit.width;
    image.height = hit.height;
  }
  const whole = new Image();
  const source = `/api/image/${encoded(hit.id)}`;
  whole.onload = () => shown === place && (image.src = source);
  whole.onerror = () =>
    fetched(source).catch((error) => {
      if (shown !== place) return;
      $("view-problem").textContent = error instanceof Refusal ? error.message : "";
      image.hidden = error instanceof Refusal;
    });
  whole.src = source;
  $("view-name").textContent = fileName(hit.id);
  $("view-caption").textContent = (hit.captions && hit.captions[0]) || "";
  writeFacts(hit);
  $("previous").disabled = place === 0;
  $("next").disabled = place === hits.length - 1 && next === null;
  const original = $("view-original");
  original.hidden = !about.originals;
  original.href = `${source}?original=1`;
  if (!$("view").open) $("view").showModal();
}

function writeFacts(hit) {
  const kinds = [["confidence", "share of the labels"], ["probability", "probability"]];
  const facts = [
    ...kinds.filter(([key]) => hit[key] !== undefined).map(([, name]) => [name, score(hit)]),
    ["cosine", hit.score.toFixed(3)],
    ["taken", hit.taken ? hit.taken.slice(0, 16).replace("T", " ") : ""],
    ["folder", hit.folder],
    ["size", hit.width ? `${hit.width} × ${hit.height}` : ""],
    ["file", hit.bytes ? fileSize(hit.bytes) : ""],
    ["rating", hit.rating > 0 ? "★".repeat(hit.rating) : ""],
    ["place", hit.latitude !== undefined && hit.latitude !== null
      ? `${hit.latitude.toFixed(4)}, ${hit.longitude.toFixed(4)}` : ""],
  ];
  const rows = facts.filter(([, value]) => value);
  $("view-facts").replaceChildren(
    ...rows.flatMap(([name, value]) => [
      element("dt", { textContent: name }), element("dd", { textContent: value }),
    ]),
  );
}

async function turn(step) {
  const place = shown + step;
  if (place >= hits.length && next !== null) await more();
  if (place >= 0 && place < hits.length) open(place);
}

const tiles = () => [...document.querySelectorAll(".tile > a")];

$("view").onclose = () => {
  tiles()[shown]?.focus();
  shown = -1;
  $("view-image").removeAttribute("src");
};
$("close").onclick = () => $("view").close();
$("previous").onclick = () => turn(-1);
$("next").onclick = () => turn(1);
$("view-like").onclick = () => {
  const { id } = hits[shown];
  $("view").close();
  go({ like: id });
};
$("view").onkeydown = (event) => {
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (step) turn(step);
};
let touched = null;
$("view").ontouchstart = (event) => (touched = event.touches[0].clientX);
$("view").ontouchend = (event) => {
  const moved = event.changedTouches[0].clientX - touched;
  if (Math.abs(moved) > 60) turn(moved > 0 ? -1 : 1);
};

// Arrow keys among the photographs; "/" goes back to the words.
addEventListener("keydown", (event) => {
  const focused = document.activeElement;
  if (event.key === "/" && !/INPUT|SELECT|TEXTAREA/.test(focused.tagName) && !$("view").open) {
    event.preventDefault();
    $("words").select();
    return;
  }
  if (!focused.matches?.(".tile > a") || event.altKey || event.ctrlKey || event.metaKey) return;
  const all = tiles();
  const place = all.indexOf(focused);
  const goal = {
    ArrowLeft: () => all[place - 1],
    ArrowRight: () => all[place + 1],
    ArrowUp: () => nearest(all, focused, -1),
    ArrowDown: () => nearest(all, focused, 1),
  }[event.key]?.();
  if (!goal) return;
  event.preventDefault();
  goal.focus();
});

function nearest(all, from, way) {
  const box = from.getBoundingClientRect();
  const middle = box.left + box.width / 2;
  let best = null;
  let least = Infinity;
  for (const each of all) {
    const other = each.getBoundingClientRect();
    const rows = (way * (other.top - box.top)) / box.height;
    if (rows < 0.5) continue;
    const far = rows * 1000 + Math.abs(other.left + other.width / 2 - middle) / box.width;
    if (far < least) [best, least] = [each, far];
  }
  return best;
}

// -- beginning -----------------------------------------------------------------------------------

async function writeFolders() {
  const { folders, first, last } = await ask("/api/folders");
  const select = $("folder");
  for (const { folder, count: many } of folders) {
    const depth = folder.split("/").length - 1;
    const name = `${"\u2003".repeat(depth)}${fileName(folder)} (${count(many)})`;
    select.add(new Option(name, folder));
  }
  select.value = asked.folder || "";
  select.parentElement.hidden = !folders.length;
  for (const id of ["since", "until"]) {
    $(id).parentElement.hidden = !first;
    if (first) [$(id).min, $(id).max] = [first, last];
  }
  foldable = Boolean(folders.length || first);
  writeFilters();
}

const watching = new IntersectionObserver(
  (entries) => {
    if (entries.some((entry) => entry.isIntersecting) && hits.length < pause) more();
  },
  { rootMargin: "0px 0px 1200px 0px" },
);
addEventListener("popstate", () => {
  if (location.search === here && !picture) return; // only the fragment has changed
  if ($("view").open) $("view").close();
  setPicture(null);
  readAddress();
  show();
});
readAddress();
show();
if (!$("start").hidden || !$("start-labels").hidden) $("words").focus();
writeFolders().catch(() => {}); // the search says what is wrong
