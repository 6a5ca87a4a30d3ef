/** Messages of acceptors, put in order and grouped to the steps of the protocol. Pure. */
import type { ConsensusEvent } from '../api/types';

/** Events kept by the page; older ones are dropped. */
export const EVENTS_MAX = 3_000;
/** Events known by name: as many as can come again, and some. */
const KNOWN_MAX = 16_000;

/** Which events came before, shown or not. */
export class Known {
  readonly #keys = new Set<string>();

  /** Whether this one is new. */
  add(key: string): boolean {
    if (this.#keys.has(key)) return false;
    this.#keys.add(key);
    if (this.#keys.size > KNOWN_MAX) this.#keys.delete(this.#keys.values().next().value!);
    return true;
  }
}

export const KINDS = ['put0', 'prepare', 'accept', 'decided', 'read'] as const;
export type Kind = (typeof KINDS)[number];

/** What the protocol calls them, for people. */
export const KIND_NAMES: Record<Kind, string> = {
  put0: 'PUT + vote',
  prepare: 'Prepare',
  accept: 'Accept',
  decided: 'Decided',
  read: 'Read',
};

export type ReplyTone = 'good' | 'plain' | 'warn' | 'bad';

const REPLIES: Record<string, { text: string; tone: ReplyTone }> = {
  accepted: { text: 'accepted', tone: 'good' },
  promise: { text: 'promise', tone: 'good' },
  noted: { text: 'noted', tone: 'plain' },
  state: { text: 'state', tone: 'plain' },
  nack: { text: 'nack', tone: 'warn' },
  need_bytes: { text: 'needs bytes', tone: 'warn' },
  damaged: { text: 'abstains', tone: 'bad' },
  wrong_node: { text: 'wrong node', tone: 'bad' },
};

export const replyOf = (reply: string) => REPLIES[reply] ?? { text: reply, tone: 'plain' as const };

/** An event as the page has it. */
export interface Exchange extends ConsensusEvent {
  /** Names it among all the page has. */
  key: string;
  atMs: number;
}

/** One message of a proposer about one chunk in one ballot, to several acceptors. */
export interface Step {
  key: string;
  chunk: string;
  kind: Kind;
  ballot: string | null;
  layout: string | null;
  version: number | null;
  exchanges: Exchange[];
  /** From the first message's arrival to the last reply, in ms; of one clock only. */
  tookMs: number;
  messages: number;
  synced: number;
  /** A majority of the layout's acceptors said yes to a vote; null where nothing is voted on, or it is joint. */
  majority: boolean | null;
}

export interface Lane {
  id: string;
  label: string;
  side: 'proposer' | 'node';
}

/** The round of `<round>@<proposer>`. */
export const roundOf = (ballot: string | null) => (ballot ? Number(ballot.split('@')[0]) : null);
export const proposerOf = (ballot: string | null) => ballot?.split('@')[1] ?? null;
/** A ballot short enough for an arrow. */
export const shortBallot = (ballot: string | null) =>
  ballot ? `${ballot.split('@')[0]}@${(ballot.split('@')[1] ?? '').slice(0, 4)}` : '–';

/** Ids are long; what follows the video's id is what tells chunks of one video apart. */
export const shortChunk = (id: string) => id.replace(/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}-/, '');
export const videoOf = (id: string) => /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}(?=-)/.exec(id)?.[0] ?? null;

export interface Filter {
  kinds: ReadonlySet<Kind>;
  /** Words that all have to occur in the chunk, node, ballot or reply. */
  text: string;
}

export function matches(exchange: Exchange, filter: Filter): boolean {
  if (!filter.kinds.has(exchange.request)) return false;
  const words = filter.text.toLowerCase().split(/\s+/).filter(Boolean);
  if (words.length === 0) return true;
  const fields = [exchange.chunk_id, exchange.node_id, exchange.node, exchange.ballot, exchange.request];
  const all = [...fields, exchange.reply, replyOf(exchange.reply).text, exchange.layout].join(' ').toLowerCase();
  return words.every((word) => all.includes(word));
}

/** Adds `news` to what there is, without those already there, in order of time, and drops the oldest. */
export function merge(known: readonly Exchange[], news: readonly Exchange[], max = EVENTS_MAX): Exchange[] {
  const keys = new Set(known.map((exchange) => exchange.key));
  const added = news.filter((exchange) => !keys.has(exchange.key) && keys.add(exchange.key));
  const all = [...known, ...added];
  all.sort((a, b) => a.atMs - b.atMs || a.node_id.localeCompare(b.node_id, 'en', { numeric: true }));
  return all.slice(-max);
}

