//! Running ffprobe and ffmpeg on files nobody trusts.
//!
//! Each run is a process group of its own with `/dev/null` as input, an empty environment and working directory, and
//! resource limits set by `prlimit` (util-linux) before the program starts. A run ends by its own exit, by a limit, or
//! by SIGKILL to the whole group: ffmpeg answers SIGTERM by finishing its queue, which can take longer than the limit.
//! Dropping a [`Fenced`] kills it, and so does the kernel when we are killed ourselves (`setpriv`, util-linux). The kernel
//! watches the thread that started it: runs are started on threads that last, not on those for blocking work.

use std::{collections::VecDeque, ffi::OsStr, path::Path, process::Stdio, time::Duration};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    process::{Child, ChildStderr, ChildStdout, Command},
};

/// What a run may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Wall time of the whole run.
    pub wall: Duration,
    /// Time without a byte of output.
    pub idle: Duration,
    /// CPU time.
    pub cpu: Duration,
    /// Address space, in bytes.
    pub memory_bytes: u64,
}

impl Limits {
    /// For looking at a file.
    pub const PROBE: Self = Self {
        wall: Duration::from_secs(30),
        idle: Duration::from_secs(30),
        cpu: Duration::from_secs(20),
        memory_bytes: 2 << 30,
    };

    /// For cutting a file. A 1080p source transcodes at about real time on a busy core.
    pub const INGEST: Self = Self {
        wall: Duration::from_secs(6 * 3600),
        idle: Duration::from_secs(120),
        cpu: Duration::from_secs(12 * 3600),
        memory_bytes: 2 << 30,
    };
}

/// Why a run did not come to its own end.
#[derive(Debug, thiserror::Error)]
pub enum FenceError {
    /// The program is not there or cannot be started.
    #[error("{program} cannot be started (ffmpeg and util-linux must be installed)")]
    Spawn {
        /// Which.
        program: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// Reading its output failed.
    #[error("reading the output of {program} failed")]
    Read {
        /// Which.
        program: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// It took longer than it may.
    #[error("{program} did not finish within {} s", limit.as_secs())]
    Timeout {
        /// Which.
        program: &'static str,
        /// The limit.
        limit: Duration,
    },
    /// It said nothing for longer than it may.
    #[error("{program} produced nothing for {} s", limit.as_secs())]
    Idle {
        /// Which.
        program: &'static str,
        /// The limit.
        limit: Duration,
    },
    /// It said more than it may.
    #[error("{program} produced more than {max} bytes")]
    Output {
        /// Which.
        program: &'static str,
        /// The limit.
        max: u64,
    },
}

/// A running program behind the fence.
pub(crate) struct Fenced {
    pub program: &'static str,
    child: Child,
}

impl Fenced {
    /// Starts `program` in `work_dir`, which should be empty.
    pub fn spawn<A: AsRef<OsStr>>(
        program: &'static str,
        args: impl IntoIterator<Item = A>,
        limits: Limits,
        work_dir: &Path,
    ) -> Result<Self, FenceError> {
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "prlimit"])
            .arg(format!("--as={}", limits.memory_bytes))
            .arg(format!("--cpu={}", limits.cpu.as_secs()))
            .args(["--core=0", "--"])
            .arg(program)
            .args(args)
            .current_dir(work_dir)
            .env_clear()
            .env(
                "PATH",
                std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into()),
            )
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|source| FenceError::Spawn { program, source })?;
        Ok(Self { program, child })
    }

    /// Its output; once.
    pub fn stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// Its messages; once.
    pub fn stderr(&mut self) -> Option<ChildStderr> {
        self.child.stderr.take()
    }

    /// Waits for its end; `limit` bounds the time from output's end to exit.
    pub async fn wait(&mut self, limit: Duration) -> Result<std::process::ExitStatus, FenceError> {
        let program = self.program;
        match tokio::time::timeout(limit, self.child.wait()).await {
            Ok(status) => status.map_err(|source| FenceError::Read { program, source }),
            Err(_) => Err(FenceError::Timeout { program, limit }),
        }
    }
}

impl Drop for Fenced {
    fn drop(&mut self) {
        // The id is gone once the child was waited for, so that no later group of the same number is hit.
        let id = self
            .child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .and_then(Pid::from_raw);
        if let Some(group) = id {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// Reads to the end, at most `max` bytes.
pub(crate) async fn read_all(
    program: &'static str,
    source: Option<impl AsyncRead + Unpin>,
    max: u64,
) -> Result<Vec<u8>, FenceError> {
    let Some(source) = source else { return Ok(Vec::new()) };
    let mut bytes = Vec::new();
    let read = source.take(max + 1).read_to_end(&mut bytes).await;
    read.map_err(|source| FenceError::Read { program, source })?;
    if bytes.len() as u64 > max {
        Err(FenceError::Output { program, max })
    } else {
        Ok(bytes)
    }
}

/// Most messages kept.
const LINES_KEPT: usize = 6;
/// Longest message kept, in bytes.
const LINE_BYTES_MAX: usize = 300;

/// What a program complained about: how often, and the last few lines of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Complaints {
    pub count: u64,
    pub last: VecDeque<String>,
    partial: Vec<u8>,
}

impl Complaints {
    /// Reads messages to their end, keeping little of them.
    pub async fn drain(source: Option<impl AsyncRead + Unpin>) -> Self {
        let mut complaints = Self::default();
        let Some(mut source) = source else { return complaints };
        let mut buffer = vec![0; 8 * 1024];
        while let Ok(count @ 1..) = source.read(&mut buffer).await {
            complaints.push(&buffer[..count]);
        }
        complaints.end_line();
        complaints
    }

    fn push(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if *byte == b'\n' {
                self.end_line();
            } else if self.partial.len() < LINE_BYTES_MAX {
                self.partial.push(*byte);
            }
        }
    }

    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.partial);
        let line = readable(&String::from_utf8_lossy(&line));
        if line.is_empty() {
            return;
        }
        self.count += 1;
        if self.last.back() == Some(&line) {
            return;
        }
        if self.last.len() == LINES_KEPT {
            self.last.pop_front();
        }
        self.last.push_back(line);
    }

    /// The last few, for an error message.
    pub fn text(&self) -> String {
        let lines: Vec<_> = self.last.iter().map(String::as_str).collect();
        lines.join("; ")
    }
}

