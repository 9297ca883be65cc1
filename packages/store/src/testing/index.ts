/** For tests and simulations; nothing that runs for an operator imports it. */
export { MemoryDatabase } from './memory-database.ts';
