//! Where played chunks go: nowhere, a file, or stdout. A task of its own, so that a slow reader holds up the fetching
//! of more and nothing else.
//!
//! A file is written under a temporary name beside it and renamed when it is whole and synced: under the final name
//! there is never half a video.

use std::{
    io,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use tokio::{
    fs,
    io::{AsyncWrite, AsyncWriteExt as _},
    sync::mpsc,
    task::JoinHandle,
};
use vstack_playback::PieceId;

/// Where to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    Nowhere,
    Stdout,
    File(PathBuf),
}

/// Why the output could not be written.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// The file.
    #[error("cannot write {path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Its task is gone: our own fault.
    #[error("writing the output stopped early")]
    Stopped,
    /// Standard output.
    #[error("cannot write to standard output: {source}")]
    Stdout {
        /// Why not.
        source: io::Error,
    },
}

/// A running sink.
#[derive(Debug)]
pub(crate) struct Sink {
    pieces: mpsc::Sender<(PieceId, Bytes)>,
    taken: mpsc::Receiver<PieceId>,
    task: JoinHandle<Result<Written, SinkError>>,
}

impl Sink {
    /// At most `ahead` pieces will wait.
    pub(crate) async fn open(target: Target, ahead: usize) -> Result<Self, SinkError> {
        let output = Output::open(target).await?;
        let (pieces, incoming) = mpsc::channel(ahead.max(1));
        let (outgoing, taken) = mpsc::channel(ahead.max(1));
        let task = tokio::spawn(write(output, incoming, outgoing));
        Ok(Self { pieces, taken, task })
    }

    /// False when the sink has failed; [`Self::finish`] says why. The core never hands out more than `ahead` pieces,
    /// so there is always room.
    pub(crate) fn put(&self, piece: PieceId, bytes: Bytes) -> bool {
        self.pieces.try_send((piece, bytes)).is_ok()
    }

    /// The next piece that was written; none when the sink has failed.
    pub(crate) async fn taken(&mut self) -> Option<PieceId> {
        self.taken.recv().await
    }

    /// Everything was put: makes it last.
    pub(crate) async fn finish(self) -> Result<(), SinkError> {
        drop((self.pieces, self.taken));
        match self.task.await {
            Ok(written) => written?.keep().await,
            Err(stopped) => {
                tracing::error!(%stopped, "the output's task failed");
                Err(SinkError::Stopped)
            }
        }
    }

    /// It took no more: says why, and leaves no half file behind.
    pub(crate) async fn failure(self) -> SinkError {
        drop((self.pieces, self.taken));
        match self.task.await {
            Ok(Err(error)) => error,
            Ok(Ok(_unfinished)) => SinkError::Stopped,
            Err(stopped) => {
                tracing::error!(%stopped, "the output's task failed");
                SinkError::Stopped
            }
        }
    }

    /// Nothing more comes: leaves no half file behind.
    pub(crate) async fn abandon(self) {
        drop((self.pieces, self.taken));
        self.task.abort();
        // Waits until the task is gone, and with it the temporary file.
        let _aborted = self.task.await;
    }
}

async fn write(
    mut output: Output,
    mut pieces: mpsc::Receiver<(PieceId, Bytes)>,
    taken: mpsc::Sender<PieceId>,
) -> Result<Written, SinkError> {
    while let Some((piece, bytes)) = pieces.recv().await {
        output.write(&bytes).await?;
        if taken.send(piece).await.is_err() {
            break;
        }
    }
    output.flush().await
}

/// Removes the file it names unless it was kept.
#[derive(Debug)]
struct Temporary {
    path: PathBuf,
    kept: bool,
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.kept
            && let Err(error) = std::fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the unfinished output");
        }
    }
}

/// A file that is whole but has its temporary name.
#[derive(Debug)]
struct Written(Option<(fs::File, Temporary, PathBuf)>);

impl Written {
    async fn keep(self) -> Result<(), SinkError> {
        let Some((file, mut temporary, path)) = self.0 else {
            return Ok(());
        };
        let failed = |source| SinkError::File {
            path: path.clone(),
            source,
        };
        file.sync_all().await.map_err(failed)?;
        fs::rename(&temporary.path, &path).await.map_err(failed)?;
        temporary.kept = true;
        Ok(())
    }
}

enum Output {
    Nowhere,
    Stdout(tokio::io::Stdout),
    /// A device or a pipe that has a name: written in place.
    Special(fs::File, PathBuf),
    File(fs::File, Temporary, PathBuf),
}

impl Output {
    async fn open(target: Target) -> Result<Self, SinkError> {
        let path = match target {
            Target::Nowhere => return Ok(Self::Nowhere),
            Target::Stdout => return Ok(Self::Stdout(tokio::io::stdout())),
            Target::File(path) => path,
        };
        let failed = |source| SinkError::File {
            path: path.clone(),
            source,
        };
        match fs::metadata(&path).await {
            Ok(found) if found.is_dir() => return Err(failed(io::ErrorKind::IsADirectory.into())),
            Ok(found) if !found.is_file() => {
                let file = fs::OpenOptions::new().write(true).open(&path).await.map_err(failed)?;
                return Ok(Self::Special(file, path));
            }
            Ok(_) | Err(_) => {}
        }
        let temporary = temporary_name(&path);
        let file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&temporary)
            .await
            .map_err(failed)?;
        Ok(Self::File(
            file,
            Temporary {
                path: temporary,
                kept: false,
            },
            path,
        ))
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), SinkError> {
        match self {
            Self::Nowhere => Ok(()),
            Self::Stdout(stdout) => {
                // Flushed piece by piece: a player at the other end of the pipe waits for them.
                write_out(stdout, bytes)
                    .await
                    .map_err(|source| SinkError::Stdout { source })
            }
            Self::Special(file, path) | Self::File(file, _, path) => {
                file.write_all(bytes).await.map_err(|source| SinkError::File {
                    path: path.clone(),
                    source,
                })
            }
        }
    }

    async fn flush(self) -> Result<Written, SinkError> {
        match self {
            Self::Nowhere => Ok(Written(None)),
            Self::Stdout(mut stdout) => {
                stdout.flush().await.map_err(|source| SinkError::Stdout { source })?;
                Ok(Written(None))
            }
            Self::Special(mut file, path) => {
                file.flush().await.map_err(|source| SinkError::File { path, source })?;
                Ok(Written(None))
            }
            Self::File(mut file, temporary, path) => {
                file.flush().await.map_err(|source| SinkError::File {
                    path: path.clone(),
                    source,
                })?;
                Ok(Written(Some((file, temporary, path))))
            }
        }
    }
}

async fn write_out(output: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
    output.write_all(bytes).await?;
    output.flush().await
}

/// Hidden, beside the final name so that renaming does not copy, and another for each process.
fn temporary_name(path: &Path) -> PathBuf {
    let name = path
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    path.with_file_name(format!(".{name}.{}.part", std::process::id()))
}
