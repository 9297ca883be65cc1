// show-page.mjs RUN OUTPUT: fetches the page whose URL the script returned, and prints it.
const [run, output] = process.argv.slice(2).map((text) => JSON.parse(text));
if (run.simulated) {
  process.stdout.write(`${output.url}: simulated, so there is no page to fetch\n`);
} else {
  const answer = await fetch(output.url, { signal: AbortSignal.timeout(10_000) });
  process.stdout.write(`${output.url} answers ${answer.status}:\n\n${await answer.text()}\n`);
  if (!answer.ok) process.exit(1);
}
