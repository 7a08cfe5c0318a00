// The scenarios, in the order in which they are run: each goes on where the one before has ended.
"use strict";

const { assert, fs, url, ask, archive, person, logIn, shoot, fits, upload, carryOut, ended } = require("./pages.cjs");

module.exports = {
  async "logging in"(world) {
    const page = (world.alice = await person(world.browser));
    await page.goto(`${url}/nodes`);
    await page.getByRole("heading", { name: "Log in" }).waitFor();
    await shoot(page, "login");
    await page.getByLabel("Name").fill("alice");
    await page.getByLabel("Password").fill("not the password");
    await page.getByRole("button", { name: "Log in" }).click();
    await page.getByRole("alert").filter({ hasText: "wrong" }).waitFor();
    await page.getByLabel("Name").fill("alice");
    await page.getByLabel("Password").fill(process.env.PASSWORD);
    await page.getByRole("button", { name: "Log in" }).click();
    // Where one wanted to go.
    await page.waitForURL(/\/nodes$/);
    await page.goto(`${url}/patch`);
    await shoot(page, "patch-empty");
  },

  async "an archive that is refused"(world) {
    const page = world.alice;
    await page.goto(`${url}/patch`);
    await page.locator("#file").setInputFiles(archive("refused.zip"));
    await page.locator(".upload-text.bad").waitFor();
    assert.match(await page.locator(".upload-text").innerText(), /\.\.|parent/);
    await shoot(page, "upload-refused");
    // And one that is too large, and one that is a text; the form is good for each.
    await page.locator("#file").setInputFiles(archive("passwd.zip"));
    await page.locator(".upload-text.bad", { hasText: "no zip" }).waitFor();
    await page.locator("#file").setInputFiles(archive("large.zip"));
    await page.locator(".upload-text.bad", { hasText: "at most" }).waitFor();
    assert.equal(await page.locator(".patches li").count(), 0);
  },

  async "a hostile file name"(world) {
    const page = world.alice;
    await page.goto(`${url}/patch`);
    await page.locator("#file").setInputFiles({
      name: `..\\..\\"><img src=x onerror=alert(1)>&.zip`,
      mimeType: "application/zip",
      buffer: fs.readFileSync(archive("names.zip")),
    });
    await page.waitForURL(/\/patch\/.+/);
    const id = decodeURIComponent(page.url().split("/patch/")[1]);
    assert.match(id, /^[A-Za-z0-9._-]+-[0-9a-f]{12}$/);
    // The names in the archive, too, are text and nothing else.
    await page.getByText("&lt;img src=x onerror=alert(2)&gt;").first().waitFor();
    assert.equal(await page.locator("main img").count(), 0);
    await shoot(page, "contents-hostile");
    await page.getByRole("link", { name: "Delete" }).click();
    await page.getByRole("button", { name: "Delete the archive" }).click();
    await page.waitForURL(/\/patch$/);
  },

  async "all statuses"(world) {
    const page = world.alice;
    world.mixed = await upload(page, archive("mixed.zip"));
    await shoot(page, "contents-mixed");
    await page.getByRole("link", { name: "Check", exact: true }).click();
    await page.getByRole("region", { name: "Check" }).waitFor();
    await shoot(page, "check-mixed");
    await fits(page);
    await page.getByRole("link", { name: "Apply", exact: true }).click();
    await page.getByText("it would be refused").waitFor();
    await shoot(page, "confirm-refused");
    await page.getByLabel("Reason").fill("all the same");
    await page.getByRole("button", { name: "Try all the same" }).click();
    await page.waitForURL(/\/results\//);
    await ended(page);
    await page.getByRole("alert").filter({ hasText: "nothing was changed" }).waitFor();
    await shoot(page, "result-refused");
  },

  async "upload, check, plan, apply"(world) {
    const page = world.alice;
    const id = (world.billing = await upload(page, archive("billing.zip")));
    await page.getByText("Exchange.Billing", { exact: true }).waitFor();
    await shoot(page, "contents");
    await page.getByRole("link", { name: "Check", exact: true }).click();
    await page.locator(".verdict", { hasText: "3 nodes" }).waitFor();
    await page.locator("details.node-report summary").first().click();
    await shoot(page, "check");
    await page.getByRole("link", { name: "Plan", exact: true }).click();
    await page.getByRole("heading", { name: "Load order" }).waitFor();
    await shoot(page, "plan");
    await page.getByRole("link", { name: "Apply", exact: true }).click();
    await page.getByText("become current in one step").waitFor();
    await page.getByText("More", { exact: true }).click();
    await shoot(page, "confirm");
    // Without a reason nothing happens.
    await page.getByRole("button", { name: /Apply on 3 nodes/ }).click();
    assert.ok(page.url().endsWith("/apply"));
    await page.getByLabel("Reason").fill("ticket 4711");
    await page.getByRole("button", { name: /Apply on 3 nodes/ }).click();
    await page.waitForURL(/\/results\//);
    await ended(page);
    await page.locator(".verdict.big .s-ok").waitFor();
    await shoot(page, "result");
    assert.equal(await ask(`price`), "45");
    await page.goto(`${url}/patch/${id}`);
    await page.getByText("same", { exact: true }).first().waitFor();
    // The form that was sent is not sent again by going back.
    assert.equal(await page.locator(".patches .st-applied").count(), 1);
  },

  async "rolling back, watched by another, who cannot do a second thing meanwhile"(world) {
    const page = world.alice;
    const bob = (world.bob = await person(world.browser));
    await logIn(bob, "bob");
    // He is about to do something else.
    await bob.goto(`${url}/patch/${world.mixed}/apply`);
    await bob.getByLabel("Reason").fill("me too");
    await page.goto(`${url}/patch/${world.billing}/rollback`);
    await page.getByLabel("Reason").fill("wrong rates");
    await page.getByText("More", { exact: true }).click();
    // Less than those wait who talk in the calls.
    await page.getByLabel("Pause at most").fill("4500");
    await ask("hold");
    await page.getByRole("button", { name: /Roll back on 3 nodes/ }).click();

    await bob.locator("#live .run", { hasText: "rollback" }).waitFor();
    await bob.getByRole("button", { name: "Try all the same" }).click();
    await page.locator("#live .steps .running", { hasText: "commit" }).first().waitFor();
    await shoot(page, "live");
    await bob.waitForURL(/\/results\//);
    await bob.getByRole("alert").filter({ hasText: /rollback of billing-.* by alice/ }).waitFor();
    // Whoever comes in the middle sees it, too.
    await bob.goto(`${url}/nodes`);
    await bob.locator("#live .run", { hasText: "rollback" }).waitFor();
    await shoot(bob, "live-nodes");

    await ask("release");
    await ended(page);
    await page.locator(".verdict.big .s-ok").waitFor();
    await shoot(page, "result-rollback");
    assert.equal(await ask(`price`), "0");
    await bob.locator("#live .run").waitFor({ state: "detached" });
    await bob.goto(`${url}/patch/${world.mixed}/results`);
    await bob.getByText("busy").first().waitFor();
  },

  async "the results and the journal"(world) {
    const page = world.alice;
    await page.goto(`${url}/patch/${world.billing}/results`);
    await page.getByText("wrong rates").first().waitFor();
    await shoot(page, "results");
    await page.getByRole("link", { name: "Journal" }).click();
    await page.getByText("ticket 4711").waitFor();
    await page.getByText("127.0.0.1", { exact: true }).first().waitFor();
    await shoot(page, "journal");
    await page.getByLabel("What").selectOption("rollback");
    await page.getByRole("button", { name: "Show" }).click();
    await page.getByText("1 entry").waitFor();
  },

  async "a viewer sees and does not act"(world) {
    const eve = await person(world.browser);
    await logIn(eve, "eve");
    assert.equal(await eve.locator("#upload").count(), 0);
    await eve.goto(`${url}/patch/${world.billing}/plan`);
    await eve.getByRole("heading", { name: "Load order" }).waitFor();
    assert.equal(await eve.getByRole("link", { name: "Apply" }).count(), 0);
    const answer = await eve.goto(`${url}/patch/${world.billing}/apply`);
    assert.equal(answer.status(), 403);
    await eve.goto(`${url}/nodes`);
    assert.equal(await eve.getByRole("link", { name: /Restart/ }).count(), 0);
    assert.deepEqual(eve.complaints, []);
  },

  async "a node that needs a restart"(world) {
    const page = world.alice;
    const id = await upload(page, archive("lazy.zip"));
    await carryOut(page, id, "Apply", /Apply on 3 nodes/, "memory cannot take it");
    await ended(page);
    await page.locator(".verdict.big .s-not_updated").waitFor();
    await shoot(page, "result-restart");
    await page.goto(`${url}/nodes`);
    await page.getByText("Nobody runs old code").or(page.locator(".stragglers")).waitFor();
    assert.equal(await page.locator(".card .flag.warn", { hasText: "restart needed" }).count(), 3);
    await shoot(page, "nodes");
    const name = await ask("second");
    await page.locator(".card", { hasText: name }).getByRole("link", { name: /Restart/ }).click();
    await page.getByText("Everything that runs on it ends").waitFor();
    await shoot(page, "restart");
    await page.getByLabel("Reason").fill("the new code");
    await page.getByRole("button", { name: "Restart the node" }).click();
    await page.waitForURL(/\/restart\//);
    await ended(page);
    await page.getByText("It is back").waitFor();
    await page.goto(`${url}/nodes`);
    await page.locator(".card", { hasText: name }).locator(".flag.good").waitFor();
    assert.equal(await page.locator(".card .flag.warn").count(), 2);
  },

  async "dark, and as wide as a phone"(world) {
    const dark = await person(world.browser, { colorScheme: "dark", storageState: await world.alice.context().storageState() });
    const phone = await person(world.browser, {
      viewport: { width: 375, height: 740 }, isMobile: true, hasTouch: true, deviceScaleFactor: 2,
      storageState: await world.alice.context().storageState(),
    });
    const pages = {
      patch: "/patch", contents: `/patch/${world.billing}`, check: `/patch/${world.mixed}/check`, plan: `/patch/${world.billing}/plan`,
      confirm: `/patch/${world.billing}/apply`, results: `/patch/${world.billing}/results`, nodes: "/nodes", journal: "/journal",
    };
    for (const [name, at] of Object.entries(pages)) {
      await phone.goto(url + at);
      if (name === "nodes") await phone.locator("#compared[aria-busy]").waitFor({ state: "detached" });
      await fits(phone);
      await shoot(phone, `phone-${name}`);
      if (["check", "nodes", "confirm"].includes(name)) {
        await dark.goto(url + at);
        if (name === "nodes") await dark.locator("#compared[aria-busy]").waitFor({ state: "detached" });
        await shoot(dark, `dark-${name}`);
      }
    }
    assert.deepEqual(phone.complaints.concat(dark.complaints), []);
  },

  async "with the keyboard alone"(world) {
    const page = await person(world.browser);
    await page.goto(`${url}/patch`);
    // The name has the focus already.
    await page.keyboard.type("alice");
    await page.keyboard.press("Tab");
    await page.keyboard.type(process.env.PASSWORD);
    await page.keyboard.press("Enter");
    await page.getByRole("navigation", { name: "System" }).waitFor();
    await page.keyboard.press("Tab");
    assert.equal(await page.evaluate(() => document.activeElement.textContent), "To the content");

    const reach = async (matches) => {
      for (let n = 0; n < 80; n++) {
        if (await page.evaluate(matches)) return;
        await page.keyboard.press("Tab");
      }
      assert.fail(`not to be reached by Tab on ${page.url()}: ${matches}`);
    };
    await reach(`document.activeElement.id === "file"`);
    assert.notEqual(await page.evaluate(() => getComputedStyle(document.activeElement.closest("form")).outlineStyle), "none");
    await reach(`document.activeElement.href?.includes("/patch/billing-")`);
    await page.keyboard.press("Enter");
    await page.waitForURL(/\/patch\/billing-/);
    await reach(`document.activeElement.textContent === "Apply"`);
    assert.notEqual(await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle), "none");
    await shoot(page, "keyboard");
    await page.keyboard.press("Enter");
    await page.waitForURL(/\/apply$/);
    await reach(`document.activeElement.name === "reason"`);
    await page.keyboard.type("by keyboard");
    await reach(`document.activeElement.tagName === "BUTTON" && document.activeElement.classList.contains("primary")`);
    await page.keyboard.press("Enter");
    await page.waitForURL(/\/results\//);
    await ended(page);
    await page.locator(".verdict.big .s-ok").waitFor();
    assert.deepEqual(page.complaints, []);
  },

  async "deleting"(world) {
    const page = world.alice;
    await page.goto(`${url}/patch/${world.mixed}/delete`);
    await shoot(page, "delete");
    await page.getByLabel("Reason").fill("done with");
    await page.getByRole("button", { name: "Delete the archive" }).click();
    await page.waitForURL(/\/patch$/);
    assert.equal(await page.getByText(world.mixed).count(), 0);
  },

  async "a node that goes down midway"(world) {
    const page = world.alice;
    const third = await ask("third");
    await ask("hold");
    await carryOut(page, world.billing, "Roll back", /Roll back on 3 nodes/, "and then the power went");
    await page.locator("#live .steps .running", { hasText: "commit" }).first().waitFor();
    await ask("kill");
    await ended(page);
    await page.getByRole("alert").filter({ hasText: third }).waitFor();
    await shoot(page, "result-node-down");
    await page.goto(`${url}/nodes`);
    assert.equal(await page.locator(".card:not(.away)").count(), 2);
    assert.equal(await page.locator(".card.away", { hasText: third }).count(), 1);
    await page.getByText("Nobody runs old code").or(page.locator(".stragglers")).waitFor();
    assert.equal(await ask("price"), "45");
  },

  async "logging out"(world) {
    const page = world.alice;
    await page.getByRole("button", { name: "Log out" }).click();
    await page.getByRole("heading", { name: "Log in" }).waitFor();
    await page.goto(`${url}/patch`);
    await page.getByRole("heading", { name: "Log in" }).waitFor();
    assert.deepEqual(page.complaints, []);
    assert.deepEqual(world.bob.complaints, []);
  },
};
