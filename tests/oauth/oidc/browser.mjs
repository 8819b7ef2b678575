// A person at a browser: reads one JSON line a task from its input, answers each with one.
//   {"open": URL, "deny": bool, "code": user code, "shot": file, "dark": bool}
// It fills the development pages of oidc-provider and the pages of the CloudSync stand-in until no form is left.
import { createInterface } from 'node:readline';
import { chromium } from 'playwright-core';

// A busy machine takes long.
const PATIENCE = 120_000;
const browser = await chromium.launch({
  timeout: PATIENCE,
  executablePath: process.env.KEYMOUNT_TEST_CHROMIUM,
  args: ['--no-sandbox', '--disable-gpu', '--no-proxy-server'],
});
console.log(JSON.stringify({ ready: true }));

const STEPS = 8;

async function task({ open, deny, code, email, shot, dark }) {
  const context = await browser.newContext({ colorScheme: dark ? 'dark' : 'light', viewport: { width: 900, height: 720 } });
  context.setDefaultTimeout(PATIENCE);
  const page = await context.newPage();
  const outside = [];
  let response = await page.goto(open);
  page.on('request', (request) => outside.push(request.url()));
  page.on('response', (one) => { if (one.request().isNavigationRequest()) response = one; });
  for (let step = 0; step < STEPS; step += 1) {
    if (!(await page.locator('form').count())) break;
    const fill = async (name, value) => {
      const field = page.locator(`input[name=${name}]`);
      if ((await field.count()) && (await field.first().isVisible())) await field.first().fill(value);
    };
    await fill('login', 'ada');
    await fill('password', 'any');
    await fill('user_code', code ?? '');
    await fill('email', email ?? '');
    const abort = page.locator('a[href$="/abort"], button[value=abort], button[value=deny]');
    const go = page.locator('button[value=allow], button[type=submit]:not([value=deny]):not([value=abort])');
    const press = deny && (await abort.count()) ? abort : go;
    await Promise.all([page.waitForNavigation(), press.first().click()]);
  }
  await page.waitForLoadState('load');
  if (shot) await page.screenshot({ path: shot, fullPage: true });
  const answer = {
    url: page.url(),
    status: response.status(),
    headers: await response.allHeaders(),
    title: await page.title(),
    text: await page.innerText('body'),
  };
  await context.close();
  return answer;
}

for await (const line of createInterface({ input: process.stdin })) {
  try {
    console.log(JSON.stringify(await task(JSON.parse(line))));
  } catch (error) {
    console.log(JSON.stringify({ error: String(error) }));
  }
}
await browser.close();
