/**
 * Files for their owner alone, replaced as a whole and on disk when the write resolves. A crash leaves
 * the file as it was before or as it is after.
 */

/**
 * A file with a key or a password that not only its owner may use: it may be known to others, or be
 * another's. A process that needs it ends with 78 (EX_CONFIG); closing it silently would hide that.
 */
export class OpenFileError extends HyphaError {
  constructor(path: string, mode: number) {
    const octal = (mode & 0o777).toString(8).padStart(4, '0');
    super('E_FORBIDDEN', `refusing ${path}: its mode ${octal} lets others use it`, {
      where: { path },
      hint: `if nobody has used it: chmod 600 ${path}; else make a new key`,
    });
    this.name = 'OpenFileError';
  }
}

/**
 * The text of a file that only its owner may read or write; asked of the open file, so that it is that file.
 * @throws OpenFileError when others may; whatever `open` throws when it is not there
 */
export function readPrivateFile(path: string): string {
  const fd = openSync(path, 'r');
  try {
    const { mode } = fstatSync(fd);
    if ((mode & OTHERS) !== 0) throw new OpenFileError(path, mode);
    return readFileSync(fd, 'utf8');
  } finally {
    closeSync(fd);
  }
}
