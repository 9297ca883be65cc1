import {
  CancellationAccepted,
  Envelope,
  JournalEvent,
  Json,
  type Page,
  PlanDocument,
  pageOf,
  RunId,
  RunView,
  Sha256Hex,
  type Submission,
  SubmissionAccepted,
} from '@hypha/protocol';
import { z } from 'zod';
import type { StreamEvent } from './event-stream.ts';
import { apiPath, HyphaClient, type HyphaClientOptions } from './hypha-client.ts';
import type { PageQuery } from './page-query.ts';

/** `GET /v1/runs/:id/output`. `sha256` is over the committed JSON text, as the receipt has it. */
export const RunOutput = z.object({ run: RunId, output: Json, sha256: Sha256Hex });
export type RunOutput = z.infer<typeof RunOutput>;

export interface RunQuery extends PageQuery {
  readonly deployment?: string | undefined;
  readonly node?: string | undefined;
  readonly state?: string | undefined;
  /** Accepted at or after, epoch milliseconds. */
  readonly since?: number | undefined;
}

export interface Cancellable {
  readonly signal?: AbortSignal;
}

const RunPage = pageOf(RunView);
const JournalPage = pageOf(JournalEvent);

/** What coordinator and node serve alike (design §9): submissions, cancels, and runs to read. */
export class RunsClient {
  readonly http: HyphaClient;

  constructor(options: HyphaClientOptions | HyphaClient) {
    this.http = options instanceof HyphaClient ? options : new HyphaClient(options);
  }

  /** Durably accepted when it resolves. The same envelope again answers the same runs. */
  submit(submission: Submission, options: Cancellable = {}): Promise<SubmissionAccepted> {
    return this.http.request({
      method: 'POST',
      path: '/v1/deployments',
      body: submission,
      answer: SubmissionAccepted,
      ...options,
    });
  }

  /**
   * Durably accepted when it resolves; the same envelope again answers the same. Throws `E_TOO_LATE` when every
   * run of the target has committed or ended.
   * @param submission its envelope is a signed cancel
   */
  cancel(submission: Submission, options: Cancellable = {}): Promise<CancellationAccepted> {
    return this.http.request({
      method: 'POST',
      path: '/v1/cancellations',
      body: submission,
      answer: CancellationAccepted,
      ...options,
    });
  }

  listRuns(query: RunQuery = {}, options: Cancellable = {}): Promise<Page<RunView>> {
    return this.http.request({
      method: 'GET',
      path: '/v1/runs',
      query: { ...query },
      answer: RunPage,
      ...options,
    });
  }

  run(run: string, options: Cancellable = {}): Promise<RunView> {
    return this.http.request({
      method: 'GET',
      path: apiPath`/v1/runs/${run}`,
      answer: RunView,
      ...options,
    });
  }

  /** One connection's events of a run; `runEventsPath` is for `followStream`. */
  runEvents(
    run: string,
    options: { readonly lastEventId?: string; readonly signal: AbortSignal },
  ): AsyncGenerator<StreamEvent, void, undefined> {
    return this.http.stream({ path: runEventsPath(run), ...options });
  }

  journal(
    run: string,
    query: PageQuery = {},
    options: Cancellable = {},
  ): Promise<Page<JournalEvent>> {
    return this.http.request({
      method: 'GET',
      path: apiPath`/v1/runs/${run}/journal`,
      query: { ...query },
      answer: JournalPage,
      ...options,
    });
  }

  /** `E_NOT_FOUND` until the run has committed. */
  output(run: string, options: Cancellable = {}): Promise<RunOutput> {
    return this.http.request({
      method: 'GET',
      path: apiPath`/v1/runs/${run}/output`,
      answer: RunOutput,
      ...options,
    });
  }

  /** What the run would do, or does; `E_NOT_FOUND` until a step of it is planned. */
  plan(run: string, options: Cancellable = {}): Promise<PlanDocument> {
    return this.http.request({
      method: 'GET',
      path: apiPath`/v1/runs/${run}/plan`,
      answer: PlanDocument,
      ...options,
    });
  }

  /** What was signed, as it was submitted: with it a reader can prove the run down to genesis. */
  envelope(run: string, options: Cancellable = {}): Promise<Envelope> {
    return this.http.request({
      method: 'GET',
      path: apiPath`/v1/runs/${run}/envelope`,
      answer: Envelope,
      ...options,
    });
  }

  /** `E_NOT_FOUND` until the node's receipt is there. */
  receipt(run: string, options: Cancellable = {}): Promise<Envelope> {
    return this.http.request({
      method: 'GET',
      path: apiPath`/v1/runs/${run}/receipt`,
      answer: Envelope,
      ...options,
    });
  }
}

/** SSE: `id` journal seq, `event` journal type, `data` the `JournalEvent`; ends after `finished`. */
export function runEventsPath(run: string): string {
  return apiPath`/v1/runs/${run}/events`;
}