/** An event may come more than once: after a service in between was started anew, under another id of the stream. */
export const keyOf = (event: ConsensusEvent) => `${event.node.split('/')[0]} ${event.event}`;

export const exchangeOf = (event: ConsensusEvent): Exchange => ({
  ...event,
  key: keyOf(event),
  atMs: Date.parse(event.at),
});

const count = (layout: string | null) => {
  const found = layout && /^(?:replicated|deleted) (\d+)$/.exec(layout);
  return found ? Number(found[1]) : null;
};

function finish(step: Step): Step {
  const ends = step.exchanges.map((exchange) => exchange.atMs + exchange.took_us / 1000);
  step.tookMs = Math.max(...ends) - Math.min(...step.exchanges.map((exchange) => exchange.atMs));
  // News go out in batches that are answered as a whole: a message each, and no reply of their own.
  step.messages = step.exchanges.length * (step.kind === 'decided' ? 1 : 2);
  step.synced = step.exchanges.filter((exchange) => exchange.durable).length;
  const voters = count(step.layout);
  if (voters !== null && (step.kind === 'put0' || step.kind === 'accept')) {
    const yes = new Set(step.exchanges.filter((e) => e.reply === 'accepted').map((e) => e.node));
    step.majority = yes.size > voters / 2;
  }
  return step;
}

/** Groups exchanges, which are in order of time, to steps, in order of their first message. */
export function stepsOf(exchanges: readonly Exchange[]): Step[] {
  const steps = new Map<string, Step>();
  for (const exchange of exchanges) {
    const near = exchange.request === 'read' ? Math.floor(exchange.atMs / 1000) : '';
    const key = `${exchange.chunk_id} ${exchange.request} ${exchange.ballot ?? near}`;
    let step = steps.get(key);
    if (!step) {
      step = {
        key,
        chunk: exchange.chunk_id,
        kind: exchange.request,
        ballot: exchange.ballot,
        layout: exchange.layout,
        version: exchange.version,
        exchanges: [],
        tookMs: 0,
        messages: 0,
        synced: 0,
        majority: null,
      };
      steps.set(key, step);
    }
    step.exchanges.push(exchange);
  }
  return [...steps.values()].map(finish);
}

const READER = 'reader';
const OTHERS = 'others';

/** Who sent a message, as a lane: proposers beyond `max` share one. */
export const senderOf = (exchange: { ballot: string | null }) => proposerOf(exchange.ballot) ?? READER;

/** Length of the hyphened words that all names begin with, as long as two are left: `storage-` of `storage-node-1`. */
function sharedBeginning(names: readonly string[]): number {
  const words = names.map((name) => name.split('-'));
  const [first = []] = words;
  let shared = 0;
  while (words.every((all) => all.length > shared + 2 && all[shared] === first[shared]) && words.length > 1) shared += 1;
  return first.slice(0, shared).join('-').length + (shared > 0 ? 1 : 0);
}

/** Lanes of the steps: proposers first, latest first; then nodes by name. */
export function lanesOf(steps: readonly Step[], proposersMax: number): Lane[] {
  const proposers = new Map<string, boolean>();
  const nodes = new Map<string, string>();
  for (const step of [...steps].reverse()) {
    const sender = senderOf(step);
    // Round 0 belongs to the process that made the video.
    proposers.set(sender, (proposers.get(sender) ?? false) || roundOf(step.ballot) === 0);
    for (const exchange of step.exchanges) nodes.set(exchange.node, exchange.node_id);
  }
  const name = (id: string, owner: boolean) =>
    id === READER ? 'Readers' : `${owner ? 'Owner' : 'Proposer'} ${id.slice(0, 4)}`;
  const all = [...proposers].sort(([, a], [, b]) => Number(b) - Number(a));
  const shown = all.length > proposersMax ? all.slice(0, Math.max(1, proposersMax - 1)) : all;
  const lanes: Lane[] = shown.map(([id, owner]) => ({ id, label: name(id, owner), side: 'proposer' }));
  if (all.length > shown.length) {
    lanes.push({ id: OTHERS, label: `${all.length - shown.length} others`, side: 'proposer' });
  }
  const begin = sharedBeginning([...nodes.values()]);
  const named = [...nodes].sort(([, a], [, b]) => a.localeCompare(b, 'en', { numeric: true }));
  return [...lanes, ...named.map(([id, label]): Lane => ({ id, label: label.slice(begin), side: 'node' }))];
}

/** The index of a sender's lane. */
export function laneOfSender(lanes: readonly Lane[], sender: string): number {
  const own = lanes.findIndex((lane) => lane.side === 'proposer' && lane.id === sender);
  return own >= 0 ? own : lanes.findIndex((lane) => lane.id === OTHERS);
}
