//! The harness of the end-to-end tests: a real cluster of real processes in a temporary directory, on ports of its
//! own, gone when the test ends however it ends.
#![allow(dead_code, reason = "each test uses its part")]

pub mod count;
pub mod media;
pub mod nodes;
pub mod service;
pub mod stillness;
pub mod tool;

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process};
use serde_json::Value;

/// The program under test.
pub fn vstack() -> PathBuf {
    std::env::var_os("VSTACK_BIN").map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_vstack")), PathBuf::from)
}

/// Files shared with the project but not part of it; none when they are not there.
pub fn shared(path: &str) -> Option<PathBuf> {
    let root = std::env::var_os("VSTACK_SHARED").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"),
        PathBuf::from,
    );
    let found = root.join(path);
    if found.exists() {
        return Some(found);
    }
    skipped(&format!("what needs shared/{path}"), "it is not there");
    None
}

/// Says that something is not shown here, and why. Past what `cargo test` keeps to itself of a test that passes: nobody is
/// to take what was not done for what was.
pub fn skipped(what: &str, why: &str) {
    let line = format!("\nSKIPPED: {what}: {why}\n");
    let mut out = std::io::stdout().lock();
    let written = out.write_all(line.as_bytes()).and_then(|()| out.flush());
    written.expect("standard output");
}

/// Waits until `ready` gives something; panics with `what` after a minute.
pub fn wait_for<T>(what: &str, ready: impl FnMut() -> Option<T>) -> T {
    wait_at_most(Duration::from_secs(60), what, ready)
}

