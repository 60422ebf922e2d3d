// Bytes, SHA-256, HMAC, signatures and audit paths, for the verifier of bundles in the page.
"use strict";

// WebCrypto does SHA-256 only asynchronously, which is too slow for the million hashes of a large bundle: `sha256` is
// these files' own, and `whyNothingIsChecked` compares it with WebCrypto's. Signatures and HMAC are WebCrypto's.

class Malformed extends Error {} // no bundle: nothing is said of its claim
class Refuted extends Error {} // a check that does not hold
class CannotTell extends Error {} // a check that has nothing to decide on; says what is missing

function need(condition, words) {
  if (!condition) throw new Refuted(words);
}

function form(condition, words) {
  if (!condition) throw new Malformed(words);
}

const strictUtf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }); // a byte order mark is a character
const toUtf8 = (text) => new TextEncoder().encode(text);
const toHex = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
const isSame = (a, b) => compare(a, b) === 0;

function compare(a, b) {
  for (let i = 0; i < a.length && i < b.length; i++) if (a[i] !== b[i]) return a[i] - b[i];
  return a.length - b.length;
}

const join = (...parts) => joined(parts);

function joined(parts) {
  const out = new Uint8Array(parts.reduce((size, part) => size + part.length, 0));
  parts.reduce((at, part) => (out.set(part, at), at + part.length), 0);
  return out;
}

/** Lower case hex digits, of so many bytes where `size` is given. */
function fromHex(text, what, size) {
  const isRight = typeof text === "string" && text.length % 2 === 0 && (size === undefined || text.length === 2 * size);
  form(
    isRight && !/[^0-9a-f]/.test(text),
    size === undefined ? `${what} is no hex` : `${what} is no hex of ${size} bytes`,
  );
  const out = new Uint8Array(text.length / 2);
  const digit = (at) => text.charCodeAt(at) - (text.charCodeAt(at) < 58 ? 48 : 87);
  for (let i = 0; i < out.length; i++) out[i] = 16 * digit(2 * i) + digit(2 * i + 1);
  return out;
}

const SIX_BITS = new Int8Array(128).fill(-1);
Array.from(
  "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/",
  (c, i) => (SIX_BITS[c.charCodeAt(0)] = i),
);

/** Standard base64 with padding; canonical, so that the last bits are 0. */
function fromBase64(text, what) {
  form(typeof text === "string" && text.length % 4 === 0, `${what} is no base64`);
  const padding = text.endsWith("==") ? 2 : text.endsWith("=") ? 1 : 0;
  const out = new Uint8Array((text.length / 4) * 3 - padding);
  let held = 0,
    bits = 0,
    at = 0;
  for (let i = 0; i < text.length - padding; i++) {
    const six = SIX_BITS[text.charCodeAt(i)];
    if (!(six >= 0)) throw new Malformed(`${what} is no base64`);
    held = ((held << 6) | six) & 0xffff;
    bits += 6;
    if (bits >= 8) out[at++] = (held >> (bits -= 8)) & 255;
  }
  form((held & ((1 << bits) - 1)) === 0, `${what} is not canonical base64`);
  return out;
}

// FIPS 180-4: the first 32 bits of the fractions of cube roots (K) and square roots (H) of the first primes.
const PRIMES = [];
for (let n = 2; PRIMES.length < 64; n++) if (PRIMES.every((prime) => n % prime)) PRIMES.push(n);
const fraction = (root) => Math.floor((root - Math.floor(root)) * 2 ** 32);
const ROUND = Uint32Array.from(PRIMES, (prime) => fraction(Math.cbrt(prime)));
const START = Uint32Array.from(PRIMES.slice(0, 8), (prime) => fraction(Math.sqrt(prime)));
const schedule = new Int32Array(64);
const state = new Int32Array(8);

