import type { Reporter, TestModule } from 'vitest/node';

declare module 'vitest' {
  interface TaskMeta {
    /** Of a test that runs published vectors: their name and how many there were. */
    vectors?: { readonly suite: string; readonly cases: number };
  }
}

/**
 * The last line of `scripts/test`: `N passed, N failed, N skipped`. A skip fails the run unless its test
 * says what this machine lacks (`context.skip('needs …')`), and then that is printed. Before it a line for
 * each suite of published vectors that passed, with the number of cases.
 */
export default class TestSummary implements Reporter {
  onTestRunEnd(modules: readonly TestModule[], errors: readonly unknown[]): void {
    const count = { passed: 0, failed: 0, skipped: 0 };
    const silent: string[] = [];
    const lacking: string[] = [];
    const vectors: string[] = [];
    for (const module of modules) {
      // A file that cannot be loaded has no tests to fail.
      if (module.state() === 'failed' && [...module.children.allTests()].length === 0)
        count.failed++;
      for (const test of module.children.allTests()) {
        const result = test.result();
        const { vectors: run } = test.meta();
        if (result.state === 'passed' && run !== undefined)
          vectors.push(`vectors, ${run.suite}: ${run.cases} cases`);
        if (result.state === 'passed') count.passed++;
        else if (result.state === 'failed') count.failed++;
        else {
          count.skipped++;
          const note = result.state === 'skipped' ? result.note : undefined;
          const name = `${module.relativeModuleId}: ${test.fullName}`;
          if (note?.startsWith('needs ')) lacking.push(`${name}: ${note}`);
          else silent.push(name);
        }
      }
    }
    const lines = [
      ...vectors.sort(),
      ...lacking.map((line) => `skipped, ${line}`),
      ...silent.map((line) => `skipped without naming what it needs: ${line}`),
      ...(errors.length > 0 ? [`${errors.length} errors outside tests`] : []),
    ];
    const failed = count.failed + silent.length + (errors.length > 0 && count.failed === 0 ? 1 : 0);
    if (failed > 0) process.exitCode = 1;
    process.once('exit', () => {
      for (const line of lines) process.stdout.write(`${line}\n`);
      process.stdout.write(
        `\n${count.passed} passed, ${failed} failed, ${count.skipped} skipped\n`,
      );
    });
  }
}
