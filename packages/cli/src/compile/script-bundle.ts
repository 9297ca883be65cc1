import { basename, dirname, extname, isAbsolute } from 'node:path';
import { HyphaError, LIMITS } from '@hypha/protocol';
import { build, type Loader, type Message, type OnResolveArgs, type Plugin } from 'esbuild';
import { appendSourceMap, reduceSourceMap } from './source-map.ts';

export interface ScriptBundle {
  /** What will be signed: one ES2023 module with its map as the last line. */
  readonly source: string;
  readonly sourceMap: string;
}

/** Imported as text. Anything else that is not a script is refused. */
const TEXT_FILES =
  `.txt .html .htm .css .svg .xml .md .conf .cfg .cnf .ini .env .properties .toml .yaml .yml
  .sh .sql .tmpl .service`.split(/\s+/);
const SCRIPT_FILES = ['.ts', '.mts', '.js', '.mjs'];
/** A bundle may be so long that the map alone would not fit; the payload's own bound is what counts. */
const SOURCE_BYTES_MAX = LIMITS.payloadBytesMax;

/**
 * One file out of a script and what it imports by relative path: types stripped, nothing shortened, so
 * that what is signed can be read. Throws `E_SCRIPT_SYNTAX` with the place in the operator's own file,
 * `E_SIZE` over 256 KiB.
 * @param file absolute path
 */
export async function bundleScript(file: string): Promise<ScriptBundle> {
  if (!SCRIPT_FILES.includes(extname(file))) {
    throw new HyphaError(
      'E_ARGUMENT',
      `cannot compile ${file}: not a TypeScript or JavaScript file`,
      {
        hint: `name it ${SCRIPT_FILES.join(', ')}`,
      },
    );
  }
  const folder = dirname(file);
  const { outputFiles } = await build({
    entryPoints: [file],
    absWorkingDir: folder,
    outfile: `${folder}/script.js`,
    bundle: true,
    write: false,
    format: 'esm',
    target: 'es2023',
    platform: 'neutral',
    charset: 'utf8',
    sourcemap: 'external',
    sourcesContent: false,
    legalComments: 'none',
    logLevel: 'silent',
    // Not what happens to lie around on the signer's machine: the same files give the same bytes.
    tsconfigRaw: {},
    loader: Object.fromEntries(
      TEXT_FILES.map((extension): [string, Loader] => [extension, 'text']),
    ),
    plugins: [onlyRelativeImports],
  }).catch((error: unknown) => {
    throw toScriptError(file, error);
  });
  const text = (suffix: string) =>
    outputFiles.find(({ path }) => path.endsWith(suffix))?.text ?? '';
  const sourceMap = reduceSourceMap(text('.map'));
  const source = appendSourceMap(text('.js'), sourceMap);
  const bytes = Buffer.byteLength(source);
  if (bytes > SOURCE_BYTES_MAX) {
    throw new HyphaError('E_SIZE', `${basename(file)} compiles to ${bytes} bytes`, {
      hint: `a script holds at most ${SOURCE_BYTES_MAX} bytes, imported files included`,
    });
  }
  return { source, sourceMap };
}

/** Everything a script is made of is signed with it, so it can only import what lies next to it. */
const onlyRelativeImports: Plugin = {
  name: 'only-relative-imports',
  setup({ onResolve }) {
    onResolve({ filter: /.*/ }, (args) => {
      if (args.kind === 'entry-point') return undefined;
      if (args.path === 'hypha' && args.kind === 'import-statement') {
        return { path: 'hypha', external: true };
      }
      const refused = refuseImport(args);
      return refused === undefined ? undefined : { errors: [{ text: refused }] };
    });
  },
};

function refuseImport({ kind, path }: OnResolveArgs): string | undefined {
  if (kind !== 'import-statement')
    return `cannot load ${path}: a script uses import statements only`;
  if (/^\.\.?\//.test(path)) return undefined;
  const why = isAbsolute(path) || /^[a-z][a-z0-9+.-]*:/i.test(path) ? 'not relative' : 'a package';
  return `cannot import ${path}: it is ${why}; a script imports 'hypha' and files by relative path`;
}

function toScriptError(file: string, error: unknown): HyphaError {
  const [first] = (error as { errors?: Message[] }).errors ?? [];
  if (first === undefined) {
    return new HyphaError('E_INTERNAL', `cannot compile ${file}`, { cause: error });
  }
  const { location, text } = first;
  if (location === null) {
    return new HyphaError('E_NOT_FOUND', `cannot read ${file}`, {
      cause: error,
      hint: 'give the path of a script that is there and may be read',
    });
  }
  // esbuild counts bytes from 0; editors count characters from 1.
  const before = Buffer.from(location.lineText).subarray(0, location.column).toString('utf8');
  const where = { file: location.file, line: location.line, column: before.length + 1 };
  return new HyphaError('E_SCRIPT_SYNTAX', text, { where, cause: error });
}
