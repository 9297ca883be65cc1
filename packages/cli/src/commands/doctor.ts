import { existsSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import type { MachineReport } from '@hypha/sal-host';
import type { Confinement } from '@hypha/sandbox';
import type { Command } from 'commander';
import { keyDirOf } from '../context.ts';
import { type Finding, findOnNodes } from '../node-findings.ts';
import { type Session, sessionOf } from '../session.ts';
import { findRedisServer } from '../up/redis-process.ts';

const DETECT_MS_MAX = 30_000;

function nodeFinding(): Finding {
  const ok = process.versions.node.startsWith('24.');
  return {
    what: 'node',
    state: ok ? 'ok' : 'missing',
    detail: process.version,
    ...(ok ? {} : { hint: 'run it by bin/hypha, which brings Node 24' }),
  };
}

function redisFinding(): Finding {
  try {
    return { what: 'redis', state: 'ok', detail: findRedisServer() };
  } catch {
    return {
      what: 'redis',
      state: 'missing',
      detail: 'no redis-server: nodes cannot queue runs',
      hint: 'apt-get install redis-server',
    };
  }
}

function salFinding(kind: string, sal: MachineReport['volume']): Finding {
  if (sal.works) return { what: `sal ${kind}`, state: 'ok', detail: sal.driver };
  return {
    what: `sal ${kind}`,
    state: 'simulated',
    detail: `simulated here: ${sal.reason ?? sal.driver}`,
    ...(sal.hint === undefined ? {} : { hint: sal.hint }),
  };
}

function fenceFinding({ cgroups }: MachineReport): Finding {
  const { layout, cgroup2 } = cgroups;
  if (cgroup2 !== undefined) {
    const detail = `cgroups ${layout}: a runner dies with every tool it started`;
    return { what: 'fencing', state: 'ok', detail };
  }
  const hasVersion2 = layout === 'unified' || layout === 'hybrid';
  const lack = hasVersion2 ? `cgroups ${layout}, not ours to write` : 'no cgroup v2';
  return {
    what: 'fencing',
    state: 'warn',
    detail: `${lack}: a dead runner's tools are found by process group only`,
  };
}

function rightsFinding({ isRoot }: MachineReport): Finding {
  return {
    what: 'rights',
    state: isRoot ? 'ok' : 'simulated',
    detail: isRoot
      ? 'root: volumes and containers can be real'
      : 'not root: volumes and containers are simulated',
  };
}

/** As a runner started by this user would have its hosts. */
function sandboxFinding({ lacks }: Confinement): Finding {
  return {
    what: 'sandbox',
    state: lacks.length === 0 ? 'ok' : 'warn',
    detail: lacks.length === 0 ? 'hosts get a user and a network of their own' : lacks.join('; '),
  };
}

function keyFinding(session: Session): Finding {
  const dir = keyDirOf(session.flags, session.env);
  const files = existsSync(dir) ? readdirSync(dir).map((name) => join(dir, name)) : [];
  const open = [dir, ...files].find((path) => existsSync(path) && isOpen(path));
  if (open === undefined) return { what: 'keys', state: 'ok', detail: `${dir}: yours alone` };
  return {
    what: 'keys',
    state: 'warn',
    detail: `others may use ${open}`,
    hint: `chmod go= ${open}`,
  };
}

function isOpen(path: string): boolean {
  return (statSync(path).mode & 0o077) !== 0;
}

function findOnMachine(machine: MachineReport): Finding[] {
  return [
    nodeFinding(),
    redisFinding(),
    rightsFinding(machine),
    fenceFinding(machine),
    salFinding('volume', machine.volume),
    salFinding('container', machine.container),
    {
      what: 'ipv6',
      state: machine.hasIpv6 ? 'ok' : 'warn',
      detail: machine.hasIpv6 ? 'on for new interfaces' : 'off: containers would have no address',
    },
    ...machine.tools
      .filter((tool) => tool.path === null)
      .map(
        (tool): Finding => ({
          what: `tool ${tool.name}`,
          state: 'missing',
          detail: 'not installed',
          hint: `apt-get install ${tool.package}`,
        }),
      ),
  ];
}

/** A reason may say already what to do. */
function withHint(detail: string, hint: string | undefined): string {
  return hint === undefined || detail.includes(hint) ? detail : `${detail} (${hint})`;
}

const COLOURS = { ok: 'green', simulated: 'yellow', warn: 'yellow', missing: 'red' } as const;

export function doctorCommand(program: Command): void {
  program
    .command('doctor')
    .description('what works on this machine and protects its nodes, what does not, and why')
    .action(async (_options: unknown, command: Command) => {
      const session = sessionOf(command);
      const { output } = session;
      // Only here: the drivers would slow every other command down.
      const { detectMachine } = await import('@hypha/sal-host');
      const { detectHosts } = await import('@hypha/sandbox');
      const [machine, confinement, nodes] = await Promise.all([
        detectMachine(AbortSignal.timeout(DETECT_MS_MAX)),
        detectHosts(),
        findOnNodes(session),
      ]);
      const found = [
        ...findOnMachine(machine),
        sandboxFinding(confinement),
        keyFinding(session),
        ...nodes,
      ];
      output.list(
        found,
        [
          { title: 'what', cell: (item) => item.what },
          { title: 'state', cell: (item) => output.style(COLOURS[item.state], item.state) },
          { title: 'detail', cell: ({ detail, hint }) => withHint(detail, hint) },
        ],
        'nothing to say',
      );
    });
}
