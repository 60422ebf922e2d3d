// The verifier of the HTML page under node: a line of JSON in for each bundle, a line of JSON out.
// node page_verifier.mjs SCRIPT.js...
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";

process.removeAllListeners("warning"); // node 20 calls Ed25519 in WebCrypto experimental
const source = process.argv.slice(2).map((path) => readFileSync(path, "utf8")).join("\n");
const wanted = "{ checkBundle, whyNothingIsChecked, parseKey, parseIdKey, parseName, contentOf, fromHex, Malformed }";
const page = new Function(`${source}\nreturn ${wanted};`)();
const why = await page.whyNothingIsChecked();
if (why) throw new Error(why);

async function answer({ bundle, key, idKey, about }) {
  try {
    const named = {};
    if (key) named.key = page.parseKey(key);
    if (idKey) named.idKey = page.parseIdKey(idKey);
    if (about?.name) named.about = await page.parseName(about.name);
    if (about?.file) named.about = page.contentOf("it", page.fromHex(about.file, "a digest", 32));
    const found = await page.checkBundle(new Uint8Array(Buffer.from(bundle, "base64")), named);
    return { ...found, size: String(found.size) };
  } catch (error) {
    if (!(error instanceof page.Malformed)) return { verdict: "crashed", findings: [], words: error.stack };
    return { verdict: "malformed", findings: [], words: error.message };
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  process.stdout.write(JSON.stringify(await answer(JSON.parse(line))) + "\n");
}
