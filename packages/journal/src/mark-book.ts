import { PreparedQuery, type Store, type Write } from '@hypha/store';
import type { JournalTables } from './journal-schema.ts';
import type { DeploymentName } from './record-book.ts';

interface Revision extends DeploymentName {
  readonly generation: number;
}

/** The highest generation ever admitted of each deployment; outlives a destroy (design §8). */
export class MarkBook {
  readonly #raise: PreparedQuery<Revision & { readonly digest: string }>;
  // deployment → generation
  readonly #marks = new Map<string, number>();

  private constructor(store: Store<JournalTables>) {
    this.#raise = new PreparedQuery((value) => {
      const raised = { generation: value('generation'), digest: value('digest') };
      return store.db
        .insertInto('mark')
        .values({ realm: value('realm'), deployment: value('deployment'), ...raised })
        .onConflict((row) =>
          row
            .columns(['realm', 'deployment'])
            .doUpdateSet(raised)
            .where('mark.generation', '<', value('generation')),
        );
    });
  }

  static async open(store: Store<JournalTables>): Promise<MarkBook> {
    const book = new MarkBook(store);
    for (const mark of await store.db.selectFrom('mark').selectAll().execute()) book.raise(mark);
    return book;
  }

  find(of: DeploymentName): number | undefined {
    return this.#marks.get(keyOf(of));
  }

  /** Fails its whole list when another admission has raised the mark as far meanwhile. */
  planRaise({ realm, deployment, generation }: Revision, digest: string): Write {
    const query = this.#raise.with({ realm, deployment, generation, digest });
    return { query, expectRows: 1 };
  }

  /** Once that is durable. Never goes back. */
  raise(mark: Revision): void {
    const { generation } = mark;
    this.#marks.set(keyOf(mark), Math.max(generation, this.find(mark) ?? 0));
  }
}

function keyOf({ realm, deployment }: DeploymentName): string {
  return `${realm}/${deployment}`;
}