/// Waits until `ready` gives something, at most so long.
pub fn wait_at_most<T>(limit: Duration, what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = ready() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {limit:?} in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The same where to look is work for who is looked at, and where there is something to say about what is waited for:
/// `look` gives what it saw as long as that is not it, and the last of it is told when the time is over.
pub fn wait_seeing<T>(limit: Duration, what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        let seen = match look() {
            Ok(found) => return found,
            Err(seen) => seen,
        };
        assert!(Instant::now() < deadline, "waited {limit:?} in vain for {what}: {seen}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// An HTTP answer.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("not JSON ({error}): {}", String::from_utf8_lossy(&self.body)))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }
}

/// Sends a request to the cluster.
pub fn http(
    method: &str,
    url: &str,
    configure: impl FnOnce(reqwest::blocking::RequestBuilder) -> reqwest::blocking::RequestBuilder,
) -> Answer {
    try_http(method, url, configure).unwrap_or_else(|error| panic!("{method} {url}: {error}"))
}

/// Sends a request to something that may be dead.
pub fn try_http(
    method: &str,
    url: &str,
    configure: impl FnOnce(reqwest::blocking::RequestBuilder) -> reqwest::blocking::RequestBuilder,
) -> Result<Answer, reqwest::Error> {
    let client = reqwest::blocking::Client::builder()
        .no_proxy()
        .timeout(Duration::from_secs(60))
        .build()?;
    let method = method.parse().expect("a method");
    let response = configure(client.request(method, url)).send()?;
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    Ok(Answer {
        status,
        headers,
        body: response.bytes()?.to_vec(),
    })
}

pub fn get(url: &str) -> Answer {
    http("GET", url, |request| request)
}

pub fn get_json(url: &str) -> Value {
    let answer = get(url);
    assert_eq!(answer.status, 200, "{url}: {}", String::from_utf8_lossy(&answer.body));
    answer.json()
}

/// Sends a signal to a process; false when there is none.
pub fn send(pid: u32, signal: Signal) -> bool {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    pid.is_some_and(|pid| kill_process(pid, signal).is_ok())
}

/// A cluster started by `vstack up`.
pub struct Cluster {
    supervisor: Child,
    directory: tempfile::TempDir,
}

impl Cluster {
    /// Three nodes.
    pub fn start() -> Self {
        Self::start_with(&[], &[])
    }

    /// With more arguments and environment for `vstack up`.
    pub fn start_with(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("vstack-test-")
            .tempdir()
            .expect("a temporary directory");
        let supervisor = Self::spawn(directory.path(), arguments, environment);
        let mut cluster = Self { supervisor, directory };
        cluster.wait_ready();
        cluster
    }

    fn spawn(data: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Child {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(data.join("up.log"))
            .expect("a log");
        Command::new(vstack())
            .args(["up", "--ports", "auto", "--data"])
            .arg(data.join("cluster"))
            .args(arguments)
            // Several clusters at a time, on a disk that may be small: each superblock takes its space at once.
            .env("MAX_SUPERBLOCK_SIZE", "67108864")
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn()
            .expect("vstack starts")
    }

    fn wait_ready(&mut self) {
        let log = self.directory.path().join("up.log");
        wait_at_most(Duration::from_secs(90), "the cluster to be up", || {
            if let Some(status) = self.supervisor.try_wait().expect("a child") {
                panic!(
                    "vstack up ended with {status}: {}",
                    std::fs::read_to_string(&log).unwrap_or_default()
                );
            }
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            text.rsplit("----")
                .next()
                .is_some_and(|last| last.contains("Open http"))
                .then_some(())
        });
    }

    pub fn data(&self) -> PathBuf {
        self.directory.path().join("cluster")
    }

    /// A place for the test's own files.
    pub fn scratch(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn state(&self) -> Value {
        let text = std::fs::read(self.data().join("cluster.json")).expect("cluster.json");
        serde_json::from_slice(&text).expect("cluster.json is JSON")
    }

    fn service(&self, name: &str) -> Value {
        let state = self.state();
        let services = state["services"].as_array().expect("a list");
        services
            .iter()
            .find(|service| service["name"] == name)
            .unwrap_or_else(|| panic!("no service {name}"))
            .clone()
    }

    pub fn url(&self, name: &str) -> String {
        self.service(name)["url"].as_str().expect("a URL").to_owned()
    }

    pub fn pid(&self, name: &str) -> Option<u32> {
        self.service(name)["pid"]
            .as_u64()
            .and_then(|pid| u32::try_from(pid).ok())
    }

    pub fn names(&self) -> Vec<String> {
        let state = self.state();
        let services = state["services"].as_array().expect("a list").iter();
        services
            .map(|service| service["name"].as_str().expect("a name").to_owned())
            .collect()
    }

    /// SIGKILL, now.
    pub fn kill(&self, name: &str) -> bool {
        let Some(pid) = self.pid(name) else { return false };
        send(pid, Signal::KILL)
    }

    /// Any signal.
    pub fn signal(&self, name: &str, signal: Signal) {
        let pid = self.pid(name).expect("it runs");
        assert!(send(pid, signal), "{signal:?} to {name}");
    }

    /// Waits until a service answers again.
    pub fn wait_up(&self, name: &str) {
        let ready = format!("{}/ready", self.url(name));
        wait_for(&format!("{name} to answer"), || {
            try_http("GET", &ready, |request| request.timeout(Duration::from_secs(1)))
                .is_ok_and(|answer| answer.status == 200)
                .then_some(())
        });
    }

    /// Waits until the metadata service counts so many healthy nodes.
    pub fn wait_healthy(&self, nodes: u64) {
        let url = format!("{}/nodes/health-summary", self.url("metadata"));
        wait_for("healthy nodes", || {
            let answer = try_http("GET", &url, |request| request).ok()?;
            (answer.status == 200 && answer.json()["healthy"] == nodes).then_some(())
        });
    }

    /// Runs a `vstack` tool against this cluster.
    pub fn run(&self, arguments: &[&str]) -> Output {
        Command::new(vstack())
            .args(arguments)
            .env("METADATA_SERVICE_URL", self.url("metadata"))
            .env("UPLOADER_SERVICE_URL", self.url("uploader"))
            .env("VSTACK_DATA", self.data())
            .stdin(Stdio::null())
            .output()
            .expect("vstack runs")
    }

    /// Runs a tool that must succeed; gives its stdout.
    pub fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(
            output.status.success(),
            "vstack {arguments:?}: {}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// Uploads a file by `vstack upload` and waits; gives the last status.
    pub fn upload(&self, path: &Path) -> Value {
        self.upload_with(&[], path)
    }

    /// The same with more arguments.
    pub fn upload_with(&self, arguments: &[&str], path: &Path) -> Value {
        let upload = ["upload", "--json", path.to_str().expect("a UTF-8 path")];
        let output = self.run(&[&upload[..], arguments].concat());
        let results: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
            panic!(
                "no JSON from upload ({error}): {}",
                String::from_utf8_lossy(&output.stderr)
            )
        });
        results[0].clone()
    }

    /// Starts an upload over HTTP and does not wait.
    pub fn begin_upload(&self, path: &Path, title: &str) -> Answer {
        let form = reqwest::blocking::multipart::Form::new()
            .text("title", title.to_owned())
            .file("video", path)
            .expect("the file can be read");
        http("POST", &format!("{}/upload", self.url("uploader")), |request| {
            request.multipart(form)
        })
    }

    /// Waits until an upload has ended one way or the other.
    pub fn wait_upload(&self, session: &str) -> Value {
        let url = format!("{}/upload/status/{session}", self.url("uploader"));
        wait_at_most(Duration::from_secs(180), "the upload to end", || {
            let answer = try_http("GET", &url, |request| request).ok()?;
            let status = (answer.status == 200).then(|| answer.json())?;
            matches!(status["status"].as_str(), Some("completed" | "failed")).then_some(status)
        })
    }

    /// Chunks held by each node; none for one that does not answer.
    pub fn chunk_counts(&self) -> Vec<Option<u64>> {
        let nodes = self.names().into_iter().filter(|name| name.starts_with("storage-node"));
        let count = |name: String| {
            let answer = try_http("GET", &format!("{}/health", self.url(&name)), |request| request).ok()?;
            answer.json()["chunk_count"].as_u64()
        };
        nodes.map(count).collect()
    }

    /// Ids of everything the nodes hold, once for each node that holds it.
    pub fn held_items(&self) -> Vec<String> {
        let mut held = Vec::new();
        for name in self.names().iter().filter(|name| name.starts_with("storage-node")) {
            let mut cursor = String::new();
            loop {
                let page = get_json(&format!("{}/chunks?limit=500{cursor}", self.url(name)));
                let items = page["chunks"].as_array().expect("a list").iter();
                held.extend(items.map(|item| item["id"].as_str().expect("an id").to_owned()));
                let Some(next) = page["next_cursor"].as_str() else {
                    break;
                };
                cursor = format!("&cursor={next}");
            }
        }
        held
    }

    /// Every node holds so many.
    pub fn each_holds(&self, chunks: u64) -> bool {
        self.chunk_counts().iter().all(|count| *count == Some(chunks))
    }

    /// Kills the supervisor, and it alone.
    pub fn kill_supervisor(&self) {
        assert!(send(self.supervisor.id(), Signal::KILL));
    }

    /// Starts a stopped one again on the same data.
    pub fn restart_stopped(&mut self, environment: &[(&str, &str)]) {
        self.restart_stopped_with(&[], environment);
    }

    /// The same, with more arguments for `vstack up`.
    pub fn restart_stopped_with(&mut self, arguments: &[&str], environment: &[(&str, &str)]) {
        let log = self.directory.path().join("up.log");
        let mut text = std::fs::read_to_string(&log).unwrap_or_default();
        text.push_str("\n----\n");
        std::fs::write(&log, text).expect("the log can be written");
        self.supervisor = Self::spawn(self.directory.path(), arguments, environment);
        self.wait_ready();
    }

    /// Stops it as Ctrl-C would; panics unless it ends well.
    pub fn stop(&mut self) {
        assert!(send(self.supervisor.id(), Signal::INT));
        let status = wait_for("vstack up to stop", || self.supervisor.try_wait().expect("a child"));
        assert!(status.success(), "vstack up ended with {status}");
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let kept = std::env::temp_dir().join(format!("vstack-failed-{}", std::process::id()));
            let _copied = Command::new("cp")
                .arg("-r")
                .arg(self.data().join("logs"))
                .arg(&kept)
                .status();
            eprintln!("the logs of the failed test's cluster are in {}", kept.display());
        }
        if matches!(self.supervisor.try_wait(), Ok(None)) {
            send(self.supervisor.id(), Signal::TERM);
            let deadline = Instant::now() + Duration::from_secs(15);
            while matches!(self.supervisor.try_wait(), Ok(None)) && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(20));
            }
            // Its children are tied to it by the kernel.
            let _killed = self.supervisor.kill();
            let _reaped = self.supervisor.wait();
        }
    }
}
