import type { Problem } from '@hypha/protocol';
import { Problem as ProblemSchema } from '@hypha/protocol';
import { z } from 'zod';
import type { RouteAuth } from './request-auth.ts';

/** What the document needs of a route; `answer` undefined: an event stream. */
export interface DescribedRoute {
  readonly method: 'GET' | 'POST';
  readonly path: string;
  readonly auth: RouteAuth;
  readonly summary: string;
  readonly params?: z.ZodType | undefined;
  readonly query?: z.ZodType | undefined;
  readonly body?: z.ZodType | undefined;
  readonly answer?: z.ZodType | undefined;
  readonly status?: number | undefined;
}

type JsonSchema = Readonly<Record<string, unknown>>;

/** OpenAPI 3.1 of a service, generated from the schemas that its routes are checked with (design §9). */
export function describeApi(
  info: { readonly title: string; readonly version: string },
  routes: readonly DescribedRoute[],
): JsonSchema {
  const schemas: Record<string, JsonSchema> = {};
  const define = (schema: z.ZodType, name: string, io: 'input' | 'output'): JsonSchema =>
    hoist(z.toJSONSchema(schema, { io, unrepresentable: 'any' }), name, schemas);
  const problem = define(ProblemSchema satisfies z.ZodType<Problem>, 'Problem', 'output');
  const paths: Record<string, Record<string, JsonSchema>> = {};
  for (const route of routes) {
    const path = route.path.replaceAll(/:([A-Za-z]+)/g, '{$1}');
    const name = operationName(route);
    const members = paths[path] ?? {};
    paths[path] = members;
    members[route.method.toLowerCase()] = {
      operationId: name,
      summary: route.summary,
      ...(route.auth === 'public' ? {} : { security: [{ requestSignature: rolesOf(route.auth) }] }),
      parameters: [
        ...parametersOf(route.params, 'path', `${name}Params`, define),
        ...parametersOf(route.query, 'query', `${name}Query`, define),
      ],
      ...(route.body === undefined
        ? {}
        : {
            requestBody: {
              required: true,
              content: {
                'application/json': { schema: define(route.body, `${name}Body`, 'input') },
              },
            },
          }),
      responses: {
        [String(route.status ?? 200)]: {
          description: 'done',
          content:
            route.answer === undefined
              ? { 'text/event-stream': { schema: { type: 'string' } } }
              : { 'application/json': { schema: define(route.answer, `${name}Answer`, 'output') } },
        },
        default: {
          description: 'refused (RFC 9457)',
          content: { 'application/problem+json': { schema: problem } },
        },
      },
    };
  }
  return {
    openapi: '3.1.0',
    info,
    paths,
    components: {
      schemas,
      securitySchemes: {
        requestSignature: {
          type: 'http',
          scheme: 'signature',
          description:
            'RFC 9421, alg ed25519, over @method @authority @path @query content-digest, with created, expires (at most 60 s), nonce and keyid',
        },
      },
    },
  };
}

/** OpenAPI 3.1 lets a security requirement name the roles that are needed. */
function rolesOf(auth: Exclude<RouteAuth, 'public'>): readonly string[] {
  return auth === 'node' ? ['node'] : auth.roles;
}

type Define = (schema: z.ZodType, name: string, io: 'input' | 'output') => JsonSchema;

function parametersOf(
  schema: z.ZodType | undefined,
  place: 'path' | 'query',
  name: string,
  define: Define,
): JsonSchema[] {
  if (!(schema instanceof z.ZodObject)) return [];
  return Object.entries(schema.shape).map(([key, member]) => {
    const field = member as z.ZodType;
    return {
      name: key,
      in: place,
      required: place === 'path' || !field.safeParse(undefined).success,
      schema: define(field, `${name}_${key}`, 'input'),
    };
  });
}

/** `getRunsIdEvents` for `GET /v1/runs/:id/events`. */
function operationName({ method, path }: DescribedRoute): string {
  const words = path.split(/[^A-Za-z0-9]+/).filter((word) => word !== '' && word !== 'v1');
  const capitalised = words.map((word) => word.charAt(0).toUpperCase() + word.slice(1));
  return method.toLowerCase() + capitalised.join('');
}

/**
 * Moves a schema's own definitions to the document's components: `#/$defs/x` means the schema's root, which
 * inside the document is no longer the root.
 */
function hoist(
  schema: JsonSchema,
  name: string,
  components: Record<string, JsonSchema>,
): JsonSchema {
  const { $defs, $schema: _dialect, ...rest } = schema;
  const rename = (ref: string): string =>
    ref === '#'
      ? `#/components/schemas/${name}`
      : ref.replace('#/$defs/', `#/components/schemas/${name}_`);
  const rewrite = (value: unknown): unknown => {
    if (Array.isArray(value)) return value.map(rewrite);
    if (typeof value !== 'object' || value === null) return value;
    return Object.fromEntries(
      Object.entries(value).map(([key, member]) => [
        key,
        key === '$ref' && typeof member === 'string' ? rename(member) : rewrite(member),
      ]),
    );
  };
  for (const [key, definition] of Object.entries($defs ?? {})) {
    components[`${name}_${key}`] = rewrite(definition) as JsonSchema;
  }
  const whole = rewrite(rest) as JsonSchema;
  if (!JSON.stringify(rest).includes('"$ref":"#"')) return whole;
  components[name] = whole;
  return { $ref: `#/components/schemas/${name}` };
}
