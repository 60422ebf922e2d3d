// What mine.js makes of files, for test_mine_script.py: paths in, one JSON answer a path out.
"use strict";

const fs = require("node:fs");
const { asOneRow, readNpy, rowDigest, schema, sha256, Sha256 } = require(process.argv[2]);

async function digests(path, sources, row) {
  const file = new Blob([fs.readFileSync(path)]);
  const pieces = new Sha256();
  const bytes = new Uint8Array(await file.arrayBuffer());
  for (let at = 0; at < bytes.length; at += 77) pieces.add(bytes.subarray(at, at + 77));
  const found = { sha256: await sha256(file), pieces: pieces.digest() };
  const array = await readNpy(file);
  const fits = array && asOneRow(array, sources);
  if (!fits) return found;
  return { ...found, rows: fits.rows, source: schema(array.dtype, fits.shape), row: await rowDigest(file, array, fits.shape, row) };
}

(async () => {
  const out = [];
  for (const [path, sources, row] of JSON.parse(fs.readFileSync(0))) {
    out.push(await digests(path, sources, row).catch((error) => ({ error: error.message })));
  }
  console.log(JSON.stringify(out));
})();
