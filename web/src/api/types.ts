/** The JSON of the services, as `crates/api` defines it. */

export type VideoStatus = 'uploading' | 'active' | 'failed' | 'deleted';

export interface VideoInfo {
  video_id: string;
  title: string;
  duration_sec: number;
  status: VideoStatus;
  total_chunks: number;
  size_bytes: number;
  view_count: number;
  created_at: string;
  /** Of one that was deleted; none once it is gone for good. */
  restorable_until?: string;
  /** Nodes that may be lost with everything still readable; null before all of it was counted, and when it cannot be read. */
  failures_survived: number | null;
  survival_counted: boolean;
}

/** How many nodes a video may lose: by what was counted, or before that by where its chunks are placed. */
export interface VideoSurvival {
  video_id: string;
  /** Null when a chunk cannot be read now. */
  failures_survived: number | null;
  survival_counted: boolean;
}

export interface StatusSet {
  video_id: string;
  status: VideoStatus;
  restorable_until?: string;
}

export interface ManifestInit {
  chunk_id: string;
  size_bytes: number;
  checksum: string;
  replicas: string[];
  replica_ids: string[];
}

export interface ManifestChunk extends ManifestInit {
  sequence_num: number;
  redundancy_mode: 'replication' | 'erasure_coding';
  /** Of a coded chunk, also while it becomes one or ceases to be one. */
  fragments?: Fragments;
  segment: number;
  start_sec: number;
  duration_sec: number;
  independent: boolean;
}

/** Any `data_shards` shards with different indexes give the chunk; those with the first indexes, in order, are it. */
export interface Fragments {
  data_shards: number;
  parity_shards: number;
  /** Of each shard. */
  size_bytes: number;
  /** By index. While shards are moved, one may be named at two nodes. */
  shards: Fragment[];
}

/** One shard, and who holds it. */
export interface Fragment {
  /** What its node is asked for under `/chunk/`. */
  fragment_id: string;
  fragment_index: number;
  checksum: string;
  node_url: string;
  node_id: string;
}

export interface Manifest {
  video_id: string;
  title: string;
  duration_sec: number;
  total_chunks: number;
  chunk_duration_sec: number;
  chunk_size_bytes: number;
  created_at: string;
  status: VideoStatus;
  version: number;
  codecs: string;
  width: number;
  height: number;
  init: ManifestInit | null;
  chunks: ManifestChunk[];
}

export type NodeStatus = 'healthy' | 'degraded' | 'down';

export interface NodeInfo {
  node_url: string;
  node_id: string;
  last_heartbeat: string | null;
  disk_usage_percent: number;
  chunk_count: number;
  status: NodeStatus;
  version: string;
  public_url: string;
  zone: string;
  trusted: boolean;
  role: 'active' | 'draining' | 'removing' | 'sealed' | 'removed';
}

export interface ServiceHealth {
  status: string;
  latency_ms: number | null;
}

export interface SystemHealth {
  /** `counting` and `unknown` are about what is stored, where everything else is healthy. */
  status: 'healthy' | 'counting' | 'unknown' | 'degraded' | 'unhealthy';
  services: Record<string, ServiceHealth>;
  nodes: NodeInfo[];
  /** Those that run and may not take part. */
  refused: RefusedNode[];
}

export interface RefusedNode {
  node_id: string;
  node_url: string;
  why: string;
  asked_at: string;
}

export interface SystemStats {
  total_videos: number;
  total_chunks: number;
  total_replicas: number;
  healthy_nodes: number;
  service_version: string;
  active_uploads: number;
  queued_uploads: number;
}

export type UploadStage =
  | 'queued'
  | 'uploading'
  | 'processing'
  | 'chunking'
  | 'registering'
  | 'uploading_chunks'
  | 'finalizing'
  | 'completed'
  | 'failed';

export interface UploadAccepted {
  video_id: string;
  upload_session_id: string;
  title: string;
  status: UploadStage;
  message: string;
  status_url: string;
}

export interface UploadStatus {
  video_id: string;
  upload_session_id: string;
  title: string;
  filename: string;
  status: UploadStage;
  progress: number;
  started_at: string;
  total_chunks: number;
  error: string | null;
  warnings: string[];
  queue_position?: number;
  under_replicated: number;
}

