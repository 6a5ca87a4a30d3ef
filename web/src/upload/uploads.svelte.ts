/**
 * The uploads of this tab: sent two at a time, then followed on the server until they are whole or failed. Sessions
 * that the server already has survive a reload of the page.
 */
import * as calls from '../api/calls';
import { ApiError } from '../api/http';
import type { UploadStatus, VideoSurvival } from '../api/types';
import { poll } from '../polling/poll';
import { sendFile, type Form, type Sending } from './send';
import { SendRate } from './stages';

const PARALLEL_MAX = 2;
const STATUS_EVERY_MS = 700;
/** Questions about a session that may go unanswered before it is given up. */
const SILENCE_MAX = 20;
/** What a video survives is asked for until all of it was counted: so often at most. */
const SURVIVAL_EVERY_MS = 2_000;
const SURVIVAL_ASKS = 30;
const KEY = 'vstack-uploads';

export type Phase = 'waiting' | 'sending' | 'server' | 'completed' | 'failed' | 'cancelled';

let serial = 0;

export class Upload {
  readonly key = `upload-${serial++}`;
  readonly name: string;
  readonly title: string;
  readonly size: number;
  phase = $state<Phase>('waiting');
  sent = $state(0);
  rate = $state<number | null>(null);
  session = $state<string | null>(null);
  status = $state.raw<UploadStatus | null>(null);
  /** Once it is completed, as far as that is known. */
  survival = $state.raw<VideoSurvival | null>(null);
  error = $state<string | null>(null);

  readonly file: File | null;
  readonly #form: Form;
  #sending: Sending | null = null;
  #stopPolling = () => {};
  #silence = 0;
  #onChange: () => void;

  constructor(what: { file: File; title: string; form: Form } | { session: string; title: string }, onChange: () => void) {
    this.#onChange = onChange;
    this.title = what.title;
    this.file = 'file' in what ? what.file : null;
    this.#form = 'form' in what ? what.form : '';
    this.name = this.file?.name ?? what.title;
    this.size = this.file?.size ?? 0;
    if ('session' in what) this.#follow(what.session);
  }

  get active(): boolean {
    return this.phase === 'waiting' || this.phase === 'sending' || this.phase === 'server';
  }

  /** Share of the whole way, 0 to 1: half for sending, half for the server's work. */
  get share(): number {
    if (this.phase === 'completed') return 1;
    const sent = this.size > 0 ? this.sent / this.size : this.session ? 1 : 0;
    return Math.min(1, 0.5 * Math.min(1, sent) + 0.005 * (this.status?.progress ?? 0));
  }

  async send(): Promise<void> {
    if (!this.file) return;
    this.phase = 'sending';
    const rate = new SendRate();
    this.#sending = sendFile(this.file, { title: this.title, form: this.#form }, (sent, total) => {
      // The total holds the form's own bytes too.
      this.sent = Math.min(this.size, (sent / total) * this.size);
      rate.add(performance.now(), sent);
      this.rate = rate.bytesPerSecond;
    });
    try {
      const accepted = await this.#sending.done;
      if (accepted) {
        this.sent = this.size;
        this.#follow(accepted.upload_session_id);
      } else this.#end('cancelled', null);
    } catch (error) {
      this.#end('failed', error instanceof Error ? error.message : String(error));
    }
  }

  async cancel(): Promise<void> {
    if (this.phase === 'waiting') this.#end('cancelled', null);
    else if (this.phase === 'sending') this.#sending?.abort();
    else if (this.session) {
      try {
        await calls.cancelUpload(this.session);
        this.#end('cancelled', null);
      } catch (error) {
        this.error = `It could not be cancelled: ${error instanceof Error ? error.message : error}`;
      }
    }
  }

  #follow(session: string): void {
    this.session = session;
    this.phase = 'server';
    this.#onChange();
    this.#stopPolling = poll(() => this.#ask(session), STATUS_EVERY_MS);
  }

  async #ask(session: string): Promise<void> {
    try {
      const status = await calls.uploadStatus(session);
      if (this.phase !== 'server') return;
      this.#silence = 0;
      this.status = status;
      if (status.status === 'completed') {
        this.#end('completed', null);
        this.#askSurvival(status.video_id);
      } else if (status.status === 'failed') this.#end('failed', status.error ?? 'The uploader gave no reason.');
    } catch (error) {
      this.#silence += 1;
      const gone = error instanceof ApiError && error.status === 404;
      if (gone) this.#end('failed', 'The uploader no longer knows this upload: it may have been restarted. Try again.');
      else if (this.#silence > SILENCE_MAX) this.#end('failed', 'The uploader does not answer any more.');
    }
  }

  #askSurvival(video: string): void {
    let left = SURVIVAL_ASKS;
    const stop = poll(async () => {
      left -= 1;
      // One that cannot be had now is asked for again; the library tells it, too.
      this.survival = await calls.survival(video).catch(() => this.survival);
      if (left === 0 || this.survival?.survival_counted) stop();
    }, SURVIVAL_EVERY_MS);
  }

  #end(phase: 'completed' | 'failed' | 'cancelled', error: string | null): void {
    this.#stopPolling();
    this.phase = phase;
    this.error = error;
    this.#onChange();
  }
}

interface Remembered {
  session: string;
  title: string;
}

function remembered(): Remembered[] {
  try {
    const list: unknown = JSON.parse(sessionStorage.getItem(KEY) ?? '[]');
    return Array.isArray(list) ? list.filter((entry) => typeof entry?.session === 'string') : [];
  } catch {
    return [];
  }
}

class Uploads {
  list = $state<Upload[]>([]);
  /** Rises when an upload ends, so that lists of videos know to look again. */
  ended = $state(0);

  constructor() {
    for (const { session, title } of remembered()) {
      this.list.push(new Upload({ session, title }, () => this.#changed()));
    }
    this.#remember();
    addEventListener('beforeunload', (event) => {
      if (this.list.some((upload) => upload.phase === 'waiting' || upload.phase === 'sending')) event.preventDefault();
    });
  }

  add(files: { file: File; title: string; form: Form }[]): void {
    const made = files.map((entry) => new Upload(entry, () => this.#changed()));
    this.list = [...made, ...this.list];
    this.#startSome();
  }

  dismiss(upload: Upload): void {
    this.list = this.list.filter((other) => other.key !== upload.key);
    this.#remember();
  }

  #changed(): void {
    this.ended += 1;
    this.#remember();
    // The state of the one that changed is settled only after this call.
    queueMicrotask(() => this.#startSome());
  }

  #startSome(): void {
    const sending = this.list.filter((upload) => upload.phase === 'sending').length;
    const waiting = this.list.filter((upload) => upload.phase === 'waiting').reverse();
    for (const upload of waiting.slice(0, Math.max(0, PARALLEL_MAX - sending))) void upload.send();
  }

  #remember(): void {
    const open = this.list.filter((upload) => upload.phase === 'server' && upload.session);
    try {
      const list = open.map(({ session, title }): Remembered => ({ session: session!, title }));
      sessionStorage.setItem(KEY, JSON.stringify(list));
    } catch {
      // Without storage a reload forgets the progress bars, not the uploads.
    }
  }
}

export const uploads = new Uploads();
