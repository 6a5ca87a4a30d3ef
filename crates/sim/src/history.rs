//! One history from its seed to its end: a cluster is built, used while things go wrong, healed, and looked over.

use std::{sync::Arc, time::Duration};

use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;
use vstack_types::ambient;

use crate::{
    actors::{deleters, films, readers, repairer, rivals},
    clock::Skew,
    ending, faults, harm,
    hosts::{HostId, NodeHost, UploaderHost},
    invariants::{
        api, groups,
        learner::{Learner, chains},
    },
    plan::Plan,
    processes::temp_dir,
    trace::Trace,
    world::{SECRET, Violation, World},
};

/// Everything acknowledged is whole again this long after nothing goes wrong any more.
const WHOLE_WITHIN: Duration = Duration::from_secs(900);
/// Between two looks at everything.
const SWEEP_EVERY: Duration = Duration::from_millis(500);
/// Requests that a process ever has under way: what the few actors of a history can ask for at once.
const UNDER_WAY_MAX: usize = 128;

/// How a history is to be run.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Every event is printed as it happens.
    pub print: bool,
}

/// What came of a history.
#[derive(Debug, Clone)]
pub struct Report {
    /// Which.
    pub seed: u64,
    /// Of everything that happened: the same for the same seed, always.
    pub hash: u64,
    /// Events.
    pub events: u64,
    /// How long it took by its own clock.
    pub simulated: Duration,
    /// The promise that was broken, if one was.
    pub violation: Option<Violation>,
}

/// Runs the history of `seed`.
///
/// # Panics
/// When this machine gives the simulation no runtime or no directory.
pub fn run(seed: u64, options: Options) -> Report {
    let _seeded = ambient::Seeded::new(seed);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime of one thread");
    runtime.block_on(async {
        let secret = SECRET.parse().expect("the secret is long enough");
        let world = World::new(Plan::of(seed), Trace::new(options.print), secret);
        tokio::select! {
            biased;
            () = world.broken.cancelled() => {}
            () = live(&world) => {}
        }
        let (violation, trace) = (world.violation(), world.trace());
        Report {
            seed,
            hash: trace.hash(),
            events: trace.steps(),
            simulated: world.elapsed(),
            violation,
        }
    })
}

fn build(world: &World) {
    let mut hosts = world.hosts();
    for n in 1..=world.plan.nodes {
        let dice = world.dice(&format!("disk {n}"));
        hosts.nodes.insert(HostId::node(n), NodeHost::new(dice));
    }
    for n in 1..=world.plan.uploaders {
        let host = UploaderHost {
            skew: Skew::default(),
            dir: Arc::new(temp_dir().expect("a directory for an uploader")),
            running: None,
        };
        hosts.uploaders.insert(HostId::uploader(n), host);
    }
}

async fn live(world: &Arc<World>) {
    build(world);
    world.network().weather = world.plan.weather;
    faults::start_all(world).await;
    let _supervises = AbortOnDropHandle::new(tokio::spawn(faults::supervise(Arc::clone(world))));
    let _sweeps = AbortOnDropHandle::new(tokio::spawn(sweep(Arc::clone(world))));
    let _watches = AbortOnDropHandle::new(tokio::spawn(readers::watch(Arc::clone(world))));
    let films: Vec<_> = (0..world.plan.films)
        .map(|number| AbortOnDropHandle::new(tokio::spawn(films::send(Arc::clone(world), number))))
        .collect();
    let rivals: Vec<_> = (1..=world.plan.rivals)
        .map(|number| AbortOnDropHandle::new(tokio::spawn(rivals::rival(Arc::clone(world), number))))
        .collect();
    let joins = AbortOnDropHandle::new(tokio::spawn(faults::join(Arc::clone(world))));
    let harms = AbortOnDropHandle::new(tokio::spawn(harm::harm(Arc::clone(world))));
    let _repairs = AbortOnDropHandle::new(tokio::spawn(repairer::repair(Arc::clone(world))));
    let deletes = AbortOnDropHandle::new(tokio::spawn(deleters::delete(Arc::clone(world))));
    let trouble = AbortOnDropHandle::new(tokio::spawn(faults::trouble(Arc::clone(world))));
    sleep(world.plan.trouble).await;
    drop((trouble, deletes, rivals, joins, harms));
    faults::heal(world).await;
    let ended = async {
        for film in films {
            if let Err(error) = film.await {
                world.violate(format!("the simulation itself failed: {error}"));
            }
        }
        ending::until_whole(world).await;
    };
    if timeout(WHOLE_WITHIN, ended).await.is_err() {
        let why = ending::whole(world)
            .await
            .err()
            .unwrap_or_else(|| "an upload never ends".to_owned());
        world.violate(format!("not whole again after {} s: {why}", WHOLE_WITHIN.as_secs()));
    }
}

/// Looks at everything that no single message shows, every now and then.
async fn sweep(world: Arc<World>) {
    let mut learner = Learner::default();
    loop {
        sleep(SWEEP_EVERY).await;
        let checked = {
            let hosts = world.hosts();
            world.observer().check_all(&hosts)
        };
        if let Err(what) = checked {
            world.violate(what);
        }
        let crowded = {
            let network = world.network();
            let most = network.under_way.iter().max_by_key(|(_, count)| **count);
            most.map(|(host, count)| (*host, *count))
        };
        if let Some((host, count)) = crowded
            && count > UNDER_WAY_MAX
        {
            world.violate(format!("{host} has {count} requests under way"));
        }
        let seen = chains(&world.observer().registers);
        for (chunk, chain) in &seen {
            if let Some(first) = chain.get(&1)
                && let Err(what) = groups::check(&*world.store, chunk, first).await
            {
                world.violate(what);
            }
        }
        if let Err(what) = learner.check(&*world.store, seen).await {
            world.violate(what);
        }
        let films = world.ledger().films.clone();
        for (video, film) in films {
            if let Err(what) = api::check(&*world.store, video, &film).await {
                world.violate(what);
            }
        }
    }
}
