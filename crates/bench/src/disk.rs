//! What the disk can do by itself: plain writes with fdatasync, and fio when it is there.

use std::{
    fs::File,
    io::Write as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use tokio_util::sync::CancellationToken;
use vstack_types::limits::CHUNK_BYTES_MAX;

use crate::{load::Round, measure::Latencies, payload::Payload, process};

/// How much a file of fio grows to before it is written again from its start, so that its blocks are new as in an
/// append: more than a round writes.
const FIO_FILE_BYTES: u64 = 16 << 30;

/// How plain files are written.
#[derive(Debug, Clone, Copy)]
pub struct Plain {
    /// Threads side by side.
    pub threads: usize,
    /// Files every thread writes each chunk to.
    pub copies: usize,
    /// Of the round.
    pub duration: Duration,
}

impl Plain {
    /// Each thread appends chunks to files of its own in `directory`, each chunk synced before the next. The files are
    /// removed, and the disk left with nothing to do.
    pub async fn run(self, directory: &Path, payload: &Payload, stop: &CancellationToken) -> anyhow::Result<Round> {
        let directory = tempfile::Builder::new().prefix("plain-").tempdir_in(directory)?;
        let (path, payload, stop) = (directory.path().to_owned(), payload.clone(), stop.clone());
        let latency = tokio::task::spawn_blocking(move || self.write(&path, &payload, &stop)).await??;
        drop(directory);
        settle().await?;
        let requests = latency.count();
        Ok(Round {
            requests,
            rate: requests as f64 / self.duration.as_secs_f64(),
            latency,
            part: Latencies::default(),
        })
    }

    fn write(self, directory: &Path, payload: &Payload, stop: &CancellationToken) -> anyhow::Result<Latencies> {
        let deadline = Instant::now() + self.duration;
        let mut all = Latencies::default();
        std::thread::scope(|scope| {
            let writers: Vec<_> = (0..self.threads)
                .map(|thread| scope.spawn(move || write_until(deadline, directory, thread, self.copies, payload, stop)))
                .collect();
            for writer in writers {
                let latency = writer
                    .join()
                    .map_err(|_panic| anyhow::anyhow!("a writer ended badly"))??;
                all.merge(&latency);
            }
            Ok(all)
        })
    }
}

fn write_until(
    deadline: Instant,
    directory: &Path,
    thread: usize,
    copies: usize,
    payload: &Payload,
    stop: &CancellationToken,
) -> anyhow::Result<Latencies> {
    let path = |copy: usize| directory.join(format!("{thread}-{copy}"));
    let mut files = (0..copies)
        .map(|copy| File::create(path(copy)))
        .collect::<Result<Vec<_>, _>>()?;
    let mut latency = Latencies::default();
    for index in thread.. {
        let started = Instant::now();
        for file in &mut files {
            file.write_all(&payload.chunk(index).bytes)?;
        }
        for file in &files {
            file.sync_data()?;
        }
        let ended = Instant::now();
        if ended > deadline || stop.is_cancelled() {
            break;
        }
        latency.record(ended - started);
    }
    Ok(latency)
}

/// Where fio is, when it is installed.
pub fn fio() -> Option<PathBuf> {
    process::find("fio")
}

/// Direct writes of 2 MiB with fdatasync after each, by `jobs` threads; gives writes a second.
pub async fn run_fio(fio: &Path, directory: &Path, jobs: usize, duration: Duration) -> anyhow::Result<f64> {
    let directory = tempfile::Builder::new().prefix("fio-").tempdir_in(directory)?;
    let mut command = process::command(fio);
    command.args([
        "--name=put",
        "--rw=write",
        "--ioengine=psync",
        "--direct=1",
        "--fdatasync=1",
        "--fallocate=none",
    ]);
    command.args([
        "--thread",
        "--time_based",
        "--group_reporting",
        "--refill_buffers",
        "--output-format=json",
    ]);
    command.arg(format!("--directory={}", directory.path().display()));
    command
        .arg(format!("--bs={CHUNK_BYTES_MAX}"))
        .arg(format!("--size={FIO_FILE_BYTES}"));
    command
        .arg(format!("--numjobs={jobs}"))
        .arg(format!("--runtime={}ms", duration.as_millis()));
    let rate = fio_rate(&process::run(command).await?)?;
    drop(directory);
    settle().await?;
    Ok(rate)
}

/// Complaints may stand before the document.
fn fio_rate(output: &str) -> anyhow::Result<f64> {
    let json = output.find('{').map_or("", |start| &output[start..]);
    let report: serde_json::Value = serde_json::from_str(json).context("fio gave no JSON")?;
    let rate = report["jobs"][0]["write"]["iops"]
        .as_f64()
        .context("fio gave no rate")?;
    ensure!(rate > 0.0, "fio wrote nothing");
    Ok(rate)
}

/// Lets the disk finish what is left over, so that it is not charged to whoever comes next.
pub async fn settle() -> anyhow::Result<()> {
    tokio::task::spawn_blocking(rustix::fs::sync)
        .await
        .context("sync ended badly")
}

/// Fails unless so much is free.
pub fn require_free(directory: &Path, bytes: u64) -> anyhow::Result<()> {
    let space = rustix::fs::statvfs(directory)?;
    let free = space.f_bavail * space.f_frsize;
    let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
    ensure!(
        free >= bytes,
        "this needs {:.0} GiB free in {}, there are {:.0}",
        gib(bytes),
        directory.display(),
        gib(free)
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_of_fio_is_found_behind_its_complaints() {
        let output = "fio: something is odd\n{\"jobs\": [{\"write\": {\"iops\": 630.5}}]}\n";
        assert!((fio_rate(output).unwrap() - 630.5).abs() < 1e-9);
        assert!(fio_rate("{\"jobs\": []}").is_err());
        assert!(fio_rate("{\"jobs\": [{\"write\": {\"iops\": 0.0}}]}").is_err());
        assert!(fio_rate("no").is_err());
    }

    #[tokio::test]
    async fn plain_writes_are_counted_and_leave_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let plain = Plain {
            threads: 2,
            copies: 3,
            duration: Duration::from_millis(300),
        };
        let round = plain
            .run(directory.path(), &Payload::make(), &CancellationToken::new())
            .await
            .unwrap();
        assert!((round.rate - round.requests as f64 / 0.3).abs() < 1e-9);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
