/** Paging of every list (design §9): `?limit&cursor` → `{items, nextCursor}`. */
export interface PageQuery {
  readonly limit?: number | undefined;
  /** `nextCursor` of the page before. */
  readonly cursor?: string | undefined;
}
