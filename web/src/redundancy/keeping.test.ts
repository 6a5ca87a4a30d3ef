import { expect, it } from 'vitest';
import type { HeldBytes, Keepings, Migration, StorageOverhead, Stored, VideoKeeping } from '../api/types';
import {
  choiceOf,
  chunksInForms,
  forms,
  inShownOrder,
  lostNodes,
  nodesFor,
  onDisks,
  onNodes,
  pace,
  perByte,
  reason,
  rules,
  savedPercent,
  shareDone,
  span,
  survives,
  takenByForm,
  whySaved,
} from './keeping';

const video = (over: Partial<VideoKeeping> = {}): VideoKeeping => ({
  video_id: 'v',
  title: 't',
  view_count: 0,
  mode: 'erasure_coding',
  override_mode: null,
  why: 'cold',
  since: '2026-01-02T03:04:05Z',
  replicated_chunks: 4,
  coded_chunks: 6,
  waiting_chunks: 3,
  waiting_bytes: 3,
  logical_bytes: 10,
  placed_bytes: 24,
  replicated_logical_bytes: 4,
  replicated_placed_bytes: 12,
  coded_logical_bytes: 6,
  coded_placed_bytes: 12,
  failures_survived: 2,
  ...over,
});

const held = (over: Partial<HeldBytes> = {}): HeldBytes => ({
  item_bytes: 2_600,
  allocated_bytes: 9_000,
  nodes: 5,
  nodes_told: 5,
  as_of: '2026-01-02T03:04:05.000Z',
  ...over,
});

const migration = (over: Partial<Migration> = {}): Migration => ({
  paused: false,
  rate_bytes_per_second: 1,
  waiting_chunks: 3,
  waiting_bytes: 3,
  unready_chunks: 0,
  refused: null,
  encoded_chunks: 0,
  decoded_chunks: 0,
  ...over,
});

it('says of a video why it is kept so, in which forms, and what it survives', () => {
  const reasons = ['asked', 'new', 'hot', 'cold', 'dwells'].map(reason);
  expect(reasons).toEqual(['asked for', 'new', 'hot', 'cold', 'moved lately']);
  expect(choiceOf(video())).toBe('policy');
  expect(choiceOf(video({ override_mode: 'replication' }))).toBe('replication');
  const counts: [number, number, string][] = [
    [4, 6, '4 as copies, 6 as shards'],
    [1_200, 0, '1,200 as copies'],
    [0, 6, '6 as shards'],
    [0, 0, 'not counted yet'],
  ];
  for (const [replicated_chunks, coded_chunks, text] of counts) {
    expect(chunksInForms(video({ replicated_chunks, coded_chunks }))).toBe(text);
  }
  expect([0, 1, 2].map(lostNodes)).toEqual(['no lost node', '1 lost node', '2 lost nodes']);
  expect(survives(video())).toBe('2 lost nodes');
  expect(survives(video({ failures_survived: null }))).toBe('cannot be read now');
  expect(survives(video({ failures_survived: null, replicated_chunks: 0, coded_chunks: 0 }))).toBe('not counted yet');
});

it('says how far a video is', () => {
  expect(shareDone(video())).toBeCloseTo(0.7);
  expect(shareDone(video({ waiting_chunks: 0 }))).toBe(1);
  expect(shareDone(video({ replicated_chunks: 0, coded_chunks: 0 }))).toBe(0);
  expect(shareDone(video({ waiting_chunks: 11 }))).toBe(0);
});

it('writes the rules and their times', () => {
  expect([0, 90, 120, 7_200, 86_400, 172_800].map(span)).toEqual(['0 s', '90 s', '2 min', '2 h', 'a day', '2 days']);
  const keepings: Keepings = {
    policy: 'threshold',
    cold_after_seconds: 86_400,
    dwell_seconds: 3_600,
    videos: [],
    total: 0,
    migration: migration(),
  };
  expect(rules(keepings)).toContain('was watched much is kept as copies');
  expect(rules(keepings)).toContain('for a day, and one that was moved stays as it is for 1 h.');
  expect(rules({ ...keepings, policy: 'adaptive' })).toContain('in the next week');
});

it('says whether chunks are being brought into another form', () => {
  expect(pace(migration()).text).toBe('At work');
  expect(pace(migration({ waiting_chunks: 0, refused: 'too few nodes' })).text).toBe('Nothing to do');
  expect(pace(migration({ refused: 'too few nodes' })).text).toBe('Held up');
  expect(pace(migration({ paused: true, refused: 'too few nodes' })).text).toBe('Paused');
});

