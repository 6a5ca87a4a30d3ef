//! Films become shards and copies again: all of a library while fifty people watch it; and some of it again and again, and
//! all of it there and back, while any process is killed.

use std::{
    ops::Range,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use vstack_api::metadata::RedundancyMode;
use vstack_types::limits::CODED_BYTES_MIN;

use crate::{
    changes::Changes,
    forms::Library,
    harness::{Cluster, wait_at_most},
    load::{Readers, SAMPLE, Seen},
    players::{BreakingOff, Players},
    recovery::{Kills, RECOVERS_WITHIN},
    shared::{BASELINE, Filled, HEALS_WITHIN, P99_READS_MIN, QUICK, QUICKLY, SEED, SETTINGS, number},
};

/// One for each shard.
const NODES: u64 = 5;
/// At three megabits a second, two seconds from one keyframe to the next are one chunk of some 750 KiB: with more, it
/// would be longer than chunks may be.
const CUT: (&str, &str) = ("CHUNK_SIZE", "1048576");
const FILM: (u32, u32) = (90, 3);
/// What is left behind by a move is kept for as long as it is by default: with less, nobody who watches would be in time to
/// hear of it.
const GRACE: (&str, &str) = ("GC_GRACE", "60");
/// For all to have the other form, and for all that is left behind to be gone: well below what a measurement may take.
const TURNED_WITHIN: Duration = Duration::from_secs(1_000);
/// Between two looks at how far it is: to look is work for the service that moves.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// On the way to a form, kills come in so many bursts: what was just killed is to be there again before much goes on.
const BURSTS: u64 = 10;
/// Players while processes are killed, where nobody says how many: they share two processors with all that starts anew.
const WATCHING_KILLS: usize = 5;
/// As many watch while nobody is killed.
const WATCHING: usize = 50;
/// Beside kills, of so many reads one may fail. Of eight processes the last of a burst is killed while those before it
/// start: two nodes fewer are borne, three may be too many for a chunk in shards, and for copies on those three.
const READS_FOR_A_FAILED_ONE: usize = 10;
/// It is read for so long once all who were killed are there again, and everything is settled.
const READ_AFTER: Duration = Duration::from_secs(5);

/// Uploads until so many chunks are there that may be shards.
fn fill(filled: &mut Filled, wanted: u64) -> Library {
    let mut stored = 0;
    while stored < wanted {
        filled.upload();
        let manifest = filled.manifest(filled.videos.last().unwrap());
        let chunks = manifest["chunks"].as_array().unwrap().iter();
        let is_large = |chunk: &&serde_json::Value| chunk["size_bytes"].as_u64() >= Some(CODED_BYTES_MIN as u64);
        stored += chunks.filter(is_large).count() as u64;
    }
    Library::of(filled)
}

/// Follows how many chunks were brought into another form, from the last look before the first of them on.
struct Turned {
    before: (Instant, u64),
    last: Option<(Instant, u64)>,
}

impl Turned {
    /// A look that was begun then.
    fn note(&mut self, asked: Instant, turned: u64) {
        let known = self.last.map_or(self.before.1, |(_, turned)| turned);
        if turned > known {
            self.last = Some((Instant::now(), turned));
        } else if self.last.is_none() {
            self.before = (asked, turned);
        }
    }
}

/// All films are brought into one form.
struct Turn {
    mode: RedundancyMode,
    /// What was read until everything was settled.
    all: Seen,
    /// Of that, what began while chunks were brought into the form.
    meanwhile: Seen,
    /// How long that took.
    took: Duration,
    /// Until everything was settled.
    settled: Duration,
    /// Reads for which the manifest at hand was too old.
    elsewhere: usize,
}

impl Turn {
    fn make(library: &Library, readers: &Readers, elsewhere: &AtomicUsize, mode: RedundancyMode) -> Self {
        let asked = vec![mode; library.films()];
        let mut settling = library.settling(&asked);
        let mut turned = Turned {
            before: (Instant::now(), library.turned()),
            last: None,
        };
        let began = Instant::now();
        elsewhere.store(0, Ordering::Relaxed);
        let (mut is_asked, mut next_look) = (false, began);
        let all = readers.measure_until(|| {
            if !is_asked {
                library.ask(&asked);
                is_asked = true;
            }
            if Instant::now() < next_look {
                return false;
            }
            let look = Instant::now();
            next_look = look + LOOK_EVERY;
            let looked = settling.look();
            if let Some(count) = settling.turned() {
                turned.note(look, count);
            }
            if let Err(seen) = &looked {
                assert!(
                    began.elapsed() < TURNED_WITHIN,
                    "waited {TURNED_WITHIN:?} in vain for all films to be {}: {seen}",
                    mode.as_str()
                );
            }
            looked.is_ok()
        });
        let (ended, _) = turned.last.expect("there was much to do");
        let (first, _) = turned.before;
        Self {
            mode,
            meanwhile: all.between(first, ended),
            all,
            took: ended - first,
            settled: began.elapsed(),
            elsewhere: elsewhere.load(Ordering::Relaxed),
        }
    }

    fn tell(&self, library: &Library) {
        let (seconds, stored) = (self.took.as_secs_f64(), library.placed_bytes(self.mode));
        println!(
            "to {}: {} chunks in {:.1?}, {:.1} MB/s of films, {:.1} MB/s stored anew; settled after {:.1?}",
            self.mode.as_str(),
            library.chunks(),
            self.took,
            library.bytes() as f64 / 1e6 / seconds,
            stored as f64 / 1e6 / seconds,
            self.settled
        );
        println!(
            "  meanwhile {}; until it was settled {} in all, {} of them hashed twice, {} by a newer manifest, {} failed",
            self.meanwhile.spread(),
            self.all.count(),
            self.all.hashed,
            self.elsewhere,
            self.all.failed
        );
    }

    fn was_not_noticed(&self, before: &Seen) {
        let mode = self.mode.as_str();
        assert_eq!(self.all.failed, 0, "to {mode}");
        // What is moved is kept where it was for longer than a manifest gets old.
        assert_eq!(self.elsewhere, 0, "reads by a newer manifest, to {mode}");
        assert!(
            before.count().min(self.meanwhile.count()) >= P99_READS_MIN,
            "{} reads before and {} on the way to {mode} say little of a p99: store more with VSTACK_HEAL_CHUNKS",
            before.count(),
            self.meanwhile.count()
        );
        assert!(
            self.meanwhile.p99() <= before.p99() * 2,
            "p99 {:?} before, {:?} on the way to {mode}",
            before.p99(),
            self.meanwhile.p99()
        );
    }
}

#[test]
#[ignore = "long: make soak"]
fn a_thousand_chunks_move_each_way_while_people_watch() {
    let settings: Vec<_> = SETTINGS.into_iter().chain([CUT, GRACE]).collect();
    let cluster = Cluster::start_with(&["--nodes", &NODES.to_string(), "--no-restart"], &settings);
    let mut filled = Filled::nothing_yet(cluster, FILM.0, FILM.1);
    let library = fill(&mut filled, number("VSTACK_HEAL_CHUNKS", 1_000));
    filled.is_healthy();
    let watching: usize = number("VSTACK_HEAL_PLAYERS", WATCHING);
    println!("{}, {watching} players", library.in_words());
    let players = Players::start(&filled.cluster, &filled.videos, watching);
    let (readers, elsewhere) = library.readers();
    players.wait_playing();
    let before = readers.measure(BASELINE);
    println!(
        "the same {SAMPLE} chunks read as players read them, at rest as copies: {}, {} failed",
        before.spread(),
        before.failed
    );
    let to_shards = Turn::make(&library, &readers, &elsewhere, RedundancyMode::ErasureCoding);
    to_shards.tell(&library);
    let between = readers.measure(BASELINE);
    println!("at rest as shards: {}, {} failed", between.spread(), between.failed);
    let to_copies = Turn::make(&library, &readers, &elsewhere, RedundancyMode::Replication);
    to_copies.tell(&library);
    let after = readers.stop();
    let played = players.stop();
    println!("{} films played to their end, {} stalls", played.films, played.stalls);
    assert_eq!(
        before.failed + between.failed + after.failed,
        0,
        "while nothing was moved"
    );
    to_shards.was_not_noticed(&before);
    to_copies.was_not_noticed(&before);
    assert!(played.films >= watching as u64, "{} films beside it", played.films);
    assert_eq!(played.stalls, 0);
    let read = library.read_all();
    println!("each of {read} chunks and init segments read once more: all as they were uploaded");
    filled.all_can_be_had();
}

/// Which film is asked for in which form: half of them in the one and half in the other, each time the other half.
fn forms(films: usize, turn: usize) -> Vec<RedundancyMode> {
    let form = |film: usize| match (film + turn) % 2 {
        0 => RedundancyMode::ErasureCoding,
        _ => RedundancyMode::Replication,
    };
    (0..films).map(form).collect()
}

/// Somebody who kills, by a seed.
struct Killer<'a, V> {
    filled: &'a Filled,
    /// Who is next, after so many.
    victim: V,
    rng: StdRng,
    /// Before each kill, in milliseconds.
    pauses_ms: Range<u64>,
    kills: Kills,
}

