//! Asking for a form of a video, and waiting until every chunk has it.

use std::{process::ExitCode, time::Duration};

use anyhow::bail;
use serde::Serialize;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use vstack_api::{
    ErrorCode, WallTime,
    census::Census,
    metadata::RedundancyMode,
    redundancy::{KeepingOfVideo, Migration, OverrideSet, VideoKeeping},
};
use vstack_client::MetadataClient;
use vstack_types::VideoId;

use super::{Options, hinted, words};
use crate::{
    commands::waiting::{CENSUSES_BEFORE, Outcome, SAY_EVERY, until},
    output::{self, say},
};

/// Who decides how a video is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Wish {
    /// As whole copies, whatever its views.
    Replication,
    /// As Reed-Solomon shards, whatever its views.
    ErasureCoding,
    /// As the policy decides.
    Policy,
}

impl Wish {
    /// What is asked for by hand.
    const fn mode(self) -> Option<RedundancyMode> {
        match self {
            Self::Replication => Some(RedundancyMode::Replication),
            Self::ErasureCoding => Some(RedundancyMode::ErasureCoding),
            Self::Policy => None,
        }
    }

    /// Whether what is decided of a video follows from it.
    fn is_decided(self, keeping: &VideoKeeping) -> bool {
        let is_by_hand = keeping.why == "asked";
        self.mode()
            .map_or(!is_by_hand, |mode| is_by_hand && keeping.mode == mode)
    }
}

/// For so long a video that is waited for may be decided nothing about: a service that restarted has to look first.
const MISSED_MAX: Duration = Duration::from_secs(30);

const PAUSED: &str = "nothing is brought into another form until `vstack redundancy --resume`";
const REPAIRS_OFF: &str = "the metadata service runs with REPAIRS=false: nothing is brought into another form";

/// What was answered, and whether it is as was asked for by now.
#[derive(Debug, Serialize)]
struct Told<'a> {
    #[serde(flatten)]
    answer: &'a OverrideSet,
    finished: bool,
    /// What to know about it, for people.
    warnings: &'a [&'static str],
    /// As it was seen last, if it was waited for.
    #[serde(skip_serializing_if = "Option::is_none")]
    keeping: Option<&'a VideoKeeping>,
}

/// Asks for a form of a video, and waits until it has it where somebody wants to.
pub async fn ask(
    metadata: &MetadataClient,
    options: &Options,
    (video, wish): (VideoId, Wish),
    stop: &CancellationToken,
) -> anyhow::Result<ExitCode> {
    let asked = async {
        match wish.mode() {
            Some(mode) => metadata.set_override(video, mode).await,
            None => metadata.clear_override(video).await,
        }
    };
    let Some(answer) = stop.run_until_cancelled(asked).await else {
        say!("interrupted: whether that was asked for is not known; again does no harm");
        return Ok(ExitCode::FAILURE);
    };
    let answer = answer.map_err(hinted)?;
    if !options.json {
        say!("{}", what_follows(video, wish));
    }
    let warnings = stop.run_until_cancelled(warnings(metadata)).await.unwrap_or_default();
    for warning in &warnings {
        say!("warning: {warning}");
    }
    let mut looks = Looks {
        held_up: warnings.contains(&PAUSED).then(|| PAUSED.to_owned()),
        ..Looks::default()
    };
    let outcome = if options.wait {
        say!("Ctrl-C stops waiting, not that");
        until(stop, async || is_so(metadata, options, (video, wish), &mut looks).await).await?
    } else {
        Outcome::NotAwaited
    };
    if options.json {
        output::json(&Told {
            answer: &answer,
            finished: outcome == Outcome::Finished,
            warnings: &warnings,
            keeping: looks.keeping.as_ref(),
        })?;
        return Ok(ExitCode::SUCCESS);
    }
    match (outcome, &looks.keeping) {
        (Outcome::Finished, Some(keeping)) => say!("{}", words::ended(keeping)),
        (Outcome::Finished, None) => say!("{video} is kept so"),
        (Outcome::Stopped, _) => say!("not waited for any longer; it goes on in the background"),
        (Outcome::NotAwaited, _) => say!("`vstack redundancy {video}` shows how far that is"),
    }
    Ok(ExitCode::SUCCESS)
}

fn what_follows(video: VideoId, wish: Wish) -> String {
    match wish {
        Wish::Replication => {
            format!("{video} is to be kept as copies, whatever its views; what of it is shards is made copies again")
        }
        Wish::ErasureCoding => format!(
            "{video} is to be kept as shards, whatever its views; its chunks are made shards, but for its beginning \
             and what is small"
        ),
        Wish::Policy => {
            format!("the policy decides about {video} again; what of it has another form then is made anew")
        }
    }
}

