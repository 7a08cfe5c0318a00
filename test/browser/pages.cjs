// What the scenarios have in common: a browser, its pages, and the cluster that they are about,
// which is asked by lines on the standard output and answers on the standard input.
"use strict";

const assert = require("node:assert/strict");
const fs = require("node:fs");
const path = require("node:path");
const readline = require("node:readline");
const { chromium } = require(process.env.PLAYWRIGHT_CORE);

const url = process.env.CONSOLE_URL;
const shots = process.env.SCREENSHOTS;
const files = process.env.ARCHIVES;
const password = process.env.PASSWORD;

const waiting = [];
readline.createInterface({ input: process.stdin }).on("line", (line) => waiting.shift()?.(line));

// Has the cluster do something: kill a node, hold a process, ...
const ask = (words) =>
  new Promise((resolve) => {
    waiting.push(resolve);
    process.stdout.write(`ask ${words}\n`);
  });

const archive = (name) => path.join(files, name);

async function launch() {
  return chromium.launch({
    executablePath: process.env.CHROMIUM,
    args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--force-color-profile=srgb"],
  });
}

// A person with a browser of their own. What the page complains of is an error of the test.
async function person(browser, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 860 }, ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(15000);
  page.complaints = [];
  page.on("pageerror", (error) => page.complaints.push(String(error)));
  page.on("console", (message) => {
    if (message.type() === "error" && !/status of (4\d\d|503)/.test(message.text())) page.complaints.push(message.text());
  });
  page.on("dialog", (dialog) => { page.complaints.push(`a dialog: ${dialog.message()}`); dialog.dismiss(); });
  return page;
}

async function logIn(page, name) {
  await page.goto(`${url}/patch`);
  await page.getByLabel("Name").fill(name);
  await page.getByLabel("Password").fill(password);
  await page.getByRole("button", { name: "Log in" }).click();
  await page.getByRole("navigation", { name: "System" }).waitFor();
}

async function shoot(page, name) {
  await page.screenshot({ path: path.join(shots, `${name}.png`), fullPage: true, animations: "disabled" });
}

// Nothing sticks out to the side, at any width.
async function fits(page) {
  const [content, width] = await page.evaluate(() => [document.documentElement.scrollWidth, window.innerWidth]);
  assert.ok(content <= width, `${page.url()} is ${content} wide in ${width}`);
}

async function upload(page, file) {
  await page.goto(`${url}/patch`);
  await page.locator("#file").setInputFiles(file);
  await page.waitForURL(/\/patch\/.+/);
  return decodeURIComponent(page.url().split("/patch/")[1]);
}

// From the patch's page to the end of what is done there.
async function carryOut(page, id, tab, button, reason) {
  await page.goto(`${url}/patch/${encodeURIComponent(id)}`);
  await page.getByRole("navigation", { name: "Patch" }).getByRole("link", { name: tab }).click();
  await page.getByLabel("Reason").fill(reason);
  await page.getByRole("button", { name: button }).click();
  await page.waitForURL(/\/results\//);
}

const ended = (page) => page.locator("[data-state=ended]").waitFor({ timeout: 30000 });

module.exports = { assert, fs, url, ask, archive, launch, person, logIn, shoot, fits, upload, carryOut, ended };
