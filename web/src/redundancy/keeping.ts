/** How videos are kept, in words and sums for people. Pure. */
import type { Keepings, Migration, ModeFigures, RedundancyMode, StorageOverhead, Stored, VideoKeeping } from '../api/types';
import { ago, bytes, count } from '../format/format';

/** Who decides how a video is kept: somebody, by a mode, or the policy. */
export type Choice = RedundancyMode | 'policy';

export const choiceOf = (video: VideoKeeping): Choice => video.override_mode ?? 'policy';

/** A form, by what there are of a chunk. */
export const formOf = (mode: RedundancyMode): string => (mode === 'replication' ? 'copies' : 'shards');

const REASONS: Record<string, string> = { asked: 'asked for', dwells: 'moved lately' };

/** Why a video is kept so; new, hot and cold say it themselves. */
export const reason = (why: string): string => REASONS[why] ?? why;

export const chunksOf = (video: VideoKeeping): number => video.replicated_chunks + video.coded_chunks;

export function survives(video: VideoKeeping): string {
  if (video.failures_survived !== null) return lostNodes(video.failures_survived);
  return chunksOf(video) === 0 ? 'not counted yet' : 'cannot be read now';
}

export const lostNodes = (nodes: number): string => (nodes === 0 ? 'no lost node' : count(nodes, 'lost node'));

/** `4 as copies, 6 as shards`, without the form that no chunk has. */
export function chunksInForms(video: VideoKeeping): string {
  const both = [
    [video.replicated_chunks, 'as copies'],
    [video.coded_chunks, 'as shards'],
  ] as const;
  const there = both.filter(([chunks]) => chunks > 0);
  return there.map(([chunks, how]) => `${chunks.toLocaleString('en-GB')} ${how}`).join(', ') || 'not counted yet';
}

/** Which part of its chunks has the form that is decided, from 0 to 1. */
export function shareDone(video: VideoKeeping): number {
  const chunks = chunksOf(video);
  return chunks === 0 ? 0 : Math.max(0, 1 - video.waiting_chunks / chunks);
}

/** `a day`, `2 days`, `12 h`, `5 min`, `90 s`. */
export function span(seconds: number): string {
  if (seconds === 86_400) return 'a day';
  const units = [
    [86_400, 'days'],
    [3_600, 'h'],
    [60, 'min'],
  ] as const;
  const unit = units.find(([size]) => seconds > 0 && seconds % size === 0);
  return unit ? `${seconds / unit[0]} ${unit[1]}` : `${seconds} s`;
}

/** The rules by which it is decided. */
export function rules(keepings: Keepings): string {
  const views = keepings.policy === 'adaptive' ? 'is expected to be watched much in the next week' : 'was watched much';
  return (
    `What ${views} is kept as copies, everything else as shards. A new video is kept as copies for ` +
    `${span(keepings.cold_after_seconds)}, and one that was moved stays as it is for ${span(keepings.dwell_seconds)}.`
  );
}

/** What is going on, in a word. */
export function pace(migration: Migration): { text: string; tone: 'good' | 'info' | 'warn' } {
  if (migration.paused) return { text: 'Paused', tone: 'warn' };
  if (migration.waiting_chunks === 0) return { text: 'Nothing to do', tone: 'good' };
  return migration.refused === null ? { text: 'At work', tone: 'info' } : { text: 'Held up', tone: 'warn' };
}

/** A node that has not told what it holds for so long is silent. */
const SILENT_MS = 60_000;

/** A figure with what it is. */
export interface Told {
  label: string;
  value: string;
  note: string;
}

/** What is on the nodes: measured, where all of them tell it, and what decisions place where that is something else. */
export function onNodes(stored: Stored, now: number): Told {
  const { held, total_physical_bytes: physical, total_placed_bytes: placed } = stored;
  if (physical === null) {
    const note = `what is held is not known: ${held.nodes_told} of ${count(held.nodes, 'node')} told`;
    return { label: 'Placed on the nodes', value: bytes(placed), note };
  }
  const notes = [`all copies and shards, as ${count(held.nodes, 'node')} told`];
  if (held.as_of !== null && now - Date.parse(held.as_of) > SILENT_MS) notes.push(`one last told ${ago(held.as_of, now)}`);
  if (physical > placed) notes.push(`${bytes(placed)} are placed, the rest is on its way or left behind`);
  if (physical < placed) notes.push(`${bytes(placed)} are placed, not all of it is there or was told of yet`);
  return { label: 'Held by the nodes', value: bytes(physical), note: notes.join('; ') };
}

