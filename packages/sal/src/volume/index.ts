export * from './volume-driver.ts';
export * from './volume-sal.ts';
