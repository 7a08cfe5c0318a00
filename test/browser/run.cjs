// Runs the scenarios; told by the environment where everything is, see console_browser_test.exs.
"use strict";

const { launch, shoot } = require("./pages.cjs");
const scenarios = require("./scenarios.cjs");

(async () => {
  const world = { browser: await launch() };
  for (const [name, scenario] of Object.entries(scenarios)) {
    const started = Date.now();
    try {
      await scenario(world);
    } catch (error) {
      process.stdout.write(`failed ${name}\n${error.stack}\n`);
      for (const [n, context] of world.browser.contexts().entries())
        for (const page of context.pages()) {
          process.stdout.write(`a page was at ${page.url()}, and complained: ${JSON.stringify(page.complaints)}\n`);
          await shoot(page, `failed-${n}`).catch(() => {});
        }
      process.exit(1);
    }
    process.stdout.write(`passed ${name} in ${Date.now() - started} ms\n`);
  }
  await world.browser.close();
  process.exit(0);
})();