/** What the nodes take of their disks for that, and what is saved of those. */
export function onDisks(stored: Stored): Told {
  const { held, total_disk_bytes: disk, disk_savings_percent: saved } = stored;
  const label = 'Taken of their disks';
  if (disk === null || saved === null) {
    return { label, value: '–', note: `not known: ${held.nodes_told} of ${count(held.nodes, 'node')} told` };
  }
  const than = `${Math.abs(saved).toFixed(1)} % ${saved < 0 ? 'more' : 'less'} than the bytes of copies alone`;
  const besides = 'with records, waste and room that is taken ahead';
  return { label, value: bytes(disk), note: stored.total_logical_bytes === 0 ? besides : `${besides}; ${than}` };
}

/** What is stored for good: what is missing, or was not told of yet, saves nothing. */
const lasting = (stored: Stored) => Math.max(stored.total_physical_bytes ?? 0, stored.total_placed_bytes);

/** Bytes stored for one; null while nothing is. */
export const perByte = (stored: Stored): number | null =>
  stored.total_logical_bytes === 0 ? null : lasting(stored) / stored.total_logical_bytes;

/** Saved against so many copies of everything, in percent. */
export function savedPercent(stored: Stored, copies: number): number {
  const times = perByte(stored);
  return times === null ? 0 : 100 * (1 - times / copies);
}

/** Why so much is saved. What was moved is kept where it was for a while, so that less than nothing may be. */
export const whySaved = (percent: number): string =>
  percent < 0 ? 'until what was moved is collected' : 'by keeping cold videos as shards';

/** What is kept in one form. */
export interface Form {
  chunks: number;
  /** Of them, those of which it is not known yet what the nodes hold. */
  uncounted: number;
  /** Bytes of one copy, and what was counted on all nodes together. */
  logical: number;
  physical: number;
}

/** What is kept as copies and what as shards, of all videos. */
export const forms = (overhead: StorageOverhead): { copies: Form; shards: Form } => ({
  copies: {
    chunks: overhead.replication_chunks,
    uncounted: overhead.replication_uncounted_chunks,
    logical: overhead.replication_logical_bytes,
    physical: overhead.replication_physical_bytes,
  },
  shards: {
    chunks: overhead.erasure_coded_chunks,
    uncounted: overhead.erasure_uncounted_chunks,
    logical: overhead.erasure_logical_bytes,
    physical: overhead.erasure_physical_bytes,
  },
});

/** `3`, or `3 to 5`: how many nodes it takes, and with how many as many may be lost as can be. */
export const nodesFor = (mode: ModeFigures): string =>
  mode.nodes_for_most_failures > mode.nodes_required
    ? `${mode.nodes_required} to ${mode.nodes_for_most_failures}`
    : `${mode.nodes_required}`;

/** What each form takes of a video that has both; of any other, its sums say it. */
export function takenByForm(video: VideoKeeping): string[] {
  if (video.replicated_logical_bytes === 0 || video.coded_logical_bytes === 0) return [];
  return [
    `copies ${bytes(video.replicated_placed_bytes)} for ${bytes(video.replicated_logical_bytes)}`,
    `shards ${bytes(video.coded_placed_bytes)} for ${bytes(video.coded_logical_bytes)}`,
  ];
}

/**
 * Videos in the order in which they are shown already, new ones behind: a row stays where it is while somebody uses it,
 * whatever is to be done for the others.
 */
export function inShownOrder(videos: VideoKeeping[], shown: readonly string[]): VideoKeeping[] {
  const place = new Map(shown.map((id, at) => [id, at] as const));
  const at = (video: VideoKeeping) => place.get(video.video_id) ?? shown.length;
  return [...videos].sort((a, b) => at(a) - at(b));
}
