/**
 * The machine's default system call filter: the profile that Debian's golang-github-containers-common
 * ships for all its container engines, cut down to this architecture and to the capabilities that our
 * containers have. Format: containers/common `pkg/seccomp` v0.44 and later.
 */
import { readFile } from 'node:fs/promises';
import { release } from 'node:os';
import { z } from 'zod';
import { CAPABILITIES } from './capabilities.ts';
import type { SeccompProfile } from './container-host.ts';
import { imageArchitecture } from './oci-layout.ts';

const PROFILES = ['/etc/containers/seccomp.json', '/usr/share/containers/seccomp.json'] as const;

const Filter = z
  .object({
    caps: z.array(z.string()).nullish(),
    arches: z.array(z.string()).nullish(),
    minKernel: z.string().nullish(),
  })
  .nullish();

const ProfileFile = z.object({
  defaultAction: z.string(),
  defaultErrnoRet: z.int().nullish(),
  archMap: z
    .array(z.object({ architecture: z.string(), subArchitectures: z.array(z.string()).nullish() }))
    .nullish(),
  syscalls: z.array(
    z.object({
      names: z.array(z.string()),
      action: z.string(),
      errnoRet: z.int().nullish(),
      args: z
        .array(
          z.object({
            index: z.int(),
            value: z.number(),
            valueTwo: z.number().default(0),
            op: z.string(),
          }),
        )
        .nullish(),
      includes: Filter,
      excludes: Filter,
    }),
  ),
});

const SECCOMP_ARCHITECTURES: Readonly<Record<string, string>> = {
  amd64: 'SCMP_ARCH_X86_64',
  arm64: 'SCMP_ARCH_AARCH64',
};

/** Null when the machine has none that can be read. */
export async function loadSeccompProfile(): Promise<SeccompProfile | null> {
  for (const path of PROFILES) {
    const text = await readFile(path, 'utf8').catch(() => undefined);
    if (text === undefined) continue;
    try {
      return adaptSeccompProfile(JSON.parse(text), {
        architecture: imageArchitecture(),
        kernel: release(),
      });
    } catch {
      return null;
    }
  }
  return null;
}

/** Pure. Throws when it is not a profile, or has none for the architecture. */
export function adaptSeccompProfile(
  json: unknown,
  machine: { architecture: string; kernel: string },
): SeccompProfile {
  const file = ProfileFile.parse(json);
  const native = SECCOMP_ARCHITECTURES[machine.architecture];
  const entry = file.archMap?.find(({ architecture }) => architecture === native);
  if (entry === undefined) throw new RangeError(`no profile for ${machine.architecture}`);
  const applies = (filter: z.infer<typeof Filter>, isExclusion: boolean): boolean => {
    const matches = [
      ...(filter?.caps?.length ? [hasCapabilities(filter.caps, isExclusion)] : []),
      ...(filter?.arches?.length ? [filter.arches.includes(machine.architecture)] : []),
      ...(filter?.minKernel ? [isAtLeast(machine.kernel, filter.minKernel)] : []),
    ];
    return isExclusion ? !matches.some(Boolean) : matches.every(Boolean);
  };
  const syscalls = file.syscalls
    .filter((rule) => applies(rule.includes, false) && applies(rule.excludes, true))
    .map(({ names, action, errnoRet, args }) => ({
      names,
      action,
      ...(typeof errnoRet === 'number' ? { errnoRet } : {}),
      ...(args?.length ? { args } : {}),
    }));
  return {
    defaultAction: file.defaultAction,
    ...(typeof file.defaultErrnoRet === 'number' ? { defaultErrnoRet: file.defaultErrnoRet } : {}),
    architectures: [entry.architecture, ...(entry.subArchitectures ?? [])],
    syscalls,
  };
}

/** One of them is enough to exclude a rule; including it takes all. */
function hasCapabilities(wanted: readonly string[], isExclusion: boolean): boolean {
  const isHeld = (capability: string) => CAPABILITIES.includes(capability);
  return isExclusion ? wanted.some(isHeld) : wanted.every(isHeld);
}

function isAtLeast(kernel: string, wanted: string): boolean {
  const [major = 0, minor = 0] = kernel.split(/[.-]/).map(Number);
  const [wantedMajor = 0, wantedMinor = 0] = wanted.split('.').map(Number);
  return major > wantedMajor || (major === wantedMajor && minor >= wantedMinor);
}
