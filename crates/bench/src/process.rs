//! Processes of a benchmark: started with a clean environment, gone when their guard is, and what `/proc` says of them.

use std::{
    ffi::OsStr,
    fs::File,
    net::TcpListener,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use rand::RngExt as _;
use rustix::process::{Pid, Signal, kill_process};

use crate::machine::{field, first_number};

/// Between two looks at something that is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// How long a process may take to end when asked to.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);
/// `USER_HZ`, the unit of times in `/proc`: 100 on every architecture we run on, whatever the kernel's own clock.
const TICKS_PER_SECOND: f64 = 100.0;
/// Variables a program needs; all others would make runs differ.
const KEPT_VARIABLES: [&str; 4] = ["PATH", "HOME", "LANG", "TMPDIR"];

/// A command without what the caller's environment says about V-Stack, in a process group of its own, so that a Ctrl-C
/// in the terminal reaches this program alone, which then ends the others in order.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env_clear().process_group(0).stdin(Stdio::null());
    for name in KEPT_VARIABLES {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command
}

/// A process that runs until its guard is dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    name: String,
    log: PathBuf,
}

impl Running {
    /// Starts `command`; what it prints goes to `log`.
    pub fn start(name: &str, command: &mut Command, log: &Path) -> anyhow::Result<Self> {
        let file = File::create(log).with_context(|| format!("cannot make {}", log.display()))?;
        Ok(Self {
            child: spawn(name, command, file)?,
            name: name.to_owned(),
            log: log.to_owned(),
        })
    }

    /// Asks it to end, waits until it has, and starts `command` in its place; what that prints goes on in the same log.
    pub fn restart(&mut self, command: &mut Command) -> anyhow::Result<()> {
        self.stop();
        let file = File::options().append(true).open(&self.log);
        let file = file.with_context(|| format!("cannot go on in {}", self.log.display()))?;
        self.child = spawn(&self.name, command, file)?;
        Ok(())
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until `ready` gives something.
    pub async fn until<T>(&mut self, limit: Duration, ready: impl AsyncFn() -> Option<T>) -> anyhow::Result<T> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(found) = ready().await {
                return Ok(found);
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended with {status}: {}", self.name, self.said());
            }
            if Instant::now() > deadline {
                bail!("{} was not ready within {limit:?}: {}", self.name, self.said());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// All it printed.
    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Asks it to end, waits, and kills it when it does not.
    fn stop(&mut self) {
        // The id of one that ended may be somebody else's by now.
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        let _it_may_be_gone = signal(self.child.id(), Signal::TERM);
        let deadline = Instant::now() + STOP_TIMEOUT;
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                eprintln!("{} did not end in time and is killed", self.name);
                let _it_may_be_gone = self.child.kill();
                let _reaped = self.child.wait();
                return;
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
    }
}

fn spawn(name: &str, command: &mut Command, log: File) -> anyhow::Result<Child> {
    let command = command.stdout(log.try_clone()?).stderr(log);
    command.spawn().with_context(|| format!("cannot start {name}"))
}

/// Waits until `ready` gives something.
pub async fn wait_for<T>(what: &str, limit: Duration, ready: impl AsyncFn() -> Option<T>) -> anyhow::Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = ready().await {
            return Ok(found);
        }
        if Instant::now() > deadline {
            bail!("waited {limit:?} in vain for {what}");
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Runs a command to its end, killed when the caller gives up; gives its stdout. Fails when it does.
pub async fn run(command: Command) -> anyhow::Result<String> {
    let words = format!(
        "{:?} {:?}",
        command.get_program(),
        command.get_args().collect::<Vec<_>>()
    );
    let mut command = tokio::process::Command::from(command);
    let output = command
        .kill_on_drop(true)
        .output()
        .await
        .with_context(|| format!("cannot run {words}"))?;
    if !output.status.success() {
        bail!(
            "{words} ended with {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether a program of that name can be run, and where it is.
pub fn find(program: &str) -> Option<PathBuf> {
    let mut places: Vec<PathBuf> = std::env::var_os("PATH")
        .map(|path| std::env::split_paths(&path).collect())
        .unwrap_or_default();
    places.push("/usr/sbin".into());
    places
        .into_iter()
        .map(|place| place.join(program))
        .find(|path| path.is_file())
}

/// Sends a signal.
pub fn signal(pid: u32, signal: Signal) -> anyhow::Result<()> {
    let pid = i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .context("not a process id")?;
    kill_process(pid, signal).context("the process is gone")
}

/// A port nobody listens on, below those the kernel gives to outgoing connections, so that it stays free until it is
/// taken.
pub fn free_port() -> anyhow::Result<u16> {
    const TRIES: usize = 1000;
    let mut rng = rand::rng();
    let mut ports = (0..TRIES).map(|_| rng.random_range(10_000..30_000));
    ports
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .context("no free port")
}

/// A size of `/proc/<pid>/status` (`VmRSS`, `VmHWM`), in bytes.
pub fn memory_bytes(pid: u32, name: &str) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).context("the process is gone")?;
    let kib = field(&status, name)
        .and_then(first_number)
        .with_context(|| format!("no {name} of process {pid}"))?;
    Ok(kib * 1024)
}

/// Processor time a process has used, in seconds.
pub fn cpu_seconds(pid: u32) -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).context("the process is gone")?;
    let ticks = cpu_ticks(&stat).with_context(|| format!("/proc/{pid}/stat cannot be read"))?;
    Ok(ticks as f64 / TICKS_PER_SECOND)
}

/// `utime` and `stime`, fields 14 and 15 of proc(5); the name in field 2 may hold anything, so counting starts after it.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_read_whatever_the_process_is_called() {
        let stat = "42 (a ) b) S 1 42 42 0 -1 4194560 5 0 0 0 17 25 0 0 20 0 4 0 100 1 2";
        assert_eq!(cpu_ticks(stat), Some(42));
        assert_eq!(cpu_ticks("42 (a) S 1"), None);
        assert_eq!(cpu_ticks(""), None);
        assert!(cpu_seconds(std::process::id()).unwrap() >= 0.0);
    }

