import type { SeededRandom } from '@hypha/testkit';

/** A generated script, and what must hold once it has ended. */
export interface ChaosScript {
  readonly source: string;
  /** Ends with an error of its own, if nothing ends it before. */
  readonly throws: boolean;
  /** `kind name` of everything it declares. */
  readonly declares: readonly string[];
  /** Words that it writes into `/data/effects` of volume `v0`, each by one call that may not be repeated. */
  readonly words: readonly string[];
}

interface Draft {
  readonly random: SeededRandom;
  readonly lines: string[];
  readonly declares: string[];
  readonly words: string[];
  /** Unlike that of any other script. */
  readonly mark: string;
}

/**
 * One revision of a deployment: volumes and containers, made one after another and at once, with waits, calls
 * that may happen once only, snapshots, and now and then an error.
 * @param mark part of every word it writes
 */
export function writeScript(random: SeededRandom, mark: string): ChaosScript {
  const draft: Draft = { random, lines: [], declares: [], words: [], mark };
  writeVolumes(draft);
  const containers = writeContainers(draft);
  const actions = random.int(1, 4);
  for (let count = 0; count < actions; count++) writeAction(draft, containers);
  const throws = random.chance(0.2);
  if (throws) draft.lines.push(`throw new Error('on purpose');`);
  const source = `import { container, log, sleep, volume, waitFor } from 'hypha';
export default async function deploy({ image }) {
${draft.lines.map((line) => `  ${line}\n`).join('')}  return '${mark}';
}
`;
  return { source, throws, declares: draft.declares, words: draft.words };
}

/** `v0` is always there: containers mount it. */
function writeVolumes({ random, lines, declares }: Draft): void {
  const names = ['v0', 'v1', 'v2'].slice(0, random.int(1, 3));
  const calls = names.map((name) => `volume('${name}', { size: '${random.int(8, 16)}MiB' })`);
  for (const name of names) declares.push(`volume ${name}`);
  if (random.chance(0.5))
    lines.push(`const [${names.join(', ')}] = await Promise.all([${calls.join(', ')}]);`);
  else calls.forEach((call, index) => void lines.push(`const ${names[index]} = await ${call};`));
}

/** Other limits are an update, another environment a replacement. */
function writeContainers({ random, lines, declares }: Draft): readonly string[] {
  const names = ['c0', 'c1'].slice(0, random.int(1, 2));
  const calls = names.map((name) => {
    const memory = `${random.pick([16, 24])}MiB`;
    const env = `{ LIFE: '${random.int(1, 3)}' }`;
    return `container('${name}', { image, command: ['/bin/sleep', '1000000'], memory: '${memory}', cpus: 0.05, env: ${env}, mounts: { '/data': v0 } })`;
  });
  for (const name of names) declares.push(`container ${name}`);
  if (random.chance(0.5))
    lines.push(`const [${names.join(', ')}] = await Promise.all([${calls.join(', ')}]);`);
  else calls.forEach((call, index) => void lines.push(`const ${names[index]} = await ${call};`));
  return names;
}

function writeAction({ random, lines, words, mark }: Draft, containers: readonly string[]): void {
  const at = random.pick(containers);
  switch (random.int(1, 6)) {
    case 1: {
      const word = `${mark}-${words.length}`;
      words.push(word);
      lines.push(`await ${at}.exec(['/bin/sh', '-c', 'echo ${word} >> /data/effects']);`);
      return;
    }
    case 2:
      lines.push(`await sleep(${random.pick([100, 400, 2500])});`);
      return;
    case 3:
      lines.push(`await v0.snapshot('${mark}-${lines.length}');`);
      return;
    case 4:
      lines.push(`for (let i = 0; i < ${random.int(1, 30)}; i++) log('line', { i });`);
      return;
    case 5: {
      const probe = `${at}.exec(['/bin/ls', '/data'], { idempotent: true })`;
      lines.push(
        `await waitFor('data', async () => (await ${probe}).exitCode === 0, { every: 200, timeout: '60s' });`,
      );
      return;
    }
    default: {
      const each = `${at}.exec(['/bin/echo', String(i)], { idempotent: true })`;
      lines.push(`await Promise.all([1, 2, 3].map((i) => ${each}));`);
    }
  }
}
