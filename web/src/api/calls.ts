/** The calls the pages make, one function each. */
import { getJson, send, sendJson } from './http';
import type {
  Census,
  ConsensusCosts,
  ConsensusState,
  Efficiency,
  Keepings,
  Manifest,
  Migration,
  OverrideSet,
  RedundancyMode,
  Repairs,
  StatusSet,
  StorageOverhead,
  SystemHealth,
  SystemStats,
  UploadStatus,
  VideoCensus,
  VideoInfo,
  VideoSurvival,
} from './types';

const part = encodeURIComponent;

export interface VideoPage {
  videos: VideoInfo[];
  /** How many there are in all. */
  total: number;
}

export async function videos(limit: number, query: string): Promise<VideoPage> {
  const search = new URLSearchParams({ limit: String(limit), offset: '0' });
  if (query) search.set('q', query);
  const { body, headers } = await getJson<VideoInfo[]>(`/api/videos?${search}`);
  const total = Number(headers.get('x-total-count') ?? body.length);
  return { videos: body, total: Number.isFinite(total) ? total : body.length };
}

/** Videos in one answer at most, and answers that are asked for. */
const PAGE = 1_000;
const PAGES_MAX = 10;

/** What was deleted and can still be restored, what goes first at first. */
export async function trash(): Promise<VideoInfo[]> {
  const all: VideoInfo[] = [];
  for (let page = 0; page < PAGES_MAX; page += 1) {
    const { body } = await getJson<VideoInfo[]>(`/api/videos?status=deleted&limit=${PAGE}&offset=${page * PAGE}`);
    all.push(...body);
    if (body.length < PAGE) break;
  }
  const until = (video: VideoInfo) => video.restorable_until ?? '';
  return all.filter((video) => until(video) !== '').sort((a, b) => until(a).localeCompare(until(b)));
}

export const manifest = async (id: string) => (await getJson<Manifest>(`/api/manifest/${part(id)}`)).body;
export const survival = async (id: string) => (await getJson<VideoSurvival>(`/api/video/${part(id)}/survival`)).body;
export const health = async () => (await getJson<SystemHealth>('/api/health')).body;
export const stats = async () => (await getJson<SystemStats>('/api/stats')).body;
export const census = async () => (await getJson<Census>('/api/census')).body;
/** One video, with at most two thousand of its chunks that are not whole, the worst first. */
export const censusOfVideo = async (id: string) =>
  (await getJson<VideoCensus>(`/api/census/${part(id)}?limit=2000`)).body;
export const repairs = async () => (await getJson<Repairs>('/api/repairs')).body;
export const efficiency = async () => (await getJson<Efficiency>('/api/redundancy/efficiency')).body;
export const storageOverhead = async () => (await getJson<StorageOverhead>('/api/storage/overhead')).body;
/** How videos are kept, those with most to be done first; a thousand at most. */
export const keepings = async (limit: number) => (await getJson<Keepings>(`/api/redundancy/videos?limit=${limit}`)).body;
export const consensus = async (chunk: string) =>
  (await getJson<ConsensusState>(`/api/consensus/${part(chunk)}`)).body;
export const consensusCosts = async () => (await getJson<ConsensusCosts>('/api/consensus/costs')).body;
export const uploadStatus = async (session: string) =>
  (await getJson<UploadStatus>(`/api/upload/status/${part(session)}`)).body;

export const cancelUpload = (session: string) => send('DELETE', `/api/upload/${part(session)}`);
export const deleteVideo = (id: string) => sendJson<StatusSet>('DELETE', `/api/video/${part(id)}`);
/** For good: its bytes go at once. */
export const purgeVideo = (id: string) => sendJson<StatusSet>('DELETE', `/api/video/${part(id)}?purge=true`);
export const restoreVideo = (id: string) => sendJson<StatusSet>('POST', `/api/video/${part(id)}/restore`);
export const countView = (id: string) => send('POST', `/api/video/${part(id)}/view`);

export const setOverride = (id: string, mode: RedundancyMode) =>
  sendJson<OverrideSet>('POST', `/api/redundancy/override/${part(id)}?mode=${mode}`);
/** Leaves it to the policy again. */
export const clearOverride = (id: string) => sendJson<OverrideSet>('DELETE', `/api/redundancy/override/${part(id)}`);
/** Nothing more is brought into another form; what was begun is ended. */
export const pauseMigration = () => sendJson<Migration>('POST', '/api/redundancy/pause');
export const resumeMigration = () => sendJson<Migration>('POST', '/api/redundancy/resume');

export const downloadUrl = (id: string) => `/video/${part(id)}/download?attachment=1`;
export const streamUrl = (id: string) => `/video/${part(id)}/download`;
export const playlistUrl = (id: string) => `/hls/${part(id)}/master.m3u8`;
export const gatewayUrl = (id: string, chunk: string) => `/gateway/${part(id)}/${part(chunk)}`;
