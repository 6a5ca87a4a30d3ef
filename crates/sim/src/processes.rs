//! Starting processes and cutting them off.

use std::{path::Path, sync::Arc, time::Duration};

use clap::Parser;
use tokio_util::sync::CancellationToken;
use vstack_client::Timeouts;
use vstack_engine::{BoxedDisk, Runs};
use vstack_metadata::Backing;
use vstack_node::OpenNode;
use vstack_service::Entrance;
use vstack_uploader::Uploader;

use crate::{
    clock::SimClock,
    disks::SimDisk,
    harm,
    hosts::{HostId, METADATA, RunningNode, RunningUploader, SLOW_FROM},
    life::Life,
    power,
    struck::Kind,
    world::{SECRET, World},
};

#[derive(Parser)]
struct NodeArgs {
    #[command(flatten)]
    settings: vstack_node::Settings,
}

#[derive(Parser)]
struct MetadataArgs {
    #[command(flatten)]
    settings: vstack_metadata::Settings,
}

#[derive(Parser)]
struct UploaderArgs {
    #[command(flatten)]
    settings: vstack_uploader::Settings,
}

/// Settings as the command line gives them, with a few arguments.
fn parse<T: Parser>(args: &[&str]) -> T {
    let command = ["sim", "--cluster-secret", SECRET];
    T::parse_from(command.iter().chain(args))
}

fn node_settings(world: &World, id: HostId) -> vstack_node::Settings {
    let label = world.hosts().nodes.get(&id).and_then(|host| host.copy).unwrap_or(id);
    let (name, url, metadata) = (label.to_string(), id.url(), METADATA.url());
    let args = [
        "--node-id",
        &name,
        "--node-url",
        &url,
        "--metadata-service-url",
        &metadata,
    ];
    let mut settings = parse::<NodeArgs>(&args).settings;
    settings.zone = world.plan.zone(label);
    let pace = &world.plan.pace;
    settings.max_superblock_size = pace.superblock_bytes;
    settings.gc_interval = pace.gc_interval.as_secs();
    settings.gc_grace = pace.gc_grace.as_secs();
    settings.staging_ttl = pace.staging_ttl.as_secs();
    settings.heartbeat_interval = pace.heartbeat.as_secs();
    settings.checkpoint_records = pace.checkpoint_records;
    settings.scrub_period = pace.scrub_period.as_secs();
    settings.compact_idle_percent = pace.idle_percent;
    settings
}

/// A door of the network for the process with this life.
fn entrance(world: &Arc<World>, id: HostId, life: &Life) -> Entrance {
    let (world, life) = (Arc::clone(world), life.clone());
    Entrance::new(move |router, stop: CancellationToken| async move {
        world.network().open(id, router, life);
        stop.cancelled().await;
        world.network().close(id);
    })
}

/// Runs `serving` until it ends or the process does.
fn run<E: std::fmt::Display>(
    world: &Arc<World>,
    id: HostId,
    life: Life,
    serving: impl Future<Output = Result<(), E>> + Send + 'static,
) {
    let world = Arc::clone(world);
    tokio::spawn(async move {
        tokio::select! {
            biased;
            () = life.over() => {}
            ended = serving => {
                world.tally.strikes(Kind::EndedByItself);
                world.happened(format!("{id} ended by itself: {}", ended.err().map(|e| e.to_string()).unwrap_or_default()));
                life.end();
                world.network().close(id);
            }
        }
    });
}

/// Starts the node of `id` on its disk; says why it does not start.
pub(crate) async fn start_node(world: &Arc<World>, id: HostId) -> Result<(), String> {
    let life = Life::default();
    let (disk, skew) = {
        let hosts = world.hosts();
        let Some(host) = hosts.nodes.get(&id) else {
            return Err("there is no such machine".to_owned());
        };
        (host.disk.clone(), host.skew.clone())
    };
    let settings = node_settings(world, id);
    let parts = vstack_node::Parts {
        disk: BoxedDisk::new(SimDisk::new(disk, life.clone(), world.tally.clone())),
        runs: Runs::AsATask(pauses(world, id)),
        clock: SimClock::start(world.begun, skew),
        http: world.client(id, &life, Timeouts::default()),
    };
    let open = OpenNode::open(parts, settings).await.map_err(|error| {
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        format!("{error}: {}", cause.unwrap_or_default())
    })?;
    let running = RunningNode {
        life: life.clone(),
        me: open.me(),
        reader: open.reader().clone(),
        report: open.report().clone(),
        queues: Box::new(open.queues()),
    };
    world.happened(format!("{id} starts as {}", &running.me.to_string()[..8]));
    harm::note_renewal(world, id, &running);
    {
        let mut hosts = world.hosts();
        // It may have been taken away while it started.
        let Some(host) = hosts.nodes.get_mut(&id) else {
            life.end();
            return Ok(());
        };
        host.me = Some(running.me);
        host.running = Some(running);
    }
    let serving = open.serve(entrance(world, id, &life), id.url(), CancellationToken::new());
    run(world, id, life, serving);
    Ok(())
}

/// How long each write and each sync of a node's disk takes.
fn pauses(world: &Arc<World>, id: HostId) -> Arc<dyn Fn() -> Duration + Send + Sync> {
    let world = Arc::clone(world);
    Arc::new(move || {
        let pause = world.hosts().pause(id);
        if pause >= SLOW_FROM {
            world.tally.strikes(Kind::DiskSlow);
        }
        pause
    })
}

/// For so long a film that somebody asked to be kept otherwise stays so once it is left to the policy, where that is not part
/// of the plan: short enough for a history.
const DWELL: Duration = Duration::from_secs(20);

