import { expect, it } from 'vitest';
import type { UploadStatus } from '../api/types';
import { describeStage, SendRate, titleOf } from './stages';

const status = (over: Partial<UploadStatus>): UploadStatus => ({
  video_id: 'v',
  upload_session_id: 's',
  title: 't',
  filename: 'f.mp4',
  status: 'processing',
  progress: 0,
  started_at: '2026-01-01T00:00:00Z',
  total_chunks: 0,
  error: null,
  warnings: [],
  under_replicated: 0,
  ...over,
});

it('says in words where an upload stands', () => {
  expect(describeStage(status({ status: 'queued', queue_position: 3 }))).toBe('Waiting in the queue, place 3');
  expect(describeStage(status({ status: 'uploading_chunks', total_chunks: 12 }))).toBe(
    'Storing chunks on the nodes (12 so far)',
  );
  expect(describeStage(status({}))).toBe('Looking at the file');
});

it('makes a title of a file name', () => {
  const table: [string, string][] = [
    ['big_buck_bunny.mp4', 'big buck bunny'],
    ['Talk v1.2 final.MKV', 'Talk v1.2 final'],
    ['no extension', 'no extension'],
    ['.mp4', '.mp4'],
    ['', 'Untitled'],
    [`${'x'.repeat(600)}.mp4`, 'x'.repeat(500)],
  ];
  for (const [name, title] of table) expect(titleOf(name)).toBe(title);
});

it('measures the rate over the last seconds only', () => {
  const rate = new SendRate();
  rate.add(0, 0);
  expect(rate.bytesPerSecond).toBeNull();
  rate.add(1000, 1_000_000);
  expect(rate.bytesPerSecond).toBe(1_000_000);
  for (let second = 2; second <= 20; second++) rate.add(second * 1000, 1_000_000);
  expect(rate.bytesPerSecond).toBe(0);
});