function hashBlock(data, at) {
  const w = schedule;
  for (let i = 0; i < 16; i++, at += 4)
    w[i] = (data[at] << 24) | (data[at + 1] << 16) | (data[at + 2] << 8) | data[at + 3];
  for (let i = 16; i < 64; i++) {
    const p = w[i - 15];
    const q = w[i - 2];
    const s0 = ((p >>> 7) | (p << 25)) ^ ((p >>> 18) | (p << 14)) ^ (p >>> 3);
    const s1 = ((q >>> 17) | (q << 15)) ^ ((q >>> 19) | (q << 13)) ^ (q >>> 10);
    w[i] = (w[i - 16] + s0 + w[i - 7] + s1) | 0;
  }
  let [a, b, c, d, e, f, g, h] = state;
  for (let i = 0; i < 64; i++) {
    const s1 = ((e >>> 6) | (e << 26)) ^ ((e >>> 11) | (e << 21)) ^ ((e >>> 25) | (e << 7));
    const s0 = ((a >>> 2) | (a << 30)) ^ ((a >>> 13) | (a << 19)) ^ ((a >>> 22) | (a << 10));
    const t = (h + s1 + ((e & f) ^ (~e & g)) + ROUND[i] + w[i]) | 0;
    h = g;
    g = f;
    f = e;
    e = (d + t) | 0;
    d = c;
    c = b;
    b = a;
    a = (t + s0 + ((b & c) ^ (b & d) ^ (c & d))) | 0;
  }
  state[0] += a;
  state[1] += b;
  state[2] += c;
  state[3] += d;
  state[4] += e;
  state[5] += f;
  state[6] += g;
  state[7] += h;
}

function sha256(data) {
  state.set(START);
  const whole = data.length - (data.length % 64);
  const rest = data.length - whole;
  for (let at = 0; at < whole; at += 64) hashBlock(data, at);
  const end = new Uint8Array(rest < 56 ? 64 : 128);
  end.set(data.subarray(whole));
  end[rest] = 0x80;
  new DataView(end.buffer).setBigUint64(end.length - 8, BigInt(data.length) * 8n);
  for (let at = 0; at < end.length; at += 64) hashBlock(end, at);
  const out = new Uint8Array(32);
  const view = new DataView(out.buffer);
  state.forEach((word, i) => view.setInt32(4 * i, word));
  return out;
}

async function hmac(key, message) {
  const how = { name: "HMAC", hash: "SHA-256" };
  return new Uint8Array(
    await crypto.subtle.sign("HMAC", await crypto.subtle.importKey("raw", key, how, false, ["sign"]), message),
  );
}

async function isSigned(publicKey, signature, message) {
  if (publicKey.length !== 32 || signature.length !== 64) return false;
  try {
    const key = await crypto.subtle.importKey("raw", publicKey, "Ed25519", false, ["verify"]);
    return await crypto.subtle.verify("Ed25519", key, signature, message);
  } catch (error) {
    if (error.name === "DataError" || error.name === "OperationError") return false; // these bytes are no key
    if (error.name !== "NotSupportedError") throw error;
    throw new CannotTell("this browser knows no Ed25519 signatures: use a newer one, or `fgtrac verify`");
  }
}

/** In words why nothing can be checked here; empty where this file's SHA-256 is WebCrypto's. */
async function whyNothingIsChecked() {
  if (typeof crypto === "undefined" || !crypto.subtle) return "this browser gives a page from here no WebCrypto";
  for (let size = 0; size < 200; size++) {
    const data = Uint8Array.from({ length: size }, (_, i) => (i * 151 + size) & 255);
    const theirs = new Uint8Array(await crypto.subtle.digest("SHA-256", data));
    if (!isSame(sha256(data), theirs)) return "this page computes another SHA-256 than this browser";
  }
  return "";
}

const pair = new Uint8Array(65); // the byte 1, left, right
pair[0] = 1;

/** Follows an audit path (RFC 6962, siblings end to end) as RFC 9162 section 2.1.3.2; the length follows. */
function checkInclusion(root, index, size, leaf, path) {
  need(index < size, `leaf ${index} cannot be in a tree of ${size} leaves`);
  const apart = index ^ (size - 1n);
  const split = apart === 0n ? 0 : apart.toString(2).length;
  const ones = (index >> BigInt(split)).toString(2).replaceAll("0", "").length;
  need(
    path.length === 32 * (split + ones),
    `the path of leaf ${index} of ${size} has ${split + ones} hashes, not ${path.length / 32}`,
  );
  let reached = sha256(join([0], leaf));
  for (let level = 0; level < split + ones; level++) {
    const isLeft = level < split && ((index >> BigInt(level)) & 1n) === 0n;
    const sibling = path.subarray(32 * level, 32 * level + 32);
    pair.set(isLeft ? reached : sibling, 1);
    pair.set(isLeft ? sibling : reached, 33);
    reached = sha256(pair);
  }
  need(isSame(reached, root), `leaf ${index} of ${size} leads to another root`);
}
