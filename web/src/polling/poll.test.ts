import { expect, it } from 'vitest';
import { poll, type Visibility } from './poll';

function setUp() {
  let hidden = false;
  let changed = () => {};
  const timers: { ms: number; run: () => void; live: boolean }[] = [];
  const visibility: Visibility = {
    hidden: () => hidden,
    onChange(run) {
      changed = run;
      return () => (changed = () => {});
    },
    after(ms, run) {
      const timer = { ms, run, live: true };
      timers.push(timer);
      return () => (timer.live = false);
    },
  };
  const settle = () => new Promise((done) => setImmediate(done));
  const fire = async () => {
    for (const timer of timers.splice(0)) if (timer.live) timer.run();
    await settle();
  };
  const show = async (value: boolean) => {
    hidden = !value;
    changed();
    await settle();
  };
  return { visibility, fire, show, settle, timers };
}

it('runs at once and again after each end, never twice at a time', async () => {
  const { visibility, fire, settle, show } = setUp();
  let runs = 0;
  const gate: { open: () => void } = { open: () => {} };
  const stop = poll(
    () => {
      runs += 1;
      return new Promise((done) => (gate.open = done));
    },
    3000,
    visibility,
  );
  await show(true);
  expect(runs).toBe(1);
  gate.open();
  await settle();
  await fire();
  expect(runs).toBe(2);
  stop();
  gate.open();
  await settle();
  await fire();
  expect(runs).toBe(2);
});

it('rests while hidden and runs at once when shown', async () => {
  const { visibility, fire, settle, show } = setUp();
  let runs = 0;
  poll(
    async () => {
      runs += 1;
    },
    3000,
    visibility,
  );
  await settle();
  await show(false);
  await fire();
  expect(runs).toBe(1);
  await show(true);
  expect(runs).toBe(2);
});