/// A message without what only a debugger wants: addresses (`[h264 @ 0x55d0] `) and the file's path on our disk.
fn readable(line: &str) -> String {
    let line = line.trim();
    let line = match line.split_once(']') {
        Some((head, tail)) if head.starts_with('[') && head.contains(" @ 0x") => tail.trim_start(),
        _ => line,
    };
    let line = match line.strip_prefix("file:").and_then(|line| line.split_once(": ")) {
        Some((_, message)) => message,
        None => line,
    };
    line.chars().filter(|c| !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncBufReadExt as _;

    use super::*;

    #[test]
    fn complaints_are_counted_but_not_kept() {
        let mut complaints = Complaints::default();
        for n in 0..1000 {
            complaints.push(format!("[h264 @ 0x5581] no frame {n}!\n").as_bytes());
        }
        complaints.push(&[b'x'; 100_000]);
        complaints.push(b"\nfile:/tmp/a/source: Invalid data found\n\n");
        assert_eq!(complaints.count, 1002);
        assert_eq!(complaints.last.len(), LINES_KEPT);
        assert_eq!(complaints.last[0], "no frame 996!");
        assert_eq!(complaints.last[4].len(), LINE_BYTES_MAX);
        assert_eq!(complaints.last[5], "Invalid data found");
    }

    #[tokio::test]
    async fn a_dropped_run_takes_its_whole_group_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut run = Fenced::spawn("sh", ["-c", "sleep 600 & echo $!; wait"], Limits::PROBE, dir.path()).unwrap();
        let mut pid = vec![0; 16];
        let count = run.stdout().unwrap().read(&mut pid).await.unwrap();
        let pid: i32 = std::str::from_utf8(&pid[..count]).unwrap().trim().parse().unwrap();
        let alive = || {
            // A zombie that init has not reaped yet is dead enough.
            std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
        };
        assert!(alive());
        drop(run);
        let gone = async {
            while alive() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), gone)
            .await
            .expect("the grandchild lives on");
    }

    /// Stands for one of our services in [`runs_end_with_us`]: starts a run, says its process id, and waits.
    #[tokio::test]
    #[ignore = "the other half of a test"]
    async fn run_and_wait() {
        let dir = std::env::temp_dir();
        let mut run = Fenced::spawn("sh", ["-c", "echo $$; exec sleep 600"], Limits::PROBE, &dir).unwrap();
        let mut pid = vec![0; 16];
        let count = run.stdout().unwrap().read(&mut pid).await.unwrap();
        println!("run {}", std::str::from_utf8(&pid[..count]).unwrap().trim());
        std::future::pending::<()>().await;
    }

    #[tokio::test]
    async fn runs_end_with_us() {
        let mut us = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "fence::tests::run_and_wait", "--ignored", "--nocapture"])
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = tokio::io::BufReader::new(us.stdout.take().unwrap()).lines();
        let pid: i32 = loop {
            let line = lines.next_line().await.unwrap().expect("no run was started");
            if let Some((_, pid)) = line.split_once("run ").filter(|(_, rest)| rest.parse::<i32>().is_ok()) {
                break pid.parse().unwrap();
            }
        };
        let alive = || std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "));
        assert!(alive());
        us.kill().await.unwrap();
        let gone = async {
            while alive() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), gone)
            .await
            .expect("the run outlives us");
    }

    #[tokio::test]
    async fn limits_hold() {
        let dir = tempfile::tempdir().unwrap();
        let limits = Limits {
            wall: Duration::from_millis(50),
            ..Limits::PROBE
        };
        let mut endless = Fenced::spawn("sleep", ["600"], limits, dir.path()).unwrap();
        assert!(matches!(
            endless.wait(limits.wall).await,
            Err(FenceError::Timeout { .. })
        ));
        let mut loud = Fenced::spawn("head", ["-c", "5000", "/dev/zero"], limits, dir.path()).unwrap();
        assert!(matches!(
            read_all("head", loud.stdout(), 4999).await,
            Err(FenceError::Output { max: 4999, .. })
        ));
        let mut greedy = Fenced::spawn(
            "head",
            ["-c", "1", "/dev/zero"],
            Limits {
                memory_bytes: 4096,
                ..limits
            },
            dir.path(),
        )
        .unwrap();
        assert!(!greedy.wait(Duration::from_secs(10)).await.unwrap().success());
    }
}
