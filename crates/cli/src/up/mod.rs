//! `vstack up`: a whole cluster on one machine, every service a process of its own, supervised.

mod plan;
mod ports;
mod readiness;
mod sample;
mod state;
mod supervisor;

use std::{
    fs::File,
    net::IpAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, bail};
use tokio_util::sync::CancellationToken;
use vstack_types::{Clock as _, SystemClock};

use crate::output::say;
use crate::signals;
pub use state::State;

/// What to run.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Directory that keeps everything; it is made when absent.
    #[arg(long, env = "VSTACK_DATA", default_value_os_t = default_data_dir(), value_name = "DIR")]
    data: PathBuf,
    /// Storage nodes. The first three listen on 8081 to 8083, further ones from 8094.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=64))]
    nodes: u16,
    /// Leave a service that died alone instead of starting it again.
    #[arg(long)]
    no_restart: bool,
    /// Give up what is not ready after so long, and go on without it where it is a storage node beside others. With 0 it is
    /// waited for as long as its process lives: a storage node that was not stopped in order reads its whole disk first.
    #[arg(long, default_value_t = 0, value_name = "SECONDS")]
    ready_timeout: u64,
    /// Address to listen on; 0.0.0.0 lets other machines in.
    #[arg(long, env = "BIND_ADDRESS", default_value = "127.0.0.1", value_name = "IP")]
    bind_address: IpAddr,
    /// Name or address by which browsers reach this machine.
    #[arg(long, value_name = "HOST")]
    public_host: Option<String>,
    /// `standard`, or `auto` for any free ports (the same ones again next time).
    #[arg(long, value_enum, default_value = "standard")]
    ports: ports::Choice,
    /// Added to every standard port, so that several clusters fit on one machine.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=50_000))]
    port_offset: u16,
    /// When the library is empty, make a sample video and upload it.
    #[arg(long)]
    sample: bool,
}

/// `$XDG_DATA_HOME/vstack`, usually `~/.local/share/vstack`.
pub fn default_data_dir() -> PathBuf {
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/share"));
    let base = std::env::var_os("XDG_DATA_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(home);
    base.map_or_else(|| PathBuf::from("vstack-data"), |base| base.join("vstack"))
}

/// Starts the cluster and supervises it until it is told to stop.
pub fn run(options: Options) -> anyhow::Result<ExitCode> {
    // One thread for all: the kernel ties children to the thread that started them, which must live as long as we do.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let stop = CancellationToken::new();
        signals::cancel_on_stop(&stop)?;
        cluster(options, stop).await
    })
}

async fn cluster(options: Options, stop: CancellationToken) -> anyhow::Result<ExitCode> {
    std::fs::create_dir_all(&options.data).with_context(|| format!("cannot make {}", options.data.display()))?;
    let data = options
        .data
        .canonicalize()
        .with_context(|| format!("cannot use {}", options.data.display()))?;
    let _lock = lock(&data)?;
    let secret = plan::secret_file(&data)?;
    let before = State::load(&data).ok();
    let ports = ports::choose(&options, before.as_ref())?;
    let plan = plan::cluster(&options, &data, &ports, &secret);
    let urls = plan::Urls::of(&options, &ports);

    let started = SystemClock::start().wall();
    let limit = (options.ready_timeout > 0).then(|| Duration::from_secs(options.ready_timeout));
    let supervisor = supervisor::start(plan, &data, !options.no_restart, stop.clone())?;
    let ready = supervisor
        .run_with(async {
            tokio::select! {
                ready = readiness::wait(&urls, started, limit, |name| supervisor.is_given_up(name)) => ready,
                () = stop.cancelled() => Ok(0),
            }
        })
        .await;
    let nodes = match ready {
        Ok(nodes) => nodes,
        Err(error) => {
            stop.cancel();
            supervisor.join().await?;
            return Err(error.context(format!(
                "the cluster did not come up; `vstack logs --data {}` says more",
                data.display()
            )));
        }
    };
    supervisor.is_ready();
    supervisor
        .run_with(while_up(&options, nodes, &urls, &data, &stop))
        .await;
    say!("stopping");
    supervisor.join().await?;
    say!("stopped; everything is kept in {}", data.display());
    Ok(ExitCode::SUCCESS)
}

/// Everything between the start and the stop.
async fn while_up(options: &Options, nodes: usize, urls: &plan::Urls, data: &Path, stop: &CancellationToken) {
    if stop.is_cancelled() {
        return;
    }
    announce(options, nodes, urls, data);
    if options.sample {
        let loaded = tokio::select! {
            loaded = sample::load_if_empty(urls, data) => loaded,
            () = stop.cancelled() => Ok(()),
        };
        if let Err(error) = loaded {
            say!("the sample video could not be loaded: {error:#}");
        }
    }
    stop.cancelled().await;
}

fn lock(data: &Path) -> anyhow::Result<File> {
    let path = data.join("lock");
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.with_context(|| format!("cannot write {}", path.display()))?;
    if file.try_lock().is_err() {
        bail!(
            "a cluster is already running on {}; stop it first, or choose another --data",
            data.display()
        );
    }
    Ok(file)
}

fn announce(options: &Options, nodes: usize, urls: &plan::Urls, data: &Path) {
    say!(
        "\nV-Stack is up with {} storage nodes; its data is in {}",
        if nodes < usize::from(options.nodes) {
            format!("{nodes} of {}", options.nodes)
        } else {
            nodes.to_string()
        },
        data.display()
    );
    say!("Open {}   (Ctrl-C stops it)\n", urls.web_public);
}
