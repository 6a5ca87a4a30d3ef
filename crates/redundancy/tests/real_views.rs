//! The policies on views that real videos had: what is kept as copies should be what is watched next week.

use std::{path::Path, time::Duration};

use vstack_redundancy::{Adaptive, Changed, Heat, Policy as _, Seen, Threshold};
use vstack_types::Timestamp;

const DAY_MS: i64 = 86_400_000;
/// Of 22 days there are, the last week is what is to be foretold.
const DAYS: usize = 15;

/// Views up to each day.
fn videos(csv: &str) -> Vec<Vec<u64>> {
    let row = |line: &str| {
        line.split(',')
            .skip(1)
            .map(|cell| cell.parse().ok())
            .collect::<Option<Vec<u64>>>()
    };
    let all = csv.lines().skip(1).filter_map(row);
    all.filter(|days| days.len() == 22 && days.is_sorted()).collect()
}

fn seen(days: &[u64]) -> Seen {
    let at = |day: usize| Timestamp(1_700_000_000_000 + i64::try_from(day).expect("few") * DAY_MS);
    let mut heat = Heat::default().at(at(0));
    let mut before = 0;
    for (day, views) in days.iter().enumerate().take(DAYS) {
        // Over the day, hour by hour: they do not come at midnight.
        for hour in 0..24 {
            let now = Timestamp(at(day).0 + hour * DAY_MS / 24);
            let share = (views - before) / 24;
            heat = heat.with(share, now);
        }
        before = *views;
    }
    Seen {
        age: Duration::from_secs(86_400) * u32::try_from(DAYS).expect("few"),
        views: days[DAYS - 1],
        heat: heat.at(at(DAYS)),
        changed: Changed::default(),
    }
}

/// Of the tenth that is watched most in the week after, the part that is in the tenth that scores most.
fn recall(videos: &[Vec<u64>], score: impl Fn(&Seen) -> f64) -> f64 {
    let tenth = videos.len() / 10;
    let mut next: Vec<usize> = (0..videos.len()).collect();
    next.sort_by_key(|video| std::cmp::Reverse(videos[*video][21] - videos[*video][DAYS - 1]));
    let scores: Vec<f64> = videos.iter().map(|days| score(&seen(days))).collect();
    let mut best: Vec<usize> = (0..videos.len()).collect();
    best.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
    let found = next[..tenth]
        .iter()
        .filter(|video| best[..tenth].contains(video))
        .count();
    found as f64 / tenth as f64
}

#[test]
fn the_adaptive_policy_foretells_the_next_week_better_than_all_views_do() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../../shared/traces/popularity/youtube_daily_cumulative_views.csv");
    let Ok(csv) = std::fs::read_to_string(&path) else {
        eprintln!("SKIPPED: no views of real videos in {}", path.display());
        return;
    };
    let videos = videos(&csv);
    assert!(videos.len() > 1_000, "{} videos", videos.len());
    let by_all = recall(&videos, |seen| Threshold.score(seen));
    let foretold = recall(&videos, |seen| Adaptive.score(seen));
    println!(
        "of next week's top tenth of {} videos: {by_all:.3} by all views, {foretold:.3} foretold",
        videos.len()
    );
    assert!(foretold > 0.85, "{foretold:.3}");
    assert!(foretold > by_all + 0.1, "{foretold:.3} and {by_all:.3}");
}
