// "Was my data used?": digests a chosen file in this browser and asks the page for the digest. No byte of it is sent.
"use strict";

const PIECE_BYTES = 1 << 22; // read at a time
const AT_ONCE_BYTES = 1 << 26; // up to here by WebCrypto, which wants all of it in memory
const MAX_BYTES = 2 ** 34;

// -- SHA-256 (FIPS 180-4), piece by piece: WebCrypto has no such form, and none at all on a page without https ---------

const PRIMES = (() => {
  const found = [];
  for (let n = 2; found.length < 64; n++) if (found.every((p) => n % p)) found.push(n);
  return found;
})();
const fraction = (x) => ((x - Math.floor(x)) * 4294967296) | 0;
const FIRST = PRIMES.slice(0, 8).map((p) => fraction(Math.sqrt(p)));
const ROUNDS = Int32Array.from(PRIMES, (p) => fraction(Math.cbrt(p)));

class Sha256 {
  constructor() {
    this.state = Int32Array.from(FIRST);
    this.words = new Int32Array(64);
    this.rest = new Uint8Array(64);
    this.left = 0;
    this.bytes = 0;
  }

  add(data) {
    this.bytes += data.length;
    let at = 0;
    if (this.left) {
      at = Math.min(64 - this.left, data.length);
      this.rest.set(data.subarray(0, at), this.left);
      this.left += at;
      if (this.left < 64) return this;
      this.block(this.rest, 0);
      this.left = 0;
    }
    for (; at + 64 <= data.length; at += 64) this.block(data, at);
    this.rest.set(data.subarray(at));
    this.left = data.length - at;
    return this;
  }

  block(data, at) {
    const w = this.words;
    for (let i = 0; i < 16; i++, at += 4) {
      w[i] = (data[at] << 24) | (data[at + 1] << 16) | (data[at + 2] << 8) | data[at + 3];
    }
    for (let i = 16; i < 64; i++) {
      const a = w[i - 15], b = w[i - 2];
      const s0 = ((a >>> 7) | (a << 25)) ^ ((a >>> 18) | (a << 14)) ^ (a >>> 3);
      const s1 = ((b >>> 17) | (b << 15)) ^ ((b >>> 19) | (b << 13)) ^ (b >>> 10);
      w[i] = (w[i - 16] + s0 + w[i - 7] + s1) | 0;
    }
    let [a, b, c, d, e, f, g, h] = this.state;
    for (let i = 0; i < 64; i++) {
      const s1 = ((e >>> 6) | (e << 26)) ^ ((e >>> 11) | (e << 21)) ^ ((e >>> 25) | (e << 7));
      const t1 = (h + s1 + ((e & f) ^ (~e & g)) + ROUNDS[i] + w[i]) | 0;
      const s0 = ((a >>> 2) | (a << 30)) ^ ((a >>> 13) | (a << 19)) ^ ((a >>> 22) | (a << 10));
      const t2 = (s0 + ((a & b) ^ (a & c) ^ (b & c))) | 0;
      h = g; g = f; f = e; e = (d + t1) | 0; d = c; c = b; b = a; a = (t1 + t2) | 0;
    }
    [a, b, c, d, e, f, g, h].forEach((value, i) => { this.state[i] = (this.state[i] + value) | 0; });
  }

  digest() {
    const end = new Uint8Array(this.left < 56 ? 64 - this.left : 128 - this.left);
    end[0] = 0x80;
    const size = new DataView(end.buffer);
    size.setUint32(end.length - 8, Math.floor(this.bytes / 0x20000000));
    size.setUint32(end.length - 4, (this.bytes * 8) >>> 0);
    this.add(end);
    return [...this.state].map((word) => (word >>> 0).toString(16).padStart(8, "0")).join("");
  }
}

async function sha256(file, told = () => {}) {
  if (file.size > MAX_BYTES) {
    throw new Error(`this file has ${file.size} bytes and a page can digest ${MAX_BYTES}: fgtrac prove TRACE file:PATH does it`);
  }
  if (globalThis.crypto && crypto.subtle && file.size <= AT_ONCE_BYTES) {
    return hex(new Uint8Array(await crypto.subtle.digest("SHA-256", await file.arrayBuffer())));
  }
  const found = new Sha256();
  for (let at = 0; at < file.size; at += PIECE_BYTES) {
    found.add(new Uint8Array(await file.slice(at, at + PIECE_BYTES).arrayBuffer()));
    told(Math.min(1, (at + PIECE_BYTES) / file.size));
  }
  return found.digest();
}

const hex = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");

// -- arrays: the source of a row is the CBOR of [dtype, shape, little-endian bytes] (docs/spec/identity.md) ------------

const KINDS = { b: "bool", i: "int", u: "uint", f: "float", c: "complex" };

