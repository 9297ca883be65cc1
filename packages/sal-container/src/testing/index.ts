export { type BusyboxImage, buildBusyboxImage, findImageLack } from './busybox-image.ts';
