//! One history from its seed to its end: a cluster is built, used while things go wrong, healed, and looked over.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;
use vstack_types::{ChunkId, NodeUuid, ambient};

use crate::{
    actors::{
        auditors, choosers, coder, condemners, deleters, films, forgers, onlookers, operators, readers, removers,
        rivals, scripts,
    },
    clock::Skew,
    closing, doubles,
    ending::{self, Demand},
    faults, harm,
    hosts::{HostId, NodeHost, UploaderHost},
    invariants::{
        api,
        dwell::{Dwelling, Forms},
        groups,
        learner::{Learner, chains, check_buried},
        queues, removals, salvages, trash,
    },
    plan::Plan,
    processes::temp_dir,
    recoded,
    struck::{Kind, Struck},
    supervisor, told,
    trace::Trace,
    world::{SECRET, Violation, World},
};

/// Everything acknowledged is whole again this long after nothing goes wrong any more.
pub(crate) const WHOLE_WITHIN: Duration = Duration::from_secs(900);
/// And so long after that the census says so.
pub(crate) const TOLD_WITHIN: Duration = Duration::from_secs(600);
/// Between two looks at everything: less than between two heartbeats of a node.
const SWEEP_EVERY: Duration = Duration::from_millis(500);

/// How a history is to be run.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Every event is printed as it happens.
    pub print: bool,
    /// Ten times as long: films, scripts and trouble.
    pub long: bool,
}