export interface AcceptorState {
  node: string;
  node_url: string | null;
  reachable: boolean;
  promised: string | null;
  accepted: string | null;
  version: number | null;
  decided: boolean;
  damaged: boolean;
  holds: boolean;
  node_id: string | null;
  value: PlacementView | null;
  standing: 'votes' | 'waits' | 'abstains' | null;
}

export interface PlacementView {
  version: number;
  size: number;
  sha256: string;
  layout: string;
  nodes: string[];
  prev_nodes: string[];
  back: boolean;
}

/** One message an acceptor answered. */
export interface ConsensusEvent {
  /** Which of the node's: with the disk of `node` it names the event, whoever passes it on, and however often. */
  event: string;
  at: string;
  node: string;
  node_id: string;
  chunk_id: string;
  request: 'put0' | 'prepare' | 'accept' | 'decided' | 'read';
  ballot: string | null;
  version: number | null;
  layout: string | null;
  bytes: number | null;
  reply: string;
  promised: string | null;
  accepted: string | null;
  accepted_version: number | null;
  decided: boolean;
  durable: boolean;
  log_seq: number | null;
  took_us: number;
}

/** Where the stream of messages lacks those of a node. */
export type ConsensusGap = { node: string; node_id: string } & (
  | { state: 'began'; reason: string }
  | { state: 'ended' }
  | { state: 'missed'; missed: number }
);

export interface PathCost {
  decisions: number;
  messages: number;
  round_trips: number;
  votes: number;
}

export interface ConsensusCosts {
  fast: PathCost;
  classic: PathCost;
  node_votes: number;
  node_vote_syncs: number;
  messages_per_decision: number | null;
  round_trips_per_decision: number | null;
  syncs_per_decision: number | null;
  news: number;
  processes: number;
  answered: number;
}

export interface ConsensusState {
  chunk_id: string;
  promised_ballot: number | null;
  accepted_ballot: number | null;
  accepted_value: string | null;
  phase: 'none' | 'prepare' | 'accept' | 'committed' | 'unknown';
  acceptors: AcceptorState[];
}

export interface ModeFigures {
  overhead_factor: number;
  storage_efficiency: number;
  storage_per_chunk_mb: number;
  /** Nodes that it takes, and how many of those may be lost. */
  nodes_required: number;
  failures_tolerated_by_required: number;
  /** Nodes with which as many may be lost as can be, and how many those are. */
  nodes_for_most_failures: number;
  most_failures_tolerated: number;
  /** On the nodes there are now. */
  failures_tolerated: number;
}

/** What the nodes hold, as each told last. */
export interface HeldBytes {
  /** Bytes of their copies and shards, whether or not anything places them. */
  item_bytes: number;
  /** Bytes of their filesystems that those take, with what was set aside for more. */
  allocated_bytes: number;
  /** Nodes there are, and those of them that told. */
  nodes: number;
  nodes_told: number;
  /** When the one told that has not told for the longest. */
  as_of: string | null;
}

/** What everything stored takes. */
export interface Stored {
  /** Of what the nodes hold, and of what they take of their disks; null where one did not tell. */
  storage_savings_percent: number | null;
  disk_savings_percent: number | null;
  total_logical_bytes: number;
  /** Bytes of copies and shards that the nodes hold; null where one did not tell. */
  total_physical_bytes: number | null;
  /** What they take of their disks for that, with records, waste and room that is taken ahead; null likewise. */
  total_disk_bytes: number | null;
  /** What decisions place. */
  total_placed_bytes: number;
  held: HeldBytes;
}

export interface Efficiency {
  /** Of each form, counted over logical bytes; 0 while nothing of it was counted. */
  efficiency: Stored & { replication_overhead_factor: number; erasure_coding_overhead_factor: number };
  mode_comparison: { replication: ModeFigures; erasure_coding: ModeFigures };
}

/** The same in bytes and chunks. */
export interface StorageOverhead extends Stored {
  replication_chunks: number;
  erasure_coded_chunks: number;
  /** Bytes of one copy of what is kept in each form; chunks of it that were counted, and what was found of them. */
  replication_logical_bytes: number;
  replication_counted_chunks: number;
  /** Of the chunks of this form, those of which it is not known yet what is held. */
  replication_uncounted_chunks: number;
  replication_physical_bytes: number;
  erasure_logical_bytes: number;
  erasure_counted_chunks: number;
  erasure_uncounted_chunks: number;
  erasure_physical_bytes: number;
  /** Of what was counted, what is beyond the bytes of one copy. */
  replication_overhead_bytes: number;
  erasure_overhead_bytes: number;
}

