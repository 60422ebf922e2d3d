// The verifier of the HTML page under node: a line of JSON in for each bundle, a line of JSON out.
// node page_verifier.mjs [--watched] SCRIPT.js
// Watched, each condition has a number; answers tell which were not met, and one can be removed (`without`). The first
// line out then lists them.
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";

process.removeAllListeners("warning"); // node 20 calls Ed25519 in WebCrypto experimental
const isWatched = process.argv[2] === "--watched";
let source = readFileSync(process.argv.at(-1), "utf8");
const sites = [];
const watch = { without: -1, hit: new Set() };
if (isWatched) {
  const numbered = (text) => text.replace(/(?<!function )\b(need|form)\(|\bthrow new (Refuted|CannotTell|Malformed)\(/g,
    (_all, kind, error, at) => {
      const number = sites.push(text.slice(at, at + 400).replace(/\s+/g, " ")) - 1;
      return `met(${number}, ${kind ? `${kind}, ` : `fail(${error}), false, `}`;
    });
  const [front, checks, behind] = source.split(/^(?=const strictUtf8|\/\/ What a reader names)/m);
  source = front + numbered(checks) + behind; // `need` and `form` themselves stay, and what is no condition of bundles
}
function met(site, test, condition, ...words) {
  if (condition) return;
  watch.hit.add(site);
  if (site !== watch.without) test(false, ...words);
}
const fail = (Kind) => (_met, words) => { throw new Kind(words); };

const wanted =
  "{ checkBundle, whyNothingIsChecked, parseKey, parseIdKey, parseName, contentOf, fromHex, toHex, Malformed }";
const page = new Function("met", "fail", `${source}\nreturn ${wanted};`)(met, fail);
const why = await page.whyNothingIsChecked();
if (why) throw new Error(why);

async function answer({ bundle, key, idKey, about, without = -1, name }) {
  Object.assign(watch, { without, hit: new Set() });
  try {
    if (name !== undefined) {
      const { id, preimage } = await page.parseName(name);
      return { id: id && page.toHex(id), preimage: preimage && page.toHex(preimage) };
    }
    const named = {};
    if (key) named.key = page.parseKey(key);
    if (idKey) named.idKey = page.parseIdKey(idKey);
    if (about?.name) named.about = await page.parseName(about.name);
    if (about?.file) named.about = page.contentOf("it", page.fromHex(about.file, "a digest", 32));
    return await page.checkBundle(new Uint8Array(Buffer.from(bundle, "base64")), named);
  } catch (error) {
    if (!(error instanceof page.Malformed)) return { verdict: "crashed", findings: [], words: String(error.stack) };
    return { verdict: "malformed", findings: [], words: error.message };
  }
}

const plain = (_name, value) => (typeof value === "bigint" ? String(value) : value);
const tell = (said) => process.stdout.write(JSON.stringify(said, plain) + "\n");
if (isWatched) tell(sites);
for await (const line of createInterface({ input: process.stdin })) tell({ ...(await answer(JSON.parse(line))), hit: [...watch.hit] });
