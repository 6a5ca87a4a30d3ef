// A real cluster for browser tests: `vstack up` in a temporary directory on ports of its own.
import { spawn, spawnSync } from 'node:child_process';
import { closeSync, existsSync, mkdirSync, mkdtempSync, openSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..');
export const binary = process.env.VSTACK_BIN ?? join(process.env.CARGO_TARGET_DIR ?? join(root, 'target'), 'debug', 'vstack');

/** A file shared with the project but not part of it; undefined, said aloud, when it is not there. */
export function shared(path) {
  const found = join(process.env.VSTACK_SHARED ?? join(root, '..', 'shared'), path);
  if (existsSync(found)) return found;
  console.log(`SKIPPED: what needs shared/${path}: it is not there`);
  return undefined;
}

/** Waits until `ready` gives something other than undefined, null or false. */
export async function waitFor(what, ready, limitMs = 60_000) {
  const deadline = Date.now() + limitMs;
  for (;;) {
    const found = await ready();
    if (found !== undefined && found !== null && found !== false) return found;
    if (Date.now() > deadline) throw new Error(`waited ${limitMs} ms in vain for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** Lines of each log that are shown when a test fails. */
const LINES_SHOWN = 25;

/** A cluster for one test: told about when the test fails, so that a failure explains itself, and stopped in any case. */
export async function inCluster(args, env, body) {
  const cluster = await Cluster.start(args, env);
  try {
    await body(cluster);
  } catch (error) {
    await cluster.explain();
    throw error;
  } finally {
    await cluster.stop();
  }
}

export class Cluster {
  static async start(args = [], env = {}) {
    const directory = mkdtempSync(join(tmpdir(), 'vstack-browser-'));
    const cluster = new Cluster(directory);
    const log = openSync(cluster.log, 'a');
    cluster.supervisor = spawn(binary, ['up', '--ports', 'auto', '--data', cluster.data, ...args], {
      env: { ...process.env, ...env },
      stdio: ['ignore', log, log],
    });
    closeSync(log);
    cluster.ended = new Promise((resolve) => cluster.supervisor.once('exit', resolve));
    await waitFor('the cluster to be up', () => {
      if (cluster.supervisor.exitCode !== null) throw new Error(`vstack up ended: ${readFileSync(cluster.log, 'utf8')}`);
      return readFileSync(cluster.log, 'utf8').includes('Open http');
    }, 90_000);
    return cluster;
  }

  constructor(directory) {
    this.directory = directory;
    this.data = join(directory, 'cluster');
    this.log = join(directory, 'up.log');
    this.media = join(directory, 'media');
    mkdirSync(this.media);
  }

  service(name) {
    const state = JSON.parse(readFileSync(join(this.data, 'cluster.json'), 'utf8'));
    const service = state.services.find((candidate) => candidate.name === name);
    if (!service) throw new Error(`no service ${name}`);
    return service;
  }

  url(name) {
    return this.service(name).url;
  }

  signal(name, signal) {
    process.kill(this.service(name).pid, signal);
  }

  async json(service, path) {
    const answer = await fetch(`${this.url(service)}${path}`);
    if (!answer.ok) throw new Error(`${service}${path}: ${answer.status} ${await answer.text()}`);
    return answer.json();
  }

  /** Uploads by the command line; gives the video's id. */
  upload(path) {
    const urls = ['--uploader-url', this.url('uploader'), '--metadata-url', this.url('metadata')];
    const output = spawnSync(binary, ['upload', '--json', path, ...urls], { encoding: 'utf8' });
    if (output.status !== 0) throw new Error(`upload of ${path}: ${output.stdout}${output.stderr}`);
    return JSON.parse(output.stdout)[0].video_id;
  }

  /** The bytes of a video as the smart client saves them. */
  played(video) {
    const path = join(this.directory, 'played.mp4');
    const output = spawnSync(binary, ['play', video, '--speed', 'max', '--quiet', '--output', path, '--metadata-url', this.url('metadata')], { encoding: 'utf8' });
    if (output.status !== 0) throw new Error(`play of ${video}: ${output.stderr}`);
    return readFileSync(path);
  }

  /** Prints how everything stands that is stored, and what metadata service and nodes said last. */
  async explain() {
    for (const path of ['/census', '/redundancy/videos', '/repairs']) {
      const told = await this.json('metadata', path).catch((error) => String(error));
      console.log(`${path}: ${JSON.stringify(told, null, 1)}`);
    }
    const logs = join(this.data, 'logs');
    const names = existsSync(logs) ? readdirSync(logs).filter((name) => /^(metadata|storage-node).*\.log$/.test(name)) : [];
    for (const name of names.sort()) {
      const lines = readFileSync(join(logs, name), 'utf8').trimEnd().split('\n');
      console.log(`--- ${name}, the last ${LINES_SHOWN} lines\n${lines.slice(-LINES_SHOWN).join('\n')}`);
    }
  }

  async stop() {
    if (this.supervisor.exitCode === null) this.supervisor.kill('SIGTERM');
    const killer = setTimeout(() => this.supervisor.kill('SIGKILL'), 20_000);
    await this.ended;
    clearTimeout(killer);
    if (!process.env.VSTACK_KEEP) rmSync(this.directory, { recursive: true, force: true });
  }
}

const H264 = ['-c:v', 'libx264', '-preset', 'ultrafast', '-pix_fmt', 'yuv420p', '-c:a', 'aac'];

/** Makes a clip with ffmpeg. */
export function clip(directory, name, seconds, { size = '320x180', codecs = [...H264, '-g', '50', '-bf', '2'], noise = false } = {}) {
  const path = join(directory, name);
  const output = spawnSync('ffmpeg', [
    '-nostdin', '-v', 'error', '-y',
    '-f', 'lavfi', '-i', `testsrc2=size=${size}:rate=25:duration=${seconds}`,
    '-f', 'lavfi', '-i', `sine=frequency=330:sample_rate=48000:duration=${seconds}`,
    ...(noise ? ['-vf', 'noise=alls=40:allf=t', '-b:v', noise, '-maxrate', noise, '-bufsize', noise] : []),
    ...codecs, '-shortest', path,
  ], { encoding: 'utf8' });
  if (output.status !== 0) throw new Error(`ffmpeg: ${output.stderr}`);
  return path;
}

export const codecs = {
  h264: [...H264, '-g', '50', '-bf', '2'],
  oneGop: [...H264, '-g', '100000', '-sc_threshold', '0'],
  vp9: ['-c:v', 'libvpx-vp9', '-deadline', 'realtime', '-cpu-used', '8', '-g', '50', '-b:v', '500k', '-c:a', 'libopus'],
  mpeg4: ['-c:v', 'mpeg4', '-q:v', '5', '-g', '25', '-c:a', 'libmp3lame'],
  silent: ['-c:v', 'libx264', '-preset', 'ultrafast', '-g', '50', '-pix_fmt', 'yuv420p', '-an'],
};
