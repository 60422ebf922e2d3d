// The page around the verifier: what a reader names, what is told, and which bundle it is about.

const byId = (name) => document.getElementById(name);
const MARKS = {
  holds: "\u2714 holds",
  refuted: "\u2718 refuted",
  "cannot tell": "? cannot tell",
  malformed: "\u2718 no bundle",
};
const MAX_NAME = 200; // characters of a name, as it is shown, that is not folded
// What a reader would not see, or see elsewhere: more than bundle.md escapes, whose list is a part of the format.
const HIDDEN = /[\p{Cc}\p{Cf}\p{Co}\p{Cs}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}\u2800]/gu;
let given = Promise.resolve(null); // of the bundle: its bytes and name; or null
let turn = 0; // which check is the last one that was asked for
let isKeyFromAddress = false; // whether what stands in the field of the key came with the address

/** Text as it is shown, whole: what nobody would see is written out. */
function legible(text) {
  return text.replace(HIDDEN, (c) => "\\u" + c.codePointAt(0).toString(16).padStart(4, "0"));
}

function element(name, text, kind = "") {
  const made = document.createElement(name);
  made.textContent = legible(text);
  if (kind) made.className = kind;
  return made;
}

/** A name, told apart from what is said of it. Of a long one the two ends are shown, and on demand the whole. */
function nameElement(name) {
  const whole = legible(name);
  if (whole.length <= MAX_NAME) return element("bdi", whole, "name");
  const folded = element("details", "", "name");
  const ends = `${whole.slice(0, MAX_NAME / 2)} ... ${whole.slice(-MAX_NAME / 4)}`;
  folded.append(element("summary", `a name of ${name.length} characters, show all of it: ${ends}`));
  folded.append(element("bdi", whole));
  return folded;
}

/** An element with words that may name the sample; `parts` are those of checkBundle. Nothing but a name is folded. */
function telling(tag, words, parts = []) {
  const out = element(tag, "");
  const naming = parts.join("").slice(1); // without its first letter, which may be upper case
  const [front, ...rest] = naming ? words.split(naming) : [words];
  out.append(legible(front));
  for (const behind of rest) {
    parts.forEach((part, i) => out.append(i % 2 ? nameElement(part) : legible(i ? part : part.slice(1))));
    out.append(legible(behind));
  }
  return out;
}

function showVerdict(verdict, words, parts) {
  const kind = verdict.replace(" ", "-");
  byId("verdict").dataset.verdict = verdict;
  const mark = element("p", "");
  mark.append(element("strong", MARKS[verdict] ?? verdict, kind));
  byId("verdict").replaceChildren(mark, telling("div", words, parts));
}

/** What no bundle shows, and what this one leaves open. */
function limitsOf(found, named) {
  const out = [
    "A bundle that holds does so as its signer committed to it at this size. That the signed index is the one that " +
      "the log's entries give, only a check of the whole trace shows: fgtrac verify TRACE.",
    "What was never recorded is not in the log.",
  ];
  if (found.claim === "used" || found.claim === "content present")
    out.push("What was recorded after this size is not told.");
  if (!named.about)
    out.push("Whether it is about the sample or file that you have in mind was not asked: name it above.");
  if (ABSENT.includes(found.claim))
    out.push("An absence says something of a name only as far as ids are made from names as the log says.");
  if (found.unread.length)
    out.push(
      `Signature lines of ${found.unread.join(", ")} were not looked at: fgtrac verify BUNDLE --witness-key does.`,
    );
  out.push("Whether the trusted key was revoked since is not known to this page.");
  return out;
}

function showFindings(found, named) {
  byId("findings").replaceChildren(
    ...found.findings.map(({ check, verdict, words }) => {
      const row = document.createElement("tr");
      const name = element("th", check);
      name.scope = "row";
      row.append(name, element("td", MARKS[verdict], verdict.replace(" ", "-")), telling("td", words, found.parts));
      return row;
    }),
  );
  byId("limits").replaceChildren(...limitsOf(found, named).map((words) => element("li", words)));
  byId("checks").hidden = false;
}

const FROM_ADDRESS =
  "the key that came with this page's address, which is worth as much as whoever gave you that address";

function wordsOf(found) {
  const key = isKeyFromAddress ? FROM_ADDRESS : "the key that you named";
  if (found.verdict === "holds") return `Every check below holds, with ${key}.`;
  if (found.verdict === "refuted") {
    const how = isKeyFromAddress ? ` It was checked with ${FROM_ADDRESS}.` : "";
    return `At least one check below does not hold: do not believe what the bundle says.${how}`;
  }
  return found.findings.find((finding) => finding.verdict === "cannot tell").words;
}

/** Reads one field by `parse`, as it stands there; what is wrong with it is said beside it. */
async function readField(name, parse) {
  const text = byId(name).value;
  byId(`${name}-problem`).textContent = "";
  byId(name).removeAttribute("aria-invalid");
  if (!text) return undefined;
  try {
    return await parse(text);
  } catch (error) {
    if (!(error instanceof Malformed)) throw error;
    byId(`${name}-problem`).textContent = legible(`${error.message}.`);
    byId(name).setAttribute("aria-invalid", "true");
    byId(name).closest("details")?.setAttribute("open", "");
    byId(name).focus();
    throw new CannotTell(`not checked: what you named cannot be read (${error.message})`);
  }
}

