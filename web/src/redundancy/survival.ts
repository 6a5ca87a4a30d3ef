/** How many nodes a video may lose, in words for people. Pure. */
import type { VideoSurvival } from '../api/types';
import { lostNodes } from './keeping';

type Survival = Pick<VideoSurvival, 'failures_survived' | 'survival_counted'>;

/** `survives 2 lost nodes`: by what was counted, or before that by where it is placed. */
export function survivalOf(survival: Survival): string {
  const { failures_survived: nodes, survival_counted: counted } = survival;
  if (nodes === null || nodes === undefined) return counted ? 'cannot be read now' : 'not counted yet';
  return `survives ${lostNodes(nodes)}${counted ? '' : ', not counted yet'}`;
}

/** What was counted changes as seldom as nodes come and go: it is asked for again after so long. */
const COUNTED_MS = 60_000;

/** Whether to ask again, so long after it was asked last: until it is counted, each time. */
export const isDue = (survival: Survival | null, sinceMs: number): boolean =>
  survival === null || !survival.survival_counted || sinceMs >= COUNTED_MS;

/** It was counted, and cannot be read. */
export const isUnreadable = (survival: Survival): boolean =>
  survival.survival_counted && survival.failures_survived === null;

/** Of an upload that ended: where copies are still to be made, what is placed says nothing before it is counted. */
export function survivalOfUpload(survival: Survival | null, lacking: number): string | null {
  if (survival === null || (lacking > 0 && !survival.survival_counted)) return null;
  return survivalOf(survival);
}