it('tells the bytes of copies from those of shards', () => {
  const overhead: StorageOverhead = {
    replication_chunks: 7,
    erasure_coded_chunks: 3,
    total_logical_bytes: 1_000,
    total_physical_bytes: 2_600,
    total_disk_bytes: 9_000,
    total_placed_bytes: 2_600,
    held: held(),
    replication_logical_bytes: 700,
    // Two more are on their way from copies to shards: these hide nothing that was not counted.
    replication_counted_chunks: 7,
    replication_uncounted_chunks: 2,
    replication_physical_bytes: 2_100,
    erasure_logical_bytes: 300,
    // One more is on its way from shards to copies.
    erasure_counted_chunks: 4,
    erasure_uncounted_chunks: 0,
    erasure_physical_bytes: 500,
    storage_savings_percent: 13.3,
    disk_savings_percent: -200,
    replication_overhead_bytes: 1_400,
    erasure_overhead_bytes: 200,
  };
  expect(forms(overhead)).toEqual({
    copies: { chunks: 7, uncounted: 2, logical: 700, physical: 2_100 },
    shards: { chunks: 3, uncounted: 0, logical: 300, physical: 500 },
  });
  expect(takenByForm(video())).toEqual(['copies 12 B for 4 B', 'shards 12 B for 6 B']);
  expect(takenByForm(video({ coded_logical_bytes: 0, coded_placed_bytes: 0 }))).toEqual([]);
  expect(takenByForm(video({ replicated_logical_bytes: 0, replicated_placed_bytes: 0 }))).toEqual([]);
});

it('leaves rows where they are', () => {
  const ids = (videos: VideoKeeping[]) => videos.map((one) => one.video_id).join('');
  const told = ['c', 'x', 'a', 'b', 'y'].map((video_id) => video({ video_id }));
  expect(ids(inShownOrder(told, []))).toBe('cxaby');
  expect(ids(inShownOrder(told, ['a', 'b', 'gone', 'c']))).toBe('abcxy');
});

it('says what the nodes hold as they told it, and what is placed where that is something else', () => {
  const now = Date.parse('2026-01-02T03:04:15Z');
  const stored = (physical: number | null, placed: number, over: Partial<HeldBytes> = {}): Stored => ({
    storage_savings_percent: physical === null ? null : 0,
    disk_savings_percent: physical === null ? null : -20,
    total_logical_bytes: 1_000_000,
    total_physical_bytes: physical,
    total_disk_bytes: physical === null ? null : 3_600_000,
    total_placed_bytes: placed,
    held: held(over),
  });
  const told = 'all copies and shards, as 5 nodes told';
  expect(onNodes(stored(3_000_000, 3_000_000), now)).toEqual({ label: 'Held by the nodes', value: '3.0 MB', note: told });
  expect(onNodes(stored(3_500_000, 3_000_000), now)).toEqual({
    label: 'Held by the nodes',
    value: '3.5 MB',
    note: `${told}; 3.0 MB are placed, the rest is on its way or left behind`,
  });
  expect(onNodes(stored(0, 3_000_000), now).note).toBe(
    `${told}; 3.0 MB are placed, not all of it is there or was told of yet`,
  );
  const silent = stored(3_000_000, 3_000_000, { as_of: '2026-01-02T02:04:15Z' });
  expect(onNodes(silent, now).note).toBe(`${told}; one last told 1 h ago`);
  const unknown = stored(null, 3_000_000, { nodes_told: 4 });
  expect(onNodes(unknown, now)).toEqual({
    label: 'Placed on the nodes',
    value: '3.0 MB',
    note: 'what is held is not known: 4 of 5 nodes told',
  });
  expect(onNodes(stored(null, 0, { nodes: 0, nodes_told: 0, as_of: null }), now).label).toBe('Placed on the nodes');

  const besides = 'with records, waste and room that is taken ahead';
  const onDisk = { label: 'Taken of their disks', value: '3.6 MB' };
  expect(onDisks(stored(3_000_000, 3_000_000))).toEqual({
    ...onDisk,
    note: `${besides}; 20.0 % more than the bytes of copies alone`,
  });
  const less = { ...stored(3_000_000, 3_000_000), disk_savings_percent: 40 };
  expect(onDisks(less).note).toBe(`${besides}; 40.0 % less than the bytes of copies alone`);
  expect(onDisks({ ...less, total_logical_bytes: 0 })).toEqual({ ...onDisk, note: besides });
  expect(onDisks(unknown)).toEqual({ ...onDisk, value: '–', note: 'not known: 4 of 5 nodes told' });

  expect(perByte(stored(3_500_000, 3_000_000))).toBe(3.5);
  expect(savedPercent(stored(1_500_000, 1_500_000), 3)).toBeCloseTo(50);
  expect(savedPercent(stored(0, 3_000_000), 3)).toBeCloseTo(0);
  expect(savedPercent(stored(null, 1_500_000), 3)).toBeCloseTo(50);
  const empty = { ...stored(0, 0), total_logical_bytes: 0 };
  expect([perByte(empty), savedPercent(empty, 3)]).toEqual([null, 0]);
  expect([44.4, -35.4].map(whySaved)).toEqual(['by keeping cold videos as shards', 'until what was moved is collected']);
});

it('says how many nodes a form takes', () => {
  const mode = (fewest: number, most: number) => ({
    overhead_factor: 1,
    storage_efficiency: 100,
    storage_per_chunk_mb: 2,
    nodes_required: fewest,
    failures_tolerated_by_required: 1,
    nodes_for_most_failures: most,
    most_failures_tolerated: 2,
    failures_tolerated: 1,
  });
  expect([mode(3, 3), mode(3, 5)].map(nodesFor)).toEqual(['3', '3 to 5']);
});
