//! What a benchmark ran on, and whether it had the machine to itself.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::Context as _;
use serde::Serialize;

/// Share of the processor in other hands, in percent, above which figures are void.
const BUSY_PERCENT_MAX: f64 = 15.0;
/// How long the processor is watched for other work.
const WATCH_FOR: Duration = Duration::from_secs(1);

/// The machine and the program.
#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    /// Threads that run at a time.
    pub cores: usize,
    /// As the processor calls itself.
    pub cpu: String,
    /// Of the whole machine.
    pub memory_mib: u64,
    /// Of Linux.
    pub kernel: String,
    /// Type of the file system the data is on.
    pub filesystem: String,
    /// Where the data is.
    pub directory: PathBuf,
    /// The program measured.
    pub binary: PathBuf,
    /// As it says.
    pub version: String,
    /// When it was built.
    pub built_at: String,
    /// Of the source tree of this benchmark; with `-dirty` when that has changes.
    pub commit: String,
}

impl Machine {
    /// Looks around.
    pub fn look(binary: &Path, directory: &Path) -> anyhow::Result<Self> {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let built = std::fs::metadata(binary).and_then(|metadata| metadata.modified()).ok();
        let built = built.and_then(|built| jiff::Timestamp::try_from(built).ok());
        let directory = directory
            .canonicalize()
            .with_context(|| format!("cannot look at {}", directory.display()))?;
        Ok(Self {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            cpu: field(&read("/proc/cpuinfo"), "model name")
                .unwrap_or("unknown")
                .to_owned(),
            memory_mib: field(&read("/proc/meminfo"), "MemTotal")
                .and_then(first_number)
                .unwrap_or(0)
                / 1024,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            filesystem: filesystem_of(&read("/proc/mounts"), &directory)
                .unwrap_or("unknown")
                .to_owned(),
            directory,
            version: output(Command::new(binary).arg("--version")).unwrap_or_else(|| "unknown".to_owned()),
            built_at: built.map_or_else(|| "unknown".to_owned(), |built| built.strftime("%FT%TZ").to_string()),
            binary: binary.to_owned(),
            commit: commit(),
        })
    }

    /// For a terminal.
    pub fn text(&self) -> String {
        format!(
            "{} cores ({}), {} MiB, Linux {}, {} at {}\n{} ({}), built {}; source at commit {}\n",
            self.cores,
            self.cpu,
            self.memory_mib,
            self.kernel,
            self.filesystem,
            self.directory.display(),
            self.version,
            self.binary.display(),
            self.built_at,
            self.commit
        )
    }
}

fn commit() -> String {
    let git = |arguments: &[&str]| {
        output(
            Command::new("git")
                .arg("-C")
                .arg(env!("CARGO_MANIFEST_DIR"))
                .args(arguments),
        )
    };
    let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) else {
        return "unknown".to_owned();
    };
    if git(&["status", "--porcelain"]).is_some_and(|changes| !changes.is_empty()) {
        commit + "-dirty"
    } else {
        commit
    }
}

fn output(command: &mut Command) -> Option<String> {
    let output = command.output().ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The value of the first line `name : value`.
pub fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim())
    })
}

/// The number a text begins with.
pub fn first_number(text: &str) -> Option<u64> {
    text.split_whitespace().next()?.parse().ok()
}

/// The type of the file system `path` is on, by the longest mount point above it; of equal ones the last covers.
fn filesystem_of<'a>(mounts: &'a str, path: &Path) -> Option<&'a str> {
    let mounts = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        Some((Path::new(words.next()?), words.next()?))
    });
    let above = mounts.filter(|(point, _)| path.starts_with(point));
    above
        .max_by_key(|(point, _)| point.components().count())
        .map(|(_, kind)| kind)
}

/// How busy the processor was with other work while nothing of ours ran.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Disturbance {
    /// In percent of all cores.
    pub busy_percent_before: f64,
    /// In percent of all cores.
    pub busy_percent_after: f64,
}

impl Disturbance {
    /// The figures in between mean nothing.
    pub fn voids(&self) -> bool {
        self.busy_percent_before.max(self.busy_percent_after) > BUSY_PERCENT_MAX
    }
}

/// Watches the processor for a second, in percent of all cores. To be called while nothing of ours runs.
pub async fn busy_percent() -> anyhow::Result<f64> {
    let before = CpuTimes::now()?;
    tokio::time::sleep(WATCH_FOR).await;
    Ok(CpuTimes::now()?.busy_percent_since(&before))
}

/// Ticks since boot, of all cores together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct CpuTimes {
    all: u64,
    idle: u64,
}

impl CpuTimes {
    fn now() -> anyhow::Result<Self> {
        Self::parse(&std::fs::read_to_string("/proc/stat")?).context("/proc/stat cannot be read")
    }

    /// Of the line `cpu  user nice system idle iowait irq softirq steal guest guest_nice`; guests are in user already.
    fn parse(stat: &str) -> Option<Self> {
        let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
        let ticks: Vec<u64> = line
            .split_whitespace()
            .take(8)
            .map_while(|word| word.parse().ok())
            .collect();
        let idle = ticks.get(3)? + ticks.get(4)?;
        Some(Self {
            all: ticks.iter().sum(),
            idle,
        })
    }

    fn busy_percent_since(&self, before: &Self) -> f64 {
        let all = self.all.saturating_sub(before.all).max(1);
        let idle = self.idle.saturating_sub(before.idle).min(all);
        (all - idle) as f64 / all as f64 * 100.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_system_is_that_of_the_longest_mount_point() {
        let mounts =
            "/dev/vda / ext4 rw 0 0\nproc /proc proc rw 0 0\ntmpfs /tmp tmpfs rw 0 0\n/dev/vdb /tmp/a xfs rw 0 0\n";
        let of = |path: &str| filesystem_of(mounts, Path::new(path));
        assert_eq!(of("/home"), Some("ext4"));
        assert_eq!(of("/tmp/x"), Some("tmpfs"));
        assert_eq!(of("/tmp/a/b"), Some("xfs"));
        assert_eq!(of("/tmpfoo"), Some("ext4"));
        assert_eq!(filesystem_of("", Path::new("/")), None);
    }

    #[test]
    fn fields_of_proc_are_read() {
        let text = "MemTotal:       24677336 kB\nmodel name\t: A CPU @ 2 GHz\n";
        assert_eq!(field(text, "MemTotal").and_then(first_number), Some(24_677_336));
        assert_eq!(field(text, "model name"), Some("A CPU @ 2 GHz"));
        assert_eq!(field(text, "MemFree"), None);
    }

    #[test]
    fn other_work_is_what_is_not_idle() {
        let before = CpuTimes::parse("cpu  100 0 50 800 50 0 0 0 0 0\ncpu0 1 1 1 1 1\n").unwrap();
        assert_eq!(before, CpuTimes { all: 1000, idle: 850 });
        let after = CpuTimes::parse("cpu  130 0 60 850 60 0 0 0 0 0\n").unwrap();
        assert!((after.busy_percent_since(&before) - 40.0).abs() < 1e-9);
        assert_eq!(CpuTimes::parse("cpu  1 2"), None);
    }
}
