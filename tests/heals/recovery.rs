//! Kills of processes, and what may fail because of one: what goes on while who was killed is not there again.

use std::time::{Duration, Instant};

use crate::{
    load::Seen,
    players::{Disturbed, How, Played},
};

/// For who was killed to do its work again. Who died often is left alone for up to ten seconds before it is started
/// (`RESTART_PAUSE` of the supervisor), and as long again is for it to read its log and be heard of, beside others that do
/// the same.
pub const RECOVERS_WITHIN: Duration = Duration::from_secs(20);
/// A player tries for so long to get a chunk, and then gives up: what keeps it from it began before.
const GIVES_UP_AFTER: Duration = Duration::from_secs(30);

/// When somebody was killed.
#[derive(Debug, Default, Clone)]
pub struct Kills(Vec<Instant>);

impl Kills {
    /// Somebody was killed then.
    pub fn note(&mut self, at: Instant) {
        self.0.push(at);
    }

    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Kills from which something may suffer that went on between these moments.
    fn felt(&self, began: Instant, ended: Instant) -> usize {
        let is_felt = |kill: &&Instant| **kill <= ended && began <= **kill + RECOVERS_WITHIN;
        self.0.iter().filter(is_felt).count()
    }

    /// Of the reads that failed, those that no kill excuses.
    pub fn unexcused_reads(&self, seen: &Seen) -> usize {
        let is_alone = |(began, ended): &&(Instant, Instant)| self.felt(*began, *ended) == 0;
        seen.failures().iter().filter(is_alone).count()
    }

    /// What players saw that no kill excuses: films that broke off though nobody had been killed just before, or stalled more
    /// often than somebody was killed.
    pub fn unexcused_films<'a>(&self, played: &'a Played) -> Vec<&'a Disturbed> {
        let is_alone = |film: &&Disturbed| match film.how {
            How::Stalled(stalls) => stalls > self.felt(film.began, film.ended) as u64,
            How::BrokeOff => {
                let since = film.began.max(film.ended - GIVES_UP_AFTER);
                self.felt(since, film.ended) == 0
            }
        };
        played.disturbed.iter().filter(is_alone).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn only_what_goes_on_beside_a_kill_may_suffer_from_it() {
        let kill = Instant::now() + 1_000 * SECOND;
        let kills = Kills(vec![kill, kill + 5 * SECOND]);
        assert_eq!(kills.count(), 2);
        assert_eq!(kills.felt(kill - 9 * SECOND, kill - SECOND), 0, "it was over before");
        assert_eq!(kills.felt(kill - SECOND, kill + SECOND), 1);
        assert_eq!(kills.felt(kill + 6 * SECOND, kill + 7 * SECOND), 2);
        let (first_is_back, later) = (kill + RECOVERS_WITHIN + SECOND, kill + 60 * SECOND);
        assert_eq!(kills.felt(first_is_back, later), 1);
        assert_eq!(kills.felt(first_is_back + 5 * SECOND, later), 0, "both are there again");
    }

    #[test]
    fn only_kills_excuse_what_players_see() {
        let kill = Instant::now() + 1_000 * SECOND;
        let kills = Kills(vec![kill]);
        let film = |began: Instant, how: How| Disturbed {
            began,
            ended: began + 90 * SECOND,
            how,
        };
        let later = kill + RECOVERS_WITHIN + SECOND;
        let played = Played {
            disturbed: vec![
                film(kill, How::Stalled(1)),
                film(kill, How::Stalled(2)),
                film(later, How::Stalled(1)),
                film(kill - 80 * SECOND, How::BrokeOff),
                // Long after the kill.
                film(kill, How::BrokeOff),
            ],
            ..Played::default()
        };
        let unexcused: Vec<How> = kills.unexcused_films(&played).iter().map(|film| film.how).collect();
        assert_eq!(unexcused, [How::Stalled(2), How::Stalled(1), How::BrokeOff]);
    }
}
