import { expect, it } from 'vitest';
import type { ConsensusGap } from '../api/types';
import { after, listed, NO_GAPS } from './gaps';

const of = (node: number) => ({ node: `0000000${node}-0000-4000-8000-000000000000/1`, node_id: `node-${node}` });

it('a gap stands from its beginning to its end, with its last reason', () => {
  const news: ConsensusGap[] = [
    { ...of(10), state: 'began', reason: 'it answers 503' },
    { ...of(2), state: 'began', reason: 'it is away' },
    { ...of(10), state: 'began', reason: 'it has fallen silent' },
    { ...of(3), state: 'missed', missed: 7 },
    { ...of(4), state: 'ended' },
  ];
  const stands = news.reduce(after, NO_GAPS);
  expect(listed(stands)).toEqual([
    { label: 'node-2', reason: 'it is away' },
    { label: 'node-10', reason: 'it has fallen silent' },
  ]);
  expect(listed(after(stands, { ...of(2), state: 'ended' })).map((gap) => gap.label)).toEqual(['node-10']);
});
