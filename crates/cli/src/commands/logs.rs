//! `vstack logs`.

use std::{
    collections::VecDeque,
    fs::File,
    io::{BufRead as _, BufReader, Seek as _, SeekFrom},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, bail};
use tokio_util::sync::CancellationToken;

use crate::output::out;
use crate::up::{State, default_data_dir};

/// Which logs.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Services, as `metadata` or `storage-node-1`; all when none is named.
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    /// Data directory of the cluster.
    #[arg(long, env = "VSTACK_DATA", default_value_os_t = default_data_dir(), value_name = "DIR")]
    data: PathBuf,
    /// Lines of each log to begin with.
    #[arg(long, short = 'n', default_value_t = 100)]
    lines: usize,
    /// Go on as lines come, until Ctrl-C.
    #[arg(long, short)]
    follow: bool,
}

struct Tail {
    name: String,
    reader: BufReader<File>,
    path: PathBuf,
}

/// Prints the last lines of logs, and with `--follow` those to come.
pub async fn run(options: Options, stop: CancellationToken) -> anyhow::Result<ExitCode> {
    let state = State::load(&options.data).with_context(|| {
        format!(
            "no cluster was started in {}; see `vstack up --help`",
            options.data.display()
        )
    })?;
    let known: Vec<_> = state.services.iter().map(|service| service.name.as_str()).collect();
    if let Some(unknown) = options.services.iter().find(|name| !known.contains(&name.as_str())) {
        bail!("there is no service `{unknown}`; there are {}", known.join(", "));
    }
    let chosen = state
        .services
        .iter()
        .filter(|service| options.services.is_empty() || options.services.contains(&service.name));
    let mut tails = Vec::new();
    for service in chosen {
        // A service that never ran has no log yet.
        if let Ok(file) = File::open(&service.log) {
            tails.push(Tail {
                name: service.name.clone(),
                reader: BufReader::new(file),
                path: service.log.clone(),
            });
        }
    }
    for tail in &mut tails {
        print_last(tail, options.lines)?;
    }
    if !options.follow {
        return Ok(ExitCode::SUCCESS);
    }
    loop {
        for tail in &mut tails {
            print_new(tail)?;
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(ExitCode::SUCCESS),
            () = tokio::time::sleep(Duration::from_millis(200)) => {}
        }
    }
}

fn print_last(tail: &mut Tail, count: usize) -> anyhow::Result<()> {
    let mut last = VecDeque::with_capacity(count.min(10_000) + 1);
    let mut line = Vec::new();
    while tail.reader.read_until(b'\n', &mut line)? > 0 {
        last.push_back(std::mem::take(&mut line));
        if last.len() > count {
            last.pop_front();
        }
    }
    for line in last {
        print_line(&tail.name, &line);
    }
    Ok(())
}

fn print_new(tail: &mut Tail) -> anyhow::Result<()> {
    if rotated(&mut tail.reader, &tail.path)? {
        tail.reader = BufReader::new(File::open(&tail.path)?);
    }
    let mut line = Vec::new();
    while tail.reader.read_until(b'\n', &mut line)? > 0 {
        print_line(&tail.name, &line);
        line.clear();
    }
    Ok(())
}

fn rotated(reader: &mut BufReader<File>, path: &Path) -> anyhow::Result<bool> {
    let read = reader.stream_position()?;
    let length = std::fs::metadata(path).map_or(0, |metadata| metadata.len());
    if length < read {
        reader.seek(SeekFrom::Start(0))?;
        return Ok(true);
    }
    Ok(false)
}

fn print_line(name: &str, line: &[u8]) {
    out!("{name:<16} {}", String::from_utf8_lossy(line).trim_end());
}