async function readNpy(file) {
  // the header of a .npy file (numpy.lib.format): dtype, shape, where the data begin; null for any other file
  const front = new Uint8Array(await file.slice(0, 12).arrayBuffer());
  if (front.length < 10 || hex(front.subarray(0, 6)) !== "934e554d5059") return null;
  const wide = front[6] > 1;
  const size = wide ? front[8] | (front[9] << 8) | (front[10] << 16) | (front[11] << 24) : front[8] | (front[9] << 8);
  const start = wide ? 12 : 10;
  if (size < 0 || size > 1 << 20) throw new Error("this .npy file has no header that can be read");
  const text = await file.slice(start, start + size).text();
  const descr = /'descr':\s*'([<>|=])([biufc])(\d+)'/.exec(text);
  const shape = /'shape':\s*\(([\d,\sL]*)\)/.exec(text);
  if (!descr || !shape) throw new Error("this .npy file is no array of plain numbers");
  if (/'fortran_order':\s*True/.test(text)) {
    throw new Error("this array is stored column by column; save it with numpy.ascontiguousarray first");
  }
  const width = Number(descr[3]);
  const dtype = descr[2] === "b" ? "bool" : KINDS[descr[2]] + 8 * width;
  const sizes = (shape[1].match(/\d+/g) || []).map(Number);
  return { dtype, width, swap: descr[1] === ">" ? (descr[2] === "c" ? width / 2 : width) : 1, shape: sizes, data: start + size };
}

const schema = (dtype, shape) => `tensor ${dtype} ${shape.join("x")}`.trim();

function head(major, count) {
  const code = major << 5;
  if (count < 24) return [code | count];
  const sizes = [[24, 1, 0x100], [25, 2, 0x10000], [26, 4, 0x100000000], [27, 8, Infinity]];
  const [short, bytes] = sizes.find((row) => count < row[2]);
  const out = [code | short];
  for (let i = bytes - 1; i >= 0; i--) out.push(Math.floor(count / 256 ** i) % 256);
  return out;
}

async function rowDigest(file, array, shape, row) {
  const size = array.width * shape.reduce((a, b) => a * b, 1);
  const data = new Uint8Array(await file.slice(array.data + row * size, array.data + (row + 1) * size).arrayBuffer());
  if (data.length !== size) throw new Error(`this .npy file ends inside row ${row}`);
  for (let at = 0; array.swap > 1 && at < size; at += array.swap) data.subarray(at, at + array.swap).reverse();
  const name = new TextEncoder().encode(array.dtype);
  const front = [...head(4, 3), ...head(3, name.length), ...name, ...head(4, shape.length), ...shape.flatMap((n) => head(0, n))];
  return new Sha256().add(Uint8Array.from([...front, ...head(2, size)])).add(data).digest();
}

function asOneRow(array, sources) {
  // how the array fits what was recorded: as one row, as the one row of several, or as rows to choose from
  if (sources.includes(schema(array.dtype, array.shape))) return { shape: array.shape, rows: 1 };
  const rest = array.shape.slice(1);
  if (array.shape.length && sources.includes(schema(array.dtype, rest))) return { shape: rest, rows: array.shape[0] };
  return null;
}

// -- the page ----------------------------------------------------------------------------------------------------------

function begin(form) {
  const input = form.querySelector("input[type=file]"), status = document.getElementById("mine-status");
  const choice = document.getElementById("mine-row"), which = choice.querySelector("input");
  const sources = JSON.parse(form.dataset.sources);
  const tell = (words) => { status.textContent = words; };
  const ask = (digest, source) => {
    tell(`SHA-256 ${digest}: asking the log`);
    location.assign(`${form.dataset.page}?${new URLSearchParams({ sha256: digest, source })}`);
  };
  let waiting = null;

  async function take(file) {
    choice.hidden = true;
    tell(`Reading ${file.name} here; nothing is uploaded.`);
    const array = await readNpy(file);
    const fits = array && asOneRow(array, sources);
    if (fits && fits.rows !== 1) {
      waiting = { file, array, fits };
      which.max = String(fits.rows - 1);
      choice.hidden = false;
      tell(`${file.name} holds ${fits.rows} rows: choose one.`);
      which.focus();
      return;
    }
    if (fits) return ask(await rowDigest(file, array, fits.shape, 0), schema(array.dtype, fits.shape));
    if (array && !sources.includes("file")) return ask(await wholeArray(file, array), schema(array.dtype, array.shape));
    ask(await sha256(file, (share) => tell(`Read ${Math.round(100 * share)} % of ${file.name}.`)), "file");
  }

  const wholeArray = (file, array) => rowDigest(file, array, array.shape, 0);
  const failed = (error) => tell(`This file could not be digested: ${error.message}`);
  input.addEventListener("change", () => { if (input.files.length) take(input.files[0]).catch(failed); });
  choice.querySelector("button").addEventListener("click", () => {
    const row = Number(which.value);
    if (!waiting || !Number.isInteger(row) || row < 0 || row >= waiting.fits.rows) return tell("There is no such row.");
    const { file, array, fits } = waiting;
    rowDigest(file, array, fits.shape, row).then((digest) => ask(digest, schema(array.dtype, fits.shape))).catch(failed);
  });
  form.addEventListener("dragover", (event) => { event.preventDefault(); form.classList.add("over"); });
  form.addEventListener("dragleave", () => form.classList.remove("over"));
  form.addEventListener("drop", (event) => {
    event.preventDefault();
    form.classList.remove("over");
    if (event.dataTransfer.files.length) take(event.dataTransfer.files[0]).catch(failed);
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  document.querySelectorAll("button.print").forEach((button) => {
    button.hidden = false;
    button.addEventListener("click", () => print());
  });
}

if (typeof document !== "undefined" && document.getElementById("mine-file")) begin(document.getElementById("mine-file"));
if (typeof module !== "undefined") module.exports = { Sha256, asOneRow, readNpy, rowDigest, schema, sha256 };
