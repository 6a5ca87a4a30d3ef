//! Commands of `vstack` that run beside the test: what they said so far, how they ended, and that they do end.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use serde_json::Value;

use super::{Cluster, Signal, send, vstack, wait_at_most};

/// For any command, and what comes of it: everything is counted every five seconds, and some wait for several counts.
pub const ENDS_WITHIN: Duration = Duration::from_secs(180);

/// A command that runs; killed when it is not waited for.
pub struct Tool {
    child: Child,
    arguments: String,
    out: PathBuf,
    err: PathBuf,
}

/// How a command ended.
#[derive(Debug)]
pub struct Ended {
    pub arguments: String,
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Tool {
    pub fn start(cluster: &Cluster, arguments: &[&str]) -> Self {
        let urls = [cluster.url("metadata"), cluster.url("uploader")];
        Self::start_at(&urls, &cluster.scratch(""), arguments)
    }

    /// Of a metadata service and an uploader at these addresses.
    pub fn start_at([metadata, uploader]: &[String; 2], scratch: &Path, arguments: &[&str]) -> Self {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        // To files: it can be looked at what it said so far, and no pipe is ever full.
        let out = scratch.join(format!("tool-{number}.out"));
        let err = scratch.join(format!("tool-{number}.err"));
        let child = Command::new(vstack())
            .args(arguments)
            .env("METADATA_SERVICE_URL", metadata)
            .env("UPLOADER_SERVICE_URL", uploader)
            .stdin(Stdio::null())
            .stdout(File::create(&out).expect("a file for what it says"))
            .stderr(File::create(&err).expect("a file for what it says"))
            .spawn()
            .expect("vstack runs");
        Self {
            child,
            arguments: arguments.join(" "),
            out,
            err,
        }
    }

    /// Waits until it has said that to whoever watches.
    pub fn wait_said(&self, words: &str) {
        wait_at_most(
            ENDS_WITHIN,
            &format!("`vstack {}` to say {words:?}", self.arguments),
            || {
                let said = std::fs::read_to_string(&self.err).expect("what it said");
                said.contains(words).then_some(())
            },
        );
    }

    pub fn interrupt(&self) {
        assert!(send(self.child.id(), Signal::INT), "{}", self.arguments);
    }

    pub fn end(self) -> Ended {
        self.end_within(ENDS_WITHIN)
    }

    /// Panics when it takes longer.
    pub fn end_within(mut self, limit: Duration) -> Ended {
        let what = format!("`vstack {}` to end", self.arguments);
        let status = wait_at_most(limit, &what, || self.child.try_wait().expect("a child"));
        Ended {
            arguments: self.arguments.clone(),
            code: status.code(),
            out: std::fs::read_to_string(&self.out).expect("what it said"),
            err: std::fs::read_to_string(&self.err).expect("what it said"),
        }
    }
}

impl Drop for Tool {
    fn drop(&mut self) {
        let _killed = self.child.kill();
        let _reaped = self.child.wait();
    }
}

impl Ended {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("no JSON ({error}): {self:?}"))
    }

    /// Whether it said that to whoever watches; its data is in `out`.
    pub fn said(&self, words: &str) -> bool {
        self.err.contains(words)
    }
}

pub fn run(cluster: &Cluster, arguments: &[&str]) -> Ended {
    Tool::start(cluster, arguments).end()
}

pub fn ok(cluster: &Cluster, arguments: &[&str]) -> Ended {
    let ended = run(cluster, arguments);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    ended
}

/// One that is refused: with this exit code, nothing on standard output, and all of these words.
pub fn refused(cluster: &Cluster, code: i32, arguments: &[&str], words: &[&str]) {
    let ended = run(cluster, arguments);
    let said = words.iter().all(|words| ended.said(words));
    assert!(
        ended.code == Some(code) && ended.out.is_empty() && said,
        "{words:?} were to be said: {ended:?}"
    );
}