async function readNamed() {
  const named = { key: await readField("key", parseKey), idKey: await readField("id-key", parseIdKey) };
  named.about = await readField("about", parseName);
  const [file] = byId("content").files;
  if (file && named.about) throw new CannotTell("not checked: you named both a sample and a file; leave one out");
  if (file)
    named.about = contentOf(file.name, new Uint8Array(await crypto.subtle.digest("SHA-256", await file.arrayBuffer())));
  return named;
}

/** What was told before is told no longer; returns the turn that is begun. */
function forget(words) {
  byId("checks").hidden = true;
  byId("progress").hidden = true;
  byId("verdict").dataset.verdict = "unchecked";
  byId("verdict").replaceChildren(element("p", words));
  return ++turn;
}

function showFailure(error) {
  if (error instanceof Malformed)
    showVerdict("malformed", `These bytes are no fgtrac bundle, and say nothing: ${error.message}.`);
  else if (error instanceof CannotTell) showVerdict("cannot tell", error.message);
  else showVerdict("cannot tell", `the page itself failed, so nothing was found out: ${error}`);
}

async function check(words = "Checking ...") {
  const mine = forget(words);
  const progress = byId("progress");
  const goOn = (words, part) => {
    if (mine !== turn) throw new CannotTell("another check was asked for");
    progress.hidden = false;
    progress.value = part;
    progress.textContent = words;
  };
  try {
    const why = await whyNothingIsChecked();
    if (why)
      throw new CannotTell(`${why}, so nothing was checked: open this file in another browser, or use fgtrac verify`);
    const bundle = await given;
    if (mine !== turn) return;
    if (!bundle) throw new CannotTell("there is no bundle in this page yet: choose one below");
    const named = await readNamed();
    const found = await checkBundle(bundle.bytes, named, goOn);
    if (mine !== turn) return;
    byId("claim").replaceChildren(...telling("p", found.words, found.parts).childNodes);
    showVerdict(found.verdict, wordsOf(found), found.parts);
    showFindings(found, named);
  } catch (error) {
    if (mine === turn) showFailure(error);
  } finally {
    if (mine === turn) progress.hidden = true;
  }
}

/** Takes another bundle in the place of the one before; that one's verdict goes at once. */
function take(bundle, words) {
  byId("claim").textContent = "";
  byId("bundle-name").textContent = legible(words);
  byId("save").hidden = true;
  given = bundle;
  given.catch(() => {}); // the check tells, whenever one is made
  return check("Reading ...");
}

/** A file's bytes; one more than a bundle may have is enough to know that it has too many. */
async function bundleOf(file) {
  return { bytes: new Uint8Array(await file.slice(0, MAX_BYTES + 1).arrayBuffer()), name: file.name };
}

function takeFile(file) {
  if (file) take(bundleOf(file), `The file ${file.name}, ${file.size} bytes, which you chose.`);
}

/** The bundle that the page was made with, or null. */
async function bundleInPage() {
  const text = byId("bundle").textContent.trim();
  const parts = [];
  for (let at = 0; at < text.length; at += 1 << 22) {
    parts.push(fromBase64(text.slice(at, at + (1 << 22)), "the bundle in this page"));
    await new Promise((resume) => setTimeout(resume));
  }
  return text ? { bytes: join(...parts), name: "bundle.json" } : null;
}

/** The trusted key in the address, `#key=`; empty where there is none. */
function keyInAddress() {
  return new URLSearchParams(location.hash.slice(1).replaceAll("+", "%2B")).get("key") ?? "";
}

async function save() {
  const bundle = await given;
  if (!bundle) return;
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([bundle.bytes], { type: "application/json" }));
  link.download = bundle.name;
  link.click();
}

/** Puts the address's key, where it has one, into the field; what the reader typed stays. Whether it did. */
function takeKeyOfAddress() {
  const key = keyInAddress();
  if (!key || (byId("key").value && !isKeyFromAddress)) return false;
  byId("key").value = key;
  isKeyFromAddress = true;
  return true;
}

async function showScriptDigest() {
  if (!globalThis.crypto?.subtle) return;
  const text = toUtf8(document.scripts[document.scripts.length - 1].textContent);
  byId("script-digest").textContent = toHex(new Uint8Array(await crypto.subtle.digest("SHA-256", text)));
}

function listen() {
  byId("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    check();
  });
  byId("ask").addEventListener("input", (event) => {
    if (event.target === byId("key")) isKeyFromAddress = false;
    forget("Not checked with what stands there now: press Check.");
  });
  byId("save-bundle").addEventListener("click", save);
  byId("other").addEventListener("change", (event) => takeFile(event.target.files[0]));
  const isForAField = (event) => event.target.closest?.('input[type="file"]'); // which takes the file by itself
  addEventListener("dragover", (event) => isForAField(event) || event.preventDefault());
  addEventListener("drop", (event) => {
    if (isForAField(event)) return;
    event.preventDefault();
    takeFile(event.dataTransfer.files[0]);
  });
  addEventListener("hashchange", () => takeKeyOfAddress() && check());
}

async function start() {
  listen();
  byId("key").value = "";
  takeKeyOfAddress();
  const isThere = byId("bundle").textContent.trim() !== "";
  take(
    bundleInPage(),
    isThere ? "The bundle that this page was made with." : "No bundle is in this page: choose one below.",
  );
  byId("save").hidden = !isThere;
  await showScriptDigest();
}

start();
