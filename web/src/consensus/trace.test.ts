import { expect, it } from 'vitest';
import type { ConsensusEvent } from '../api/types';
import { exchangeOf, keyOf, KINDS, Known, laneOfSender, lanesOf, matches, merge, shortBallot, shortChunk, stepsOf, videoOf, type Kind } from './trace';

const VIDEO = '0190aaaa-bbbb-7ccc-8ddd-eeeeeeeeeeee';
const OWNER = '11111111-1111-4111-8111-111111111111';

function exchange(node: number, ms: number, more: Partial<ConsensusEvent> = {}) {
  const event: ConsensusEvent = {
    event: `18c-${ms}${more.request}${more.chunk_id}`,
    at: new Date(1_700_000_000_000 + ms).toISOString(),
    node: `0000000${node}-0000-4000-8000-000000000000/1`,
    node_id: `node-${node}`,
    chunk_id: `${VIDEO}-chunk-000`,
    request: 'put0',
    ballot: `0@${OWNER}`,
    version: 1,
    layout: 'replicated 3',
    bytes: 100,
    reply: 'accepted',
    promised: null,
    accepted: null,
    accepted_version: 1,
    decided: false,
    durable: true,
    log_seq: 7,
    took_us: 2_000,
    ...more,
  };
  return exchangeOf(event);
}

it('a fast-path commit is one step of six messages with a majority', () => {
  const steps = stepsOf([exchange(1, 0), exchange(2, 1), exchange(3, 3)]);
  expect(steps).toHaveLength(1);
  expect(steps[0]).toMatchObject({ kind: 'put0', messages: 6, synced: 3, majority: true, tookMs: 5 });
});

it('a majority is of the layout and of yeses, each acceptor once', () => {
  const of = (...all: Partial<ConsensusEvent>[]) =>
    stepsOf(all.map((more, at) => exchange(1 + at, at, more)))[0]!.majority;
  expect(of({})).toBe(false);
  expect(of({}, { reply: 'nack' })).toBe(false);
  expect(of({}, { node: '00000001-0000-4000-8000-000000000000/1' })).toBe(false);
  expect(of({}, {})).toBe(true);
  expect(of({ layout: 'replicated 3, was replicated 3' })).toBe(null);
});

it('phases, ballots and chunks are steps of their own', () => {
  const steps = stepsOf([
    exchange(1, 0, { request: 'prepare', ballot: `1@${OWNER}`, reply: 'promise', layout: null }),
    exchange(1, 5, { request: 'accept', ballot: `1@${OWNER}` }),
    exchange(2, 6, { request: 'accept', ballot: `1@${OWNER}` }),
    exchange(1, 9, { request: 'accept', ballot: `2@${OWNER}` }),
    exchange(1, 9, { chunk_id: `${VIDEO}-chunk-001` }),
  ]);
  expect(steps.map((step) => [step.kind, step.exchanges.length])).toEqual([['prepare', 1], ['accept', 2], ['accept', 1], ['put0', 1]]);
});

it('what comes late or twice finds its place once, and the oldest go', () => {
  const [a, b, c] = [exchange(1, 0), exchange(2, 5), exchange(3, 9)];
  const merged = merge(merge([], [b, c]), [a, b]);
  expect(merged).toEqual([a, b, c]);
  expect(merge(merged, [exchange(1, 20)], 3).map((e) => e.atMs - a.atMs)).toEqual([5, 9, 20]);
});

it('an event is known by its disk and its name there', () => {
  const [a, again] = [exchange(1, 0), exchange(1, 0)];
  expect(keyOf(again)).toBe(a.key);
  expect(exchange(1, 0, { node: '00000001-0000-4000-8000-000000000000/2' }).key).toBe(a.key);
  expect(exchange(2, 0).key).not.toBe(a.key);
  expect(exchange(1, 0, { event: '18d-0' }).key).not.toBe(a.key);
});

it('what came before is known, and the oldest is forgotten at last', () => {
  const known = new Known();
  expect([known.add('a'), known.add('a'), known.add('b')]).toEqual([true, false, true]);
  for (let n = 0; n < 16_000; n += 1) known.add(`${n}`);
  expect([known.add('15999'), known.add('a')]).toEqual([false, true]);
});

it('filters by kind and by words', () => {
  const kinds = (...some: Kind[]) => new Set(some);
  const all = { kinds: kinds(...KINDS), text: '' };
  expect(matches(exchange(1, 0), all)).toBe(true);
  expect(matches(exchange(1, 0), { ...all, kinds: kinds('accept') })).toBe(false);
  expect(matches(exchange(1, 0), { ...all, text: 'NODE-1 chunk-000' })).toBe(true);
  expect(matches(exchange(2, 0), { ...all, text: 'node-1' })).toBe(false);
  expect(matches(exchange(2, 0, { reply: 'need_bytes' }), { ...all, text: 'needs' })).toBe(true);
});

it('lanes are proposers, owners first, then nodes by name; too many proposers share one', () => {
  const by = (id: string, round: number, ms: number) => exchange(1, ms, { ballot: `${round}@${id}${OWNER.slice(4)}`, request: 'accept' });
  const steps = stepsOf([exchange(10, 0), exchange(2, 0), by('aaaa', 1, 1), by('bbbb', 1, 2), by('cccc', 1, 3)]);
  const lanes = lanesOf(steps, 3);
  expect(lanes.map((lane) => lane.label)).toEqual(['Owner 1111', 'Proposer cccc', '2 others', 'node-1', 'node-2', 'node-10']);
  expect(laneOfSender(lanes, OWNER)).toBe(0);
  expect(laneOfSender(lanes, `aaaa${OWNER.slice(4)}`)).toBe(2);
});

it('what all node names begin with is left out, down to two words', () => {
  const labels = (...names: string[]) =>
    lanesOf(stepsOf(names.map((node_id, at) => exchange(at, at, { node_id }))), 3).slice(1).map((lane) => lane.label);
  expect(labels('storage-node-1', 'storage-node-2')).toEqual(['node-1', 'node-2']);
  expect(labels('node-1', 'node-2')).toEqual(['node-1', 'node-2']);
  expect(labels('a-node-1', 'b-node-1')).toEqual(['a-node-1', 'b-node-1']);
  expect(labels('storage-node-1')).toEqual(['storage-node-1']);
});

it('ids are shortened', () => {
  expect(shortChunk(`${VIDEO}-chunk-007`)).toBe('chunk-007');
  expect(shortChunk('plain')).toBe('plain');
  expect(videoOf(`${VIDEO}-init`)).toBe(VIDEO);
  expect(videoOf('plain')).toBe(null);
  expect(shortBallot(`3@${OWNER}`)).toBe('3@1111');
});
