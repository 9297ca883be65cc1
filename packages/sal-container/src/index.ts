export { CONTAINER_LIMITS } from './container-limits.ts';
export {
  type ContainerSal,
  type ContainerSalOptions,
  createContainerSal,
} from './container-sal.ts';
export {
  type ContainerDetection,
  type ContainerMachine,
  detectContainers,
} from './runtime-detection.ts';