    #[test]
    fn our_own_memory_is_more_than_nothing() {
        let now = memory_bytes(std::process::id(), "VmRSS").unwrap();
        assert!(now > 0 && memory_bytes(std::process::id(), "VmHWM").unwrap() >= now / 2);
        assert!(memory_bytes(std::process::id(), "VmNothing").is_err());
    }

    #[tokio::test]
    async fn a_dropped_process_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let mut sleep = command("sleep");
        let running = Running::start("sleep", sleep.arg("600"), &directory.path().join("log")).unwrap();
        let stat = PathBuf::from(format!("/proc/{}/stat", running.pid()));
        assert!(stat.exists());
        drop(running);
        assert!(!stat.exists());
    }

    async fn has_said(running: &Running, all: &str) -> anyhow::Result<()> {
        let has_said = async || (running.said() == all).then_some(());
        wait_for(all, Duration::from_secs(10), has_said).await
    }

    #[tokio::test]
    async fn a_process_is_started_again_with_another_setting_and_its_log_goes_on() {
        let directory = tempfile::tempdir().unwrap();
        let mut shell = command("sh");
        shell.args(["-c", "echo \"$WORD\"; exec sleep 600"]).env("WORD", "one");
        let mut running = Running::start("sh", &mut shell, &directory.path().join("log")).unwrap();
        has_said(&running, "one\n").await.unwrap();
        let first = running.pid();
        running.restart(shell.env("WORD", "two")).unwrap();
        has_said(&running, "one\ntwo\n").await.unwrap();
        let is_there = |pid: u32| Path::new(&format!("/proc/{pid}/stat")).exists();
        assert!(is_there(running.pid()));
        assert!(first == running.pid() || !is_there(first));
    }

    #[tokio::test]
    async fn a_process_that_ends_early_says_why() {
        let directory = tempfile::tempdir().unwrap();
        let mut shell = command("sh");
        let mut running = Running::start(
            "sh",
            shell.args(["-c", "echo no; exit 3"]),
            &directory.path().join("log"),
        )
        .unwrap();
        let error = running
            .until(Duration::from_secs(10), async || None::<()>)
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains("no") && error.contains('3'), "{error}");
    }
}