impl<V> Killer<'_, V> {
    fn killed(&self) -> u64 {
        self.kills.count() as u64
    }
}

impl<V: Fn(u64, &mut StdRng) -> String> Killer<'_, V> {
    /// Kills so many more.
    fn kill(&mut self, count: u64, when: &str) {
        let until = self.killed() + count;
        while self.killed() < until {
            let moment = Instant::now() + Duration::from_millis(self.rng.random_range(self.pauses_ms.clone()));
            wait_at_most(Duration::from_secs(60), "the moment", || {
                (Instant::now() >= moment).then_some(())
            });
            let victim = (self.victim)(self.killed(), &mut self.rng);
            // Before it is: what ends as it dies may be what it was asked for.
            let now = Instant::now();
            if self.filled.cluster.kill(&victim) {
                self.kills.note(now);
                println!("{when}: {victim} is killed, the {}. kill", self.killed());
            }
        }
    }
}

/// Kills while films change their form.
struct Campaign {
    /// Kills while films are asked for one form and the other, some this and some that.
    to_and_fro: u64,
    /// Of them, those after which other forms are asked for.
    turn_every: u64,
    /// Kills after that on the way of all films to shards, and as many on their way back.
    each_way: u64,
    /// Of them, those that come one after the other. Then films go on until as large a part of the way is done.
    burst: u64,
    /// Before each kill, in milliseconds.
    pauses_ms: Range<u64>,
    /// For anything that is waited for.
    limit: Duration,
}