/// What came of a history.
#[derive(Debug, Clone)]
pub struct Report {
    /// Which.
    pub seed: u64,
    /// It was a long one.
    pub long: bool,
    /// Of everything that happened: the same for the same seed, always.
    pub hash: u64,
    /// Events.
    pub events: u64,
    /// How long it took by its own clock.
    pub simulated: Duration,
    /// What went wrong in it, as far as it took effect.
    pub struck: Struck,
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
        let world = World::new(Plan::of(seed, options.long), Trace::new(options.print), secret);
        tokio::select! {
            biased;
            () = world.broken.cancelled() => {}
            () = live(&world) => {}
        }
        world.dissolve();
        recoded::count(&world);
        let (violation, trace) = (world.violation(), world.trace());
        Report {
            seed,
            long: options.long,
            hash: trace.hash(),
            events: trace.steps(),
            simulated: world.elapsed(),
            struck: world.tally.so_far(),
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
    supervisor::start_all(world).await;
    let _supervises = AbortOnDropHandle::new(tokio::spawn(supervisor::supervise(Arc::clone(world))));
    let _sweeps = AbortOnDropHandle::new(tokio::spawn(sweep(Arc::clone(world))));
    let _watches = AbortOnDropHandle::new(tokio::spawn(readers::watch(Arc::clone(world))));
    let _audits = AbortOnDropHandle::new(tokio::spawn(auditors::audit(Arc::clone(world))));
    let _counts = AbortOnDropHandle::new(tokio::spawn(onlookers::count(Arc::clone(world))));
    let mut films: Vec<_> = (0..world.plan.films)
        .map(|number| AbortOnDropHandle::new(tokio::spawn(films::send(Arc::clone(world), number))))
        .collect();
    films.extend(
        (0..world.plan.scripts)
            .map(|number| AbortOnDropHandle::new(tokio::spawn(scripts::publish(Arc::clone(world), number)))),
    );
    films.push(AbortOnDropHandle::new(tokio::spawn(condemners::condemn(Arc::clone(
        world,
    )))));
    let rivals: Vec<_> = (1..=world.plan.rivals)
        .map(|number| AbortOnDropHandle::new(tokio::spawn(rivals::rival(Arc::clone(world), number))))
        .collect();
    let joins = AbortOnDropHandle::new(tokio::spawn(supervisor::join(Arc::clone(world))));
    let doubles = AbortOnDropHandle::new(tokio::spawn(doubles::double(Arc::clone(world))));
    let harms = AbortOnDropHandle::new(tokio::spawn(harm::harm(Arc::clone(world))));
    let codes = AbortOnDropHandle::new(tokio::spawn(coder::code(Arc::clone(world))));
    let chooses = AbortOnDropHandle::new(tokio::spawn(choosers::choose(Arc::clone(world))));
    let forges = AbortOnDropHandle::new(tokio::spawn(forgers::forge(Arc::clone(world))));
    let operates = AbortOnDropHandle::new(tokio::spawn(operators::operate(Arc::clone(world))));
    let removes = AbortOnDropHandle::new(tokio::spawn(removers::remove(Arc::clone(world))));
    let deletes = AbortOnDropHandle::new(tokio::spawn(deleters::delete(Arc::clone(world))));
    let trouble = AbortOnDropHandle::new(tokio::spawn(faults::trouble(Arc::clone(world))));
    sleep(world.plan.trouble).await;
    drop((
        trouble, deletes, operates, rivals, codes, chooses, forges, joins, harms, doubles,
    ));
    supervisor::heal(world).await;
    let ended = async {
        for film in films {
            if let Err(error) = film.await {
                world.violate(format!("the simulation itself failed: {error}"));
            }
        }
        // A disk may be registered under its node's name until an empty one is: who keeps the node takes its loss back.
        operators::take_back(world).await;
        harm::give_up(world).await;
        ending::until_whole(world, Demand::Majority).await;
        // Who is taken out is waited for: nothing is to be left on him.
        if let Err(error) = removes.await {
            world.violate(format!("the simulation itself failed: {error}"));
        }
        harm::rot_late(world).await;
        ending::until_whole(world, Demand::Everything).await;
    };
    if timeout(WHOLE_WITHIN, ended).await.is_err() {
        let why = ending::why_not_whole(world).await;
        return world.violate(format!("not whole again after {} s: {why}", WHOLE_WITHIN.as_secs()));
    }
    let Ok(all_whole) = timeout(TOLD_WITHIN, told::until_told(world)).await else {
        let why = told::why_not_told(world).await;
        return world.violate(format!(
            "{} s after everything was whole the census says what is not so: {why}",
            TOLD_WITHIN.as_secs()
        ));
    };
    if !all_whole {
        return;
    }
    if let Err(what) = closing::close(world).await {
        world.violate(what);
    }
}

/// Whether no heartbeat of a node comes late, or once more: then the last one says how its disk is.
fn beats_are_in_time(world: &World) -> bool {
    let weather = world.plan.weather;
    weather.slow == 0 && weather.doubled == 0
}

/// Looks at what waits, in nodes and on the way to every host.
fn waiting(world: &World) -> Result<(), String> {
    let under_way: Vec<_> = {
        let network = world.network();
        let counts = network.under_way.iter();
        counts.map(|(host, count)| (*host, *count)).collect()
    };
    let max = queues::under_way_max(&world.plan, world.everybody().len());
    for (host, count) in under_way {
        queues::check_under_way(host, count, max)?;
    }
    let hosts = world.hosts();
    hosts
        .running_nodes()
        .try_for_each(|(id, node)| queues::check(id, (node.queues)()))
}

/// Looks at everything that no single message shows, every now and then.
async fn sweep(world: Arc<World>) {
    let mut learner = Learner::default();
    let mut standing = groups::Standing::default();
    let mut choices = groups::Choices::default();
    let mut dwelling = Dwelling::default();
    let mut forms = Forms::default();
    loop {
        sleep(SWEEP_EVERY).await;
        let checked = {
            let hosts = world.hosts();
            let ledger = world.ledger();
            let mut observer = world.observer();
            observer
                .check_all(&hosts)
                .and_then(|()| observer.check_gone(&hosts, &ledger))
        };
        if let Err(what) = checked {
            world.violate(what);
        }
        if let Err(what) = waiting(&world) {
            world.violate(what);
        }
        if beats_are_in_time(&world)
            && let Err(what) = choices.check(&*world.store).await
        {
            world.violate(what);
        }
        if let Some(policy) = world.plan.policy {
            match dwelling.check(&*world.store, policy.dwell).await {
                Ok(films) => (0..films).for_each(|_| world.tally.strikes(Kind::FormDecided)),
                Err(what) => world.violate(what),
            }
            let is_alone = world.plan.rivals == 0 && !world.hosts().metadata.skew.was_wrong();
            if is_alone && let Err(what) = forms.check(&*world.store, world.begun.elapsed(), policy.dwell).await {
                world.violate(what);
            }
        }
        let removed = world.hosts().removed.clone();
        if let Err(what) = removals::check(&*world.store, &removed).await {
            world.violate(what);
        }
        let seen = chains(&world.observer().registers);
        let ended: BTreeSet<ChunkId> = seen
            .iter()
            .filter(|(_, chain)| chain.last_key_value().is_some_and(|(_, last)| last.layout.is_deleted()))
            .map(|(chunk, _)| chunk.clone())
            .collect();
        for (chunk, chain) in &seen {
            if let Some(first) = chain.get(&1)
                && let Err(what) = groups::check(&*world.store, chunk, first).await
            {
                world.violate(what);
            }
        }
        let (harmed, lost) = {
            let hosts = world.hosts();
            // What rotted may have lost votes, and counts for nothing then, whoever says what.
            let lost = hosts.given_up.iter().chain(hosts.rotten.keys());
            let harmed: BTreeSet<NodeUuid> = hosts.harmed.union(&hosts.given_up).copied().collect();
            (harmed, lost.copied().collect())
        };
        let voted_for: Vec<_> = {
            let observer = world.observer();
            let registers = observer.registers.iter();
            registers
                .map(|(chunk, seen)| (chunk.clone(), seen.standing()))
                .collect()
        };
        if let Err(what) = salvages::check(&*world.store, &lost, &voted_for).await {
            world.violate(what);
        }
        if let Err(what) = learner.check(&*world.store, &harmed, seen).await {
            world.violate(what);
        }
        let buried: Vec<_> = world.observer().buried.iter().cloned().collect();
        if let Err(what) = check_buried(&*world.store, buried).await {
            world.violate(what);
        }
        let films = world.ledger().films.clone();
        for (video, film) in films {
            if let Err(what) = standing.check(&*world.store, video).await {
                world.violate(what);
            }
            if let Err(what) = api::check(&*world.store, video, &film).await {
                world.violate(what);
            }
            if let Err(what) = trash::check(&*world.store, (video, &film), world.plan.trash, &ended).await {
                world.violate(what);
            }
        }
    }
}
