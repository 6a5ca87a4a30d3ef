//! People who watch while a test does something else.

use std::{
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    harness::{Cluster, try_http, vstack, wait_at_most},
    load::{PATIENCE, Until},
};

/// Of films that are watched. People come one after the other: who all began at once would also fill their buffers at
/// once, again with every film, and what is measured would be that.
const FILM_LENGTH: Duration = Duration::from_secs(90);
/// Between a film that broke off and the next.
const PLAYED_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// Of what a player says that ends with an error: its status block, and why.
const LINES_TOLD: usize = 20;

/// Players that play in real time, each by itself, one film after the other.
pub struct Players {
    until: Until,
    threads: Vec<JoinHandle<Played>>,
    metadata: String,
}

/// What players saw.
#[derive(Debug, Default)]
pub struct Played {
    /// Films, each to its end.
    pub films: u64,
    /// How often one had to wait.
    pub stalls: u64,
    /// Films that ended before their end.
    pub broken_off: u64,
    /// Those that were not played as they are to be: with stalls, or not to their end.
    pub disturbed: Vec<Disturbed>,
}

/// A film that was not played as it is to be.
#[derive(Debug, Clone, Copy)]
pub struct Disturbed {
    pub began: Instant,
    pub ended: Instant,
    pub how: How,
}

/// What was amiss.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// So often somebody had to wait.
    Stalled(u64),
    BrokeOff,
}

impl Played {
    fn note(&mut self, began: Instant, how: How) {
        match how {
            How::Stalled(stalls) => self.stalls += stalls,
            How::BrokeOff => self.broken_off += 1,
        }
        self.disturbed.push(Disturbed {
            began,
            ended: Instant::now(),
            how,
        });
    }
}

/// What it means that a film ends before its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakingOff {
    /// The test fails.
    Fails,
    /// What it needed may have been killed just then: it is counted, and another film is played.
    IsCounted,
}

/// The last lines of what a player said.
fn last_lines(said: &[u8]) -> String {
    let said = String::from_utf8_lossy(said);
    let lines: Vec<&str> = said.lines().collect();
    lines[lines.len().saturating_sub(LINES_TOLD)..].join("\n")
}

/// Plays `films` until it is told to stop, and the one that it is at to its end.
fn play_on<'a>(
    metadata: &str,
    films: impl Iterator<Item = &'a String>,
    breaking_off: BreakingOff,
    stop: &AtomicBool,
) -> Played {
    let mut played = Played::default();
    for film in films {
        let began = Instant::now();
        let output = Command::new(vstack())
            .args(["play", film, "--json", "--output", "/dev/null"])
            .env("METADATA_SERVICE_URL", metadata)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .output()
            .unwrap();
        if output.status.success() {
            let report: Value = serde_json::from_slice(&output.stdout).unwrap();
            played.films += 1;
            let stalls = report["buffer_stats"]["rebuffering_events"].as_u64().unwrap();
            if stalls > 0 {
                played.note(began, How::Stalled(stalls));
            }
        } else {
            assert_eq!(
                breaking_off,
                BreakingOff::IsCounted,
                "a player of {film} ended with {}; the last it said:\n{}",
                output.status,
                last_lines(&output.stderr)
            );
            played.note(began, How::BrokeOff);
            // Somebody who is told that it does not play now.
            std::thread::sleep(PLAYED_AGAIN_AFTER);
        }
        if stop.load(Ordering::Relaxed) {
            break;
        }
    }
    played
}

impl Players {
    pub fn start(cluster: &Cluster, videos: &[String], count: usize) -> Self {
        Self::start_as(cluster, videos, count, BreakingOff::Fails)
    }

    pub fn start_as(cluster: &Cluster, videos: &[String], count: usize, breaking_off: BreakingOff) -> Self {
        let until = Until::default();
        let began = Instant::now();
        let player = |first: usize| {
            let (stop, videos, metadata) = (until.told(), videos.to_vec(), cluster.url("metadata"));
            let begins = began + FILM_LENGTH * u32::try_from(first).unwrap() / u32::try_from(count).unwrap();
            std::thread::spawn(move || {
                wait_at_most(PATIENCE, "the next to begin", || {
                    (Instant::now() >= begins || stop.load(Ordering::Relaxed)).then_some(())
                });
                play_on(&metadata, videos.iter().cycle().skip(first), breaking_off, &stop)
            })
        };
        let threads = (0..count).map(player).collect();
        Self {
            until,
            threads,
            metadata: cluster.url("metadata"),
        }
    }

    /// Waits until all have begun: each counts as a view.
    pub fn wait_playing(&self) {
        wait_at_most(PATIENCE, "everybody to watch", || {
            // One that is busy for a moment is asked again.
            let url = format!("{}/videos?limit=1000", self.metadata);
            let answer = try_http("GET", &url, |request| request).ok()?;
            let videos = (answer.status == 200).then(|| answer.json())?;
            let views = videos
                .as_array()?
                .iter()
                .filter_map(|video| video["view_count"].as_u64());
            (views.sum::<u64>() >= self.threads.len() as u64).then_some(())
        });
    }

    /// Waits until each is at the end of the film that it plays.
    pub fn stop(self) -> Played {
        drop(self.until);
        let ended = self.threads.into_iter().map(|thread| thread.join().unwrap());
        ended.fold(Played::default(), |all, one| Played {
            films: all.films + one.films,
            stalls: all.stalls + one.stalls,
            broken_off: all.broken_off + one.broken_off,
            disturbed: [all.disturbed, one.disturbed].concat(),
        })
    }
}