impl Campaign {
    const fn kills(&self) -> u64 {
        self.to_and_fro + 2 * self.each_way
    }

    /// Each turn begins when a chunk is on its way to the form that is asked for, so that the kills hit some. Gives what is
    /// asked for last.
    fn turn_to_and_fro<V>(
        &self,
        library: &Library,
        killer: &mut Killer<'_, V>,
        changes: &mut Changes,
    ) -> Vec<RedundancyMode>
    where
        V: Fn(u64, &mut StdRng) -> String,
    {
        let mut turns = 0;
        while killer.killed() < self.to_and_fro {
            let asked = forms(library.films(), turns);
            library.ask(&asked);
            library.wait_turning(&asked, changes, self.limit);
            turns += 1;
            let count = self.turn_every.min(self.to_and_fro - killer.killed());
            killer.kill(count, &format!("turn {turns}"));
        }
        forms(library.films(), turns)
    }

    /// Every chunk that may be either goes all the way, and kills come as it goes: none of them at its end.
    fn go_all_the_way<V>(
        &self,
        library: &Library,
        killer: &mut Killer<'_, V>,
        changes: &mut Changes,
        mode: RedundancyMode,
    ) -> Vec<RedundancyMode>
    where
        V: Fn(u64, &mut StdRng) -> String,
    {
        let asked = vec![mode; library.films()];
        let began = Instant::now();
        library.ask(&asked);
        let mut killed = 0;
        while killed < self.each_way {
            let wanted = library.chunks() * killed / self.each_way;
            library.wait_turned(mode, wanted.max(1), changes, self.limit);
            let count = self.burst.min(self.each_way - killed);
            killer.kill(count, &format!("on the way to {}", mode.as_str()));
            killed += count;
        }
        library.wait_turned(mode, library.chunks(), changes, self.limit);
        println!(
            "{} chunks are {} after {:.0?} and {killed} kills",
            library.chunks(),
            mode.as_str(),
            began.elapsed()
        );
        asked
    }

    /// It is read all the while. Of what is kept where somebody was just killed a read may fail: the metadata service may be
    /// the one to ask where a chunk went, and of five nodes three may be starting. None that goes on without a kill before it
    /// may, and of the others few. Never may something else come than was uploaded.
    fn run(&self, filled: &Filled, library: &Library, victim: impl Fn(u64, &mut StdRng) -> String) -> Ran {
        let seed = number("VSTACK_HEAL_SEED", SEED);
        println!("{}; {} kills by seed {seed}", library.in_words(), self.kills());
        let mut killer = Killer {
            filled,
            victim,
            rng: StdRng::seed_from_u64(seed),
            pauses_ms: self.pauses_ms.clone(),
            kills: Kills::default(),
        };
        let mut changes = Changes::default();
        library.note(&mut changes);
        let (readers, _elsewhere) = library.readers();
        let mut asked = self.turn_to_and_fro(library, &mut killer, &mut changes);
        if self.each_way > 0 {
            for mode in [RedundancyMode::ErasureCoding, RedundancyMode::Replication] {
                asked = self.go_all_the_way(library, &mut killer, &mut changes, mode);
            }
        }
        let (killed, kills) = (killer.killed(), killer.kills);
        for name in filled.cluster.names() {
            filled.cluster.wait_up(&name);
        }
        let began = Instant::now();
        library.ask(&asked);
        let census = library.settle(&asked, self.limit);
        let settled = began.elapsed();
        let meanwhile = readers.so_far();
        let after = readers.measure(READ_AFTER);
        let _while_it_stopped = readers.stop();
        let read = library.read_all();
        println!(
            "{killed} kills, {} changes of form seen meanwhile; all settled {settled:.0?} after the last: {} chunks, {} whole, \
             {read} read and as they were uploaded",
            changes.chunks, census.tally.chunks, census.tally.whole
        );
        let without_a_kill = kills.unexcused_reads(&meanwhile);
        println!(
            "meanwhile {}; {} failed, {without_a_kill} of them {RECOVERS_WITHIN:?} or more after the last kill before them, and \
             {} brought something else; once all was settled {} reads, {} failed",
            meanwhile.spread(),
            meanwhile.failed,
            meanwhile.wrong,
            after.count(),
            after.failed
        );
        assert_eq!(
            (meanwhile.wrong, after.wrong),
            (0, 0),
            "something else came than was uploaded"
        );
        assert_eq!(
            without_a_kill, 0,
            "reads failed though nobody had been killed just then"
        );
        let reads = meanwhile.count() + meanwhile.failed;
        assert!(
            meanwhile.count() > 0 && meanwhile.failed * READS_FOR_A_FAILED_ONE <= reads,
            "of {reads} reads {} failed, and of {READS_FOR_A_FAILED_ONE} one may",
            meanwhile.failed
        );
        assert!(
            after.count() > 0 && after.failed == 0,
            "{} failed at rest",
            after.failed
        );
        filled.all_can_be_had();
        Ran { changes, kills }
    }
}