/// Why nothing may come of it for now. None where that is not known.
async fn warnings(metadata: &MetadataClient) -> Vec<&'static str> {
    let is_paused = metadata.keepings(0, 0).await.is_ok_and(|all| all.migration.paused);
    let is_off = metadata.repairs().await.is_ok_and(|repairs| !repairs.enabled);
    let paused = is_paused.then_some(PAUSED);
    paused.into_iter().chain(is_off.then_some(REPAIRS_OFF)).collect()
}

/// What was seen while it was waited, and what was said about it.
#[derive(Debug, Default)]
struct Looks {
    keeping: Option<VideoKeeping>,
    /// What is asked for was decided.
    is_decided: bool,
    last: Option<WallTime>,
    /// Censuses that were seen since.
    made_since: u32,
    missed_since: Option<Instant>,
    said_at: Option<Instant>,
    /// Why nothing comes of it for now.
    held_up: Option<String>,
}

/// Whether every chunk has the form that is asked for, by a census that began later than it was decided.
async fn is_so(
    metadata: &MetadataClient,
    options: &Options,
    (video, wish): (VideoId, Wish),
    looks: &mut Looks,
) -> anyhow::Result<bool> {
    // Asked for first: what is told of the video after it is no older.
    let census = metadata.census().await?;
    let KeepingOfVideo { keeping, migration } = match metadata.keeping_of(video).await {
        Ok(told) => told,
        Err(error) if error.code() == Some(ErrorCode::NotFound) => return looks.miss(video),
        Err(error) => return Err(error.into()),
    };
    if keeping.override_mode != wish.mode() {
        let other = keeping.override_mode.map_or("the policy", words::form);
        bail!("somebody chose {other} meanwhile; `vstack redundancy {video}` shows how it is kept now");
    }
    let is_so = looks.note(wish, &keeping, &census);
    if !is_so && looks.is_counted() && !metadata.repairs().await?.enabled {
        // What would be waited for for ever is refused.
        bail!("{REPAIRS_OFF}; it is noted, and done when the service runs without it");
    }
    if !is_so && !options.json {
        looks.say(&keeping, &migration);
    }
    looks.keeping = Some(keeping);
    Ok(is_so)
}

impl Looks {
    /// The video is not among those about which something is decided.
    fn miss(&mut self, video: VideoId) -> anyhow::Result<bool> {
        self.forget();
        let since = *self.missed_since.get_or_insert_with(Instant::now);
        if since.elapsed() > MISSED_MAX {
            bail!(
                "nothing is decided about {video}: it is not whole, or was deleted; `vstack ls --status deleted` lists \
                 what can be restored"
            );
        }
        Ok(false)
    }

    fn forget(&mut self) {
        self.is_decided = false;
        self.made_since = 0;
    }

    /// A census that began later than it was decided was seen.
    const fn is_counted(&self) -> bool {
        self.made_since > CENSUSES_BEFORE
    }

    /// Whether every chunk has that form.
    fn note(&mut self, wish: Wish, keeping: &VideoKeeping, census: &Census) -> bool {
        self.missed_since = None;
        if !wish.is_decided(keeping) {
            self.forget();
            return false;
        }
        // Before everything was learned, no row says what is placed there, and each answer is of another time.
        let is_learned = census.nodes.iter().any(|row| row.placed.is_some());
        if !self.is_decided {
            // This census was asked for before that was seen.
            self.is_decided = true;
        } else if is_learned && self.last != Some(census.at) {
            self.last = Some(census.at);
            self.made_since += 1;
        }
        let is_known = is_learned && words::chunks_of(keeping) > 0;
        is_known && self.is_counted() && keeping.waiting_chunks == 0
    }

    /// Says what is left now and then, and what holds it up when that is news.
    fn say(&mut self, keeping: &VideoKeeping, migration: &Migration) {
        if self.said_at.is_none_or(|at| at.elapsed() >= SAY_EVERY) {
            self.said_at = Some(Instant::now());
            say!("{}", what_is_left(keeping));
        }
        let held_up = held_up(keeping, migration);
        if self.held_up != held_up {
            if let Some(why) = &held_up {
                say!("waits: {why}");
            }
            self.held_up = held_up;
        }
    }
}

