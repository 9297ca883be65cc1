// change-one-byte.mjs BUNDLE: prints the bundle's envelope with one byte of the signed payload changed.
import { readFileSync } from 'node:fs';

const { submission } = JSON.parse(readFileSync(process.argv[2], 'utf8'));
const payload = Buffer.from(submission.payload, 'base64');
const at = payload.indexOf('"generation":') + '"generation":'.length;
payload[at] = payload[at] === 0x39 ? 0x38 : payload[at] + 1;
process.stdout.write(JSON.stringify({ ...submission, payload: payload.toString('base64') }));