/// A campaign that ended well.
struct Ran {
    /// What was seen to change.
    changes: Changes,
    kills: Kills,
}

/// A quarter of the kills while films go to and fro; the others while a thousand chunks become shards, all of them, and
/// copies again, and a few people watch.
#[test]
#[ignore = "long: make soak"]
fn two_hundred_kills_while_films_change_their_form() {
    let settings: Vec<_> = SETTINGS.into_iter().chain([CUT]).collect();
    let cluster = Cluster::start_with(&["--nodes", &NODES.to_string()], &settings);
    let mut filled = Filled::nothing_yet(cluster, FILM.0, FILM.1);
    let library = fill(&mut filled, number("VSTACK_HEAL_CHUNKS", 1_000));
    filled.is_healthy();
    let names = filled.cluster.names();
    let kills: u64 = number("VSTACK_HEAL_KILLS", 200);
    let each_way = (kills * 3 / 8).max(1);
    let campaign = Campaign {
        to_and_fro: kills.saturating_sub(2 * each_way),
        turn_every: 5,
        each_way,
        burst: each_way.div_ceil(BURSTS).max(1),
        pauses_ms: 50..2_000,
        limit: HEALS_WITHIN,
    };
    let watching: usize = number("VSTACK_HEAL_PLAYERS", WATCHING_KILLS);
    let players = Players::start_as(&filled.cluster, &filled.videos, watching, BreakingOff::IsCounted);
    players.wait_playing();
    let Ran { changes, kills } = campaign.run(&filled, &library, |_, rng| names.choose(rng).unwrap().clone());
    let played = players.stop();
    let unexcused = kills.unexcused_films(&played);
    println!(
        "{watching} players of the {WATCHING} that VSTACK_HEAL_PLAYERS={WATCHING} asks for: {} films played to their end, {} \
         stalls, {} broken off, {} of it without a kill",
        played.films,
        played.stalls,
        played.broken_off,
        unexcused.len()
    );
    assert!(unexcused.is_empty(), "{unexcused:?}");
    // All of them, there and back.
    assert!(
        changes.chunks >= 2 * library.chunks(),
        "beside {} kills only {} changes of form of {} chunks",
        kills.count(),
        changes.chunks,
        library.chunks()
    );
    assert!(
        played.films >= watching as u64 && played.films > played.broken_off,
        "hardly anything could be watched: {played:?}"
    );
}

#[test]
fn films_change_their_form_though_processes_are_killed() {
    // A second of film a chunk; and slowly, so that some are on their way when somebody is killed.
    let changed = [("CHUNK_SIZE", "600000"), ("MIGRATION_RATE", "5000000")];
    let settings: Vec<_> = SETTINGS.into_iter().chain(QUICK).chain(changed).collect();
    let cluster = Cluster::start_with(&["--nodes", &NODES.to_string()], &settings);
    let mut filled = Filled::nothing_yet(cluster, 11, 4);
    let library = fill(&mut filled, 20);
    let campaign = Campaign {
        to_and_fro: 3,
        turn_every: 1,
        each_way: 0,
        burst: 1,
        pauses_ms: 20..500,
        limit: QUICKLY,
    };
    // The metadata service first: what it did not hear then is only looked into half a minute later.
    campaign.run(&filled, &library, |kill, rng| match kill {
        0 => "metadata".to_owned(),
        _ => format!("storage-node-{}", rng.random_range(1..=NODES)),
    });
}