/// As a setting has it.
fn seconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX)
}

/// Starts the metadata service on its database.
pub(crate) fn start_metadata(world: &Arc<World>) {
    let life = Life::default();
    let mut settings = parse::<MetadataArgs>(&[]).settings;
    let pace = &world.plan.pace;
    settings.heartbeat_interval = u32::try_from(pace.heartbeat.as_secs()).unwrap_or(10);
    settings.replication_factor = world.plan.copies;
    // Chunks of a history are small.
    settings.erasure_min_bytes = 1;
    settings.trash_time = seconds(world.plan.trash);
    // Who is away for long is replaced while there is trouble.
    settings.repair_grace = seconds(pace.repair_grace);
    if let Some(every) = pace.audit_every {
        settings.audit_every = seconds(every);
    }
    settings.redundancy_dwell = seconds(DWELL);
    if let Some(policy) = world.plan.policy {
        settings.cold_after = seconds(policy.cold_after);
        settings.redundancy_dwell = seconds(policy.dwell);
        settings.popularity_threshold = policy.views;
    }
    let backing = Backing {
        store: Arc::clone(&world.store),
        clock: SimClock::start(world.begun, world.hosts().metadata.skew.clone()),
        pace: pace.reaper,
    };
    let http = world.client(METADATA, &life, Timeouts::default());
    world.hosts().metadata.running = Some(life.clone());
    world.happened("meta starts");
    let shutdown = CancellationToken::new();
    let serving = vstack_metadata::serve_at(
        entrance(world, METADATA, &life),
        http,
        backing,
        settings,
        shutdown.clone(),
    );
    // Its workers are tasks of their own: they end with this before they do anything else.
    let ending = life.clone();
    tokio::spawn(async move {
        ending.over().await;
        shutdown.cancel();
    });
    run(world, METADATA, life, serving);
}

/// Starts the uploader of `id` on what is in its directory.
pub(crate) async fn start_uploader(world: &Arc<World>, id: HostId) -> Result<(), String> {
    let life = Life::default();
    let (dir, skew) = {
        let hosts = world.hosts();
        let Some(host) = hosts.uploaders.get(&id) else {
            return Err("there is no such machine".to_owned());
        };
        (Arc::clone(&host.dir), host.skew.clone())
    };
    let mut settings = parse::<UploaderArgs>(&["--metadata-service-url", &METADATA.url()]).settings;
    dir.path().clone_into(&mut settings.temp_dir);
    settings.min_free_bytes = 0;
    let timeouts = Timeouts {
        bytes: Duration::from_secs(15),
        ..Timeouts::default()
    };
    let parts = vstack_uploader::Parts {
        http: world.client(id, &life, timeouts),
        clock: SimClock::start(world.begun, skew),
    };
    let uploader = Uploader::open(parts, settings, CancellationToken::new())
        .await
        .map_err(|error| format!("{error:#}"))?;
    world.happened(format!("{id} starts"));
    if let Some(host) = world.hosts().uploaders.get_mut(&id) {
        host.running = Some(RunningUploader {
            life: life.clone(),
            uploader: uploader.clone(),
        });
    }
    run(world, id, life.clone(), uploader.serve(entrance(world, id, &life)));
    Ok(())
}

/// How a process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The process alone: what it wrote is there.
    Kill,
    /// The machine: of what was not synced, this seed decides what is left.
    PowerCut(u64),
}

/// Cuts the node of `id` off, if it runs.
pub(crate) fn stop_node(world: &Arc<World>, id: HostId, end: End) -> bool {
    let Some((running, disk)) = world.hosts().nodes.get_mut(&id).and_then(|host| {
        let running = host.running.take()?;
        Some((running, host.disk.clone()))
    }) else {
        return false;
    };
    running.life.end();
    world.network().close(id);
    match end {
        End::Kill => disk.kill(),
        End::PowerCut(seed) => power::cut(&disk, seed, &world.tally),
    }
    world.happened(format!("{id} ends: {end:?}"));
    true
}

/// Cuts the metadata service off, if it runs.
pub(crate) fn stop_metadata(world: &Arc<World>) -> bool {
    let Some(life) = world.hosts().metadata.running.take() else {
        return false;
    };
    life.end();
    world.network().close(METADATA);
    world.happened("meta ends");
    true
}

/// Cuts the uploader of `id` off, if it runs.
pub(crate) fn stop_uploader(world: &Arc<World>, id: HostId) -> Result<bool, std::io::Error> {
    let mut hosts = world.hosts();
    let Some(host) = hosts.uploaders.get_mut(&id) else {
        return Ok(false);
    };
    let Some(running) = host.running.take() else {
        return Ok(false);
    };
    running.life.end();
    let copy = temp_dir()?;
    copy_dir(host.dir.path(), copy.path())?;
    host.dir = Arc::new(copy);
    drop(hosts);
    world.network().close(id);
    world.happened(format!("{id} ends"));
    Ok(true)
}

/// A directory for an uploader: in memory where the machine has such a filesystem.
pub(crate) fn temp_dir() -> std::io::Result<tempfile::TempDir> {
    let memory = Path::new("/dev/shm");
    if memory.is_dir()
        && let Ok(dir) = tempfile::Builder::new().prefix("vstack-sim-").tempdir_in(memory)
    {
        return Ok(dir);
    }
    tempfile::Builder::new().prefix("vstack-sim-").tempdir()
}

fn copy_dir(from: &Path, to: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            std::fs::create_dir_all(&target)?;
            copy_dir(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