export type RedundancyMode = 'replication' | 'erasure_coding';

/** How a video is kept, and what is to be done for it. */
export interface VideoKeeping {
  video_id: string;
  title: string;
  view_count: number;
  /** What is decided. */
  mode: RedundancyMode;
  override_mode: RedundancyMode | null;
  /** `asked`, `new`, `hot`, `cold` or `dwells`. */
  why: string;
  since: string;
  replicated_chunks: number;
  coded_chunks: number;
  /** Chunks in another form than decided. */
  waiting_chunks: number;
  waiting_bytes: number;
  logical_bytes: number;
  placed_bytes: number;
  /** Of both, those of chunks that are kept as copies, and as shards. */
  replicated_logical_bytes: number;
  replicated_placed_bytes: number;
  coded_logical_bytes: number;
  coded_placed_bytes: number;
  /** Null when a chunk cannot be read now, or none was counted. */
  failures_survived: number | null;
}

export interface Keepings {
  policy: string;
  cold_after_seconds: number;
  dwell_seconds: number;
  videos: VideoKeeping[];
  total: number;
  migration: Migration;
}

export interface Migration {
  paused: boolean;
  rate_bytes_per_second: number;
  waiting_chunks: number;
  waiting_bytes: number;
  /** Of them, chunks that are not whole now, or are being moved. */
  unready_chunks: number;
  /** Why some cannot be begun with. */
  refused: string | null;
  /** Since the service started. */
  encoded_chunks: number;
  decoded_chunks: number;
}

export interface OverrideSet {
  status: string;
  video_id: string;
  override_mode?: RedundancyMode;
  message: string;
}

export type Health =
  | 'healthy'
  | 'counting'
  | 'unexplained'
  | 'under_replicated'
  | 'endangered'
  | 'out_of_reach'
  | 'lost';

export interface Tally {
  chunks: number;
  whole: number;
  uncounted: number;
  under_replicated: number;
  endangered: number;
  out_of_reach: number;
  lost: number;
}

export interface ChunkStanding {
  chunk_id: string;
  standing: string;
  sequence_num: number | null;
  start_sec: number | null;
  end_sec: number | null;
}

export interface VideoStanding {
  video_id: string;
  title: string;
  tally: Tally;
  chunks: ChunkStanding[];
}

export interface VideoCensus {
  health: Health;
  complete: boolean;
  at: string;
  video: VideoStanding;
  orphans: Orphan[];
}

export interface NodeCounted {
  node: string;
  counted_at: string | null;
  items: number;
  placed: number | null;
  placed_bytes: number;
  orphans: number;
  trouble: string | null;
  stays_because: string | null;
}

export interface Orphan {
  chunk_id: string;
  video_id: string | null;
  node: string;
  why: string;
  /** It is given up by itself as soon as nobody needs it. */
  explained: boolean;
}

export interface Census {
  health: Health;
  complete: boolean;
  at: string;
  tally: Tally;
  videos: VideoStanding[];
  videos_not_whole: number;
  nodes: NodeCounted[];
  orphans: Orphan[];
  waits: Waiting[];
  zones: { there: number; copies: number; crowded_chunks: number } | null;
  processor_percent: number;
}

export interface Waiting {
  chunks: number;
  nodes: string[];
  why: string;
}

export interface Repair {
  chunk_id: string;
  video_id: string;
  what: string;
  /** How the chunk stood. */
  why: string;
  /** What made it necessary, for people. */
  reason: string;
  /** Labels of the nodes that get bytes by it. */
  to: string[];
  began: string;
  took_sec: number | null;
  /** While it goes on, how long it does by then. */
  elapsed_sec: number | null;
  bytes: number;
  failed: string | null;
}

export interface Repairs {
  /** False with `REPAIRS=false`: chunks are only counted. */
  enabled: boolean;
  waiting: number;
  running: Repair[];
  recent: Repair[];
  done: number;
  done_bytes: number;
  failures: number;
  rate_bytes_per_second: number;
  uneven: number;
  hurried: boolean;
  harmed: HarmedCopies;
}

export interface HarmedCopies {
  found: number;
  repaired: number;
  ended: number;
  open: number;
  beyond_repair: number;
}
