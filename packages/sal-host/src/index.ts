export {
  detectMachine,
  type MachineReport,
  type SalDetection,
  type ToolReport,
} from './machine.ts';
export { type OpenSals, type OpenSalsOptions, openSals } from './open-sals.ts';
export { groupOf, SalConfig } from './sal-config.ts';
