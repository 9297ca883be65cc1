import { expect, test } from 'vitest';
import { adaptSeccompProfile, loadSeccompProfile } from './seccomp-profile.ts';

const rule = (name: string, more: object = {}) => ({
  names: [name],
  action: 'SCMP_ACT_ALLOW',
  args: [],
  includes: {},
  excludes: {},
  ...more,
});
const profile = {
  defaultAction: 'SCMP_ACT_ERRNO',
  defaultErrnoRet: 38,
  archMap: [{ architecture: 'SCMP_ARCH_X86_64', subArchitectures: ['SCMP_ARCH_X86'] }],
  syscalls: [
    rule('read'),
    rule('chroot', { includes: { caps: ['CAP_SYS_CHROOT'] } }),
    rule('bpf', { includes: { caps: ['CAP_SYS_ADMIN'] } }),
    rule('clone3', {
      excludes: { caps: ['CAP_SYS_ADMIN'] },
      action: 'SCMP_ACT_ERRNO',
      errnoRet: 38,
    }),
    rule('setns', { excludes: { caps: ['CAP_SYS_ADMIN', 'CAP_KILL'] } }),
    rule('arm_sync', { includes: { arches: ['arm64'] } }),
    rule('newer', { includes: { minKernel: '6.18' } }),
    rule('future', { includes: { minKernel: '7.0' } }),
    rule('socket', { args: [{ index: 0, value: 16, valueTwo: 0, op: 'SCMP_CMP_NE' }] }),
  ],
};
const machine = { architecture: 'amd64', kernel: '6.18.44-x' };

test('keeps the rules that hold for these capabilities, this architecture and this kernel', () => {
  const adapted = adaptSeccompProfile(profile, machine);
  expect(adapted.syscalls.flatMap(({ names }) => names)).toEqual([
    'read',
    'chroot',
    'clone3',
    'newer',
    'socket',
  ]);
  expect(adapted).toMatchObject({
    defaultAction: 'SCMP_ACT_ERRNO',
    defaultErrnoRet: 38,
    architectures: ['SCMP_ARCH_X86_64', 'SCMP_ARCH_X86'],
  });
  expect(adapted.syscalls[2]).toEqual({
    names: ['clone3'],
    action: 'SCMP_ACT_ERRNO',
    errnoRet: 38,
  });
});

test('is none for an architecture it does not know', () => {
  expect(() => adaptSeccompProfile(profile, { ...machine, architecture: 's390x' })).toThrow();
});

test('what the machine ships denies by default', async ({ skip }) => {
  const shipped = await loadSeccompProfile();
  if (shipped === null)
    return skip("needs a seccomp profile: Debian's golang-github-containers-common");
  expect(shipped.defaultAction).toBe('SCMP_ACT_ERRNO');
  const allowed = shipped.syscalls.filter(({ action }) => action === 'SCMP_ACT_ALLOW');
  const names = allowed.flatMap((each) => each.names);
  expect(names).toContain('openat');
  for (const name of ['init_module', 'kexec_load', 'bpf', 'open_by_handle_at']) {
    expect(names).not.toContain(name);
  }
});