fn what_is_left(keeping: &VideoKeeping) -> String {
    if keeping.waiting_chunks == 0 {
        return "what is stored is counted again".to_owned();
    }
    format!(
        "{} of {} are still to be made {} ({})",
        keeping.waiting_chunks,
        words::chunks(words::chunks_of(keeping)),
        words::form(keeping.mode),
        output::bytes(keeping.waiting_bytes),
    )
}

/// What somebody has to do something about, as far as it is known. It may be about chunks of others, too.
fn held_up(keeping: &VideoKeeping, migration: &Migration) -> Option<String> {
    if keeping.waiting_chunks == 0 {
        None
    } else if migration.paused {
        Some(PAUSED.to_owned())
    } else {
        migration.refused.as_deref().map(output::plain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VIDEO: &str = "0190a5c4-7b1e-7d61-8f2e-5d3b6a9c1e47";

    fn keeping(mode: &str, why: &str, waiting: u64) -> VideoKeeping {
        serde_json::from_value(serde_json::json!({
            "video_id": VIDEO, "title": "t", "view_count": 0, "mode": mode,
            "override_mode": (why == "asked").then_some(mode), "why": why, "since": "2026-01-02T03:04:05Z",
            "replicated_chunks": 1 + waiting, "coded_chunks": 9 - waiting, "waiting_chunks": waiting,
            "waiting_bytes": waiting * 1_000_000, "logical_bytes": 1, "placed_bytes": 3, "failures_survived": 2,
        }))
        .expect("a keeping")
    }

    fn census(second: u32, placed: Option<u64>) -> Census {
        serde_json::from_value(serde_json::json!({
            "health": "healthy", "complete": true, "at": format!("2026-01-02T03:04:{second:02}Z"), "waits": [],
            "zones": null, "tally": vstack_api::census::Tally::default(), "videos": [], "videos_not_whole": 0,
            "nodes": [{
                "node": "n", "counted_at": null, "items": 0, "placed": placed, "placed_bytes": 0, "orphans": 0,
                "trouble": null, "stays_because": null,
            }],
            "orphans": [], "processor_percent": 0.0,
        }))
        .expect("a census")
    }

    #[test]
    fn what_is_asked_for_is_decided_when_the_reason_says_so() {
        let (shards, copies) = (
            keeping("erasure_coding", "asked", 0),
            keeping("replication", "asked", 0),
        );
        let cold = keeping("erasure_coding", "cold", 0);
        for (wish, keeping, expected) in [
            (Wish::ErasureCoding, &shards, true),
            (Wish::ErasureCoding, &copies, false),
            // It is so, and would not stay so.
            (Wish::ErasureCoding, &cold, false),
            (Wish::Replication, &copies, true),
            (Wish::Policy, &cold, true),
            (Wish::Policy, &shards, false),
        ] {
            assert_eq!(wish.is_decided(keeping), expected, "{wish:?} {}", keeping.why);
        }
    }

    #[test]
    fn only_a_census_that_began_after_the_decision_counts() {
        let (old, done) = (keeping("replication", "new", 0), keeping("erasure_coding", "asked", 0));
        let mut looks = Looks::default();
        let mut note =
            |keeping: &VideoKeeping, second, placed| looks.note(Wish::ErasureCoding, keeping, &census(second, placed));
        assert!(!note(&old, 1, Some(1)));
        // The first census after that may have been made before, and the second may have begun before.
        for second in [1, 2, 2, 3] {
            assert!(!note(&done, second, Some(1)), "{second}");
        }
        assert!(!note(&keeping("erasure_coding", "asked", 3), 4, Some(1)));
        assert!(note(&done, 4, Some(1)));
        // The service restarted, and has learned nothing yet.
        assert!(!note(&done, 5, None));
        // Somebody was faster.
        assert!(!note(&old, 6, Some(1)));
        assert!(!note(&done, 7, Some(1)));
    }

    #[test]
    fn it_is_said_what_is_left_and_what_holds_it_up() {
        let left = keeping("erasure_coding", "asked", 3);
        assert_eq!(
            what_is_left(&left),
            "3 of 10 chunks are still to be made shards (3.0 MB)"
        );
        let done = keeping("erasure_coding", "asked", 0);
        assert_eq!(what_is_left(&done), "what is stored is counted again");
        let migration = |paused: bool| Migration {
            paused,
            refused: Some("too few nodes".to_owned()),
            ..Migration::default()
        };
        assert_eq!(held_up(&left, &migration(true)).as_deref(), Some(PAUSED));
        assert_eq!(held_up(&left, &migration(false)).as_deref(), Some("too few nodes"));
        assert_eq!(held_up(&done, &migration(true)), None);
    }
}
