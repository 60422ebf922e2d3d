// Drives Chromium for tests/browser/chromium.py: one JSON object a line comes in, one goes out for each, in order.
// node drive.mjs FOLDER-WITH-node_modules CHROMIUM
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { join } from "node:path";

const [, , installed, executablePath] = process.argv;
const require = createRequire(join(installed, "node_modules", "x.js"));
const { chromium } = require("playwright-core");
const AXE = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
const PATIENCE_MS = 30_000;
const QUIET = [
  "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync",
];

const browser = await chromium.launch({ executablePath, headless: true, args: QUIET });
const pages = new Map();
let last = 0;

// What happened on a page since it was opened, or since it was last told.
const nothingYet = () => ({ console: [], errors: [], failed: [], requests: [], dialogs: [] });

function listen(page) {
  page.on("console", (m) => ["error", "warning"].includes(m.type()) && page.seen.console.push(m.text()));
  page.on("pageerror", (error) => page.seen.errors.push(String(error)));
  page.on("request", (r) => page.seen.requests.push(
    { method: r.method(), url: r.url(), kind: r.resourceType(), body: r.postDataBuffer()?.toString("base64") ?? "" }));
  page.on("requestfailed", (r) => {
    const why = r.failure()?.errorText;
    if (why !== "net::ERR_ABORTED") page.seen.failed.push(`${r.url()}: ${why}`); // that: the page was left meanwhile
  });
  page.on("dialog", (dialog) => { page.seen.dialogs.push(dialog.message()); dialog.dismiss(); });
}

const verbs = {
  async open({ scheme = "light", width = 1280, height = 800, offline = false, permissions = [], script = true }) {
    const context = await browser.newContext({
      colorScheme: scheme, viewport: { width, height }, permissions, javaScriptEnabled: script, offline,
      reducedMotion: "reduce", locale: "en-GB", timezoneId: "UTC",
    });
    const page = await context.newPage();
    page.seen = nothingYet();
    listen(page);
    page.setDefaultTimeout(PATIENCE_MS);
    pages.set(++last, page);
    return last;
  },
  async close({ page }) {
    pages.delete(page.number);
    await page.context().close();
  },
  async go({ page, url }) {
    const response = await page.goto(url, { waitUntil: "load" });
    return { url: page.url(), status: response?.status() ?? 0, headers: response?.headers() ?? {} };
  },
  async reload({ page }) {
    return { url: page.url(), status: (await page.reload({ waitUntil: "load" }))?.status() ?? 0 };
  },
  seen({ page }) {
    const told = page.seen;
    page.seen = nothingYet();
    return told;
  },
  url: ({ page }) => page.url(),
  html: ({ page }) => page.content(),
  // `script` is an expression, or with a value a function of it; the page's policy does not bind it.
  run: ({ page, script, value }) => page.evaluate(value === null ? script : eval(script), value),
  // Asked again and again from here: to wait inside the page would need what its policy forbids.
  async wait({ page, script, value }) {
    const until = Date.now() + PATIENCE_MS;
    for (let last = "it is false"; Date.now() < until; await page.waitForTimeout(40)) {
      try {
        if (await page.evaluate(value === null ? script : eval(script), value)) return null;
      } catch (error) {
        last = error.message; // another page may be on its way
      }
      if (Date.now() + 100 > until) throw new Error(`after ${PATIENCE_MS / 1000} s: ${last}`);
    }
  },
  text: ({ page, selector }) => page.locator(selector).first().innerText(),
  texts: ({ page, selector }) => page.locator(selector).allInnerTexts(),
  count: ({ page, selector }) => page.locator(selector).count(),
  click: ({ page, selector }) => page.locator(selector).first().click(),
  fill: ({ page, selector, value }) => page.locator(selector).first().fill(value),
  choose: ({ page, selector, value }) => page.locator(selector).first().selectOption(value),
  press: ({ page, keys }) => page.keyboard.press(keys),
  type: ({ page, text }) => page.keyboard.type(text),
  async put_file({ page, selector, name, base64 }) {
    const file = { name, mimeType: "application/octet-stream", buffer: Buffer.from(base64, "base64") };
    await page.locator(selector).first().setInputFiles(file);
  },
  // A file dragged from the desktop onto an element.
  async drop_file({ page, selector, name, base64 }) {
    const dropped = await page.evaluateHandle(([named, data]) => {
      const transfer = new DataTransfer();
      transfer.items.add(new File([Uint8Array.from(atob(data), (c) => c.charCodeAt(0))], named));
      return transfer;
    }, [name, base64]);
    for (const event of ["dragenter", "dragover", "drop"]) {
      await page.dispatchEvent(selector, event, { dataTransfer: dropped });
    }
  },
  // What a click saves: its name and bytes.
  async download({ page, selector }) {
    const [download] = await Promise.all([page.waitForEvent("download"), page.locator(selector).first().click()]);
    return { name: download.suggestedFilename(), base64: readFileSync(await download.path()).toString("base64") };
  },
  async axe({ page }) {
    if (!(await page.evaluate("'axe' in window"))) await page.evaluate(AXE);
    const found = await page.evaluate("axe.run(document, {resultTypes: ['violations']})");
    return found.violations.map(({ id, help, nodes }) => ({
      rule: id, help, where: nodes.map((n) => `${n.target.join(" ")}: ${n.html.slice(0, 200)} ${n.any[0]?.message ?? ""}`),
    }));
  },
  // The elements that Tab reaches from the top of the page, in order, and whether one sees where the focus is.
  async tab_order({ page, most }) {
    const order = [];
    for (let i = 0; i < most; i++) {
      await page.keyboard.press("Tab");
      const at = await page.evaluate(() => {
        const e = document.activeElement;
        if (!e || e === document.body || e.dataset.tabbed) return null;
        e.dataset.tabbed = "yes";
        const style = getComputedStyle(e);
        const box = e.getBoundingClientRect();
        const visible = box.width > 0 && box.height > 0 &&
          (style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0 || style.boxShadow !== "none");
        return { html: e.outerHTML.slice(0, 200), name: e.innerText || e.ariaLabel || e.name || e.id, visible };
      });
      if (at === null) break;
      order.push(at);
    }
    return order;
  },
  scheme: ({ page, scheme }) => page.emulateMedia({ colorScheme: scheme }),
  size: ({ page, width, height }) => page.setViewportSize({ width, height }),
  offline: ({ page, offline }) => page.context().setOffline(offline),
  screenshot: ({ page, path, full = false }) => page.screenshot({ path, fullPage: full }).then(() => null),
};

for await (const line of createInterface({ input: process.stdin })) {
  let answer;
  try {
    const { verb, page, ...given } = JSON.parse(line);
    const opened = page === undefined ? undefined : pages.get(page);
    if (opened) opened.number = page;
    answer = { answer: (await verbs[verb]({ ...given, page: opened })) ?? null };
  } catch (error) {
    answer = { error: String(error?.message ?? error) };
  }
  process.stdout.write(JSON.stringify(answer) + "\n");
}
await browser.close();
