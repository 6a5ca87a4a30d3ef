//! How videos are kept, in words and tables for people.

use std::cmp::Ordering;

use comfy_table::Table;
use vstack_api::{
    metadata::{RedundancyConfig, RedundancyMode},
    redundancy::{Efficiency, Keepings, Migration, ModeFigures, Recommendation, VideoKeeping},
};

use super::{One, Overview};
use crate::{
    commands::survival::lost_nodes,
    output::{self, bytes, plain},
};

const REPAIRS_OFF: &str = "repairs are switched off by REPAIRS=false: nothing is brought into another form either";

/// Everything.
pub fn all(told: &Overview) -> String {
    let Keepings {
        videos,
        total,
        migration,
        ..
    } = &told.keepings;
    let mut rules = vec![policy(&told.keepings, &told.config)];
    rules.extend(progress(migration));
    if told.repairs_enabled == Some(false) {
        rules.push(REPAIRS_OFF.to_owned());
    }
    let mut parts = vec![
        stored(&told.report.efficiency, told.config.replication_factor),
        forms(told).to_string(),
        rules.join("\n"),
    ];
    if *total == 0 {
        parts.push("no video is whole, or none was looked at since the service started".to_owned());
    } else {
        parts.push(table(videos).to_string());
    }
    let untold = total.saturating_sub(videos.len() as u64);
    if untold > 0 {
        parts.push(format!("and {untold} more; `--limit {total}` lists them all"));
    }
    parts.join("\n\n")
}

/// One video.
pub fn one(told: &One) -> String {
    let One {
        keeping,
        recommendation,
        migration,
    } = told;
    let form = form(keeping.mode);
    let kept = if keeping.waiting_chunks == 0 {
        "kept"
    } else {
        "to be kept"
    };
    let asked = if keeping.override_mode.is_some() {
        "asked for by hand; `--set policy` leaves it to the policy again"
    } else {
        "left to the policy; `--set replication` or `--set erasure_coding` asks for a form"
    };
    let mut lines = vec![
        format!("{}  {}", keeping.video_id, plain(&keeping.title)),
        format!("{kept} as {form} since {}: {}", keeping.since, why(&keeping.why)),
        asked.to_owned(),
        format!("chunks: {}", chunks_in_words(keeping)),
        format!("bytes: {}", bytes_in_words(keeping)),
        match keeping.failures_survived {
            Some(nodes) => format!("survives {}", lost_nodes(nodes.into())),
            None if chunks_of(keeping) == 0 => "what it survives is not counted yet".to_owned(),
            None => format!("cannot be read now; `vstack census {}` says why", keeping.video_id),
        },
        recommended(recommendation),
    ];
    if keeping.waiting_chunks > 0 {
        lines.extend(progress(migration));
    }
    lines.join("\n")
}

/// What came of pausing, or of going on.
pub fn switched(migration: &Migration) -> String {
    if migration.paused {
        return "paused: nothing more is brought into another form, and what was begun is ended; `vstack redundancy \
                --resume` goes on"
            .to_owned();
    }
    format!(
        "resumed, at most {}/s; {}",
        bytes(migration.rate_bytes_per_second),
        left(migration)
    )
}

/// What is said when every chunk of a video has the form that is decided.
pub fn ended(keeping: &VideoKeeping) -> String {
    let in_words = chunks_in_words(keeping);
    format!("{} is kept as {}: {in_words}", keeping.video_id, form(keeping.mode))
}

/// A form, by what there are of a chunk.
pub const fn form(mode: RedundancyMode) -> &'static str {
    match mode {
        RedundancyMode::Replication => "copies",
        RedundancyMode::ErasureCoding => "shards",
    }
}

/// All chunks of a video that were counted.
pub const fn chunks_of(keeping: &VideoKeeping) -> u64 {
    keeping.replicated_chunks + keeping.coded_chunks
}

/// `1 chunk`, `2 chunks`.
pub fn chunks(count: u64) -> String {
    if count == 1 {
        "1 chunk".to_owned()
    } else {
        format!("{count} chunks")
    }
}

/// Why a video is kept so.
fn why(word: &str) -> String {
    match word {
        "asked" => "asked for".to_owned(),
        "dwells" => "moved lately".to_owned(),
        // What it is says why: new, hot, cold.
        other => plain(other),
    }
}

/// `2 days`, `12 h`, `90 s`.
fn span(seconds: u64) -> String {
    match seconds {
        86_400 => "a day".to_owned(),
        days if days > 0 && days.is_multiple_of(86_400) => format!("{} days", days / 86_400),
        hours if hours > 0 && hours.is_multiple_of(3_600) => format!("{} h", hours / 3_600),
        minutes if minutes > 0 && minutes.is_multiple_of(60) => format!("{} min", minutes / 60),
        seconds => format!("{seconds} s"),
    }
}

fn stored(efficiency: &Efficiency, copies: usize) -> String {
    let logical = efficiency.total_logical_bytes;
    if logical == 0 {
        return "nothing is stored; `vstack upload FILE` brings a video".to_owned();
    }
    let (physical, placed) = (efficiency.total_physical_bytes, efficiency.total_placed_bytes);
    // What is missing, or was not told of yet, saves nothing.
    let stored = physical.unwrap_or(placed).max(placed);
    let take = if physical.is_some() { "take" } else { "are to take" };
    let mut lines = vec![format!(
        "{} of video {take} {} on all nodes together: {:.2} for one, {} than as copies alone",
        bytes(logical),
        bytes(stored),
        stored as f64 / logical as f64,
        less(100.0 * (1.0 - stored as f64 / (copies as f64 * logical as f64))),
    )];
    lines.extend(measured(efficiency));
    lines.join("\n")
}

/// `22.2 % less`, or more.
fn less(percent: f64) -> String {
    let than = if percent < 0.0 { "more" } else { "less" };
    format!("{:.1} % {than}", percent.abs())
}

/// What nodes told that they hold, and take of their disks; nothing where the service does not say it.
fn measured(efficiency: &Efficiency) -> Option<String> {
    let (held, placed) = (&efficiency.held, efficiency.total_placed_bytes);
    if held.nodes == 0 {
        return None;
    }
    let nodes = if held.nodes == 1 { "node" } else { "nodes" };
    if !held.is_known() {
        return Some(format!(
            "that is what is placed; what nodes hold is not known: {} of {} {nodes} told it",
            held.nodes_told, held.nodes
        ));
    }
    let mut line = format!(
        "{} {nodes} told that they hold {}, and take {} of their disks for it",
        held.nodes,
        bytes(held.item_bytes),
        bytes(held.allocated_bytes),
    );
    if let Some(saved) = efficiency.disk_savings_percent {
        line += &format!(
            " ({} than the bytes of copies alone, with records, waste and room that is taken ahead)",
            less(saved)
        );
    }
    if let Some(as_of) = held.as_of {
        line += &format!("; all of them have since {as_of}");
    }
    let placed = match held.item_bytes.cmp(&placed) {
        Ordering::Equal => return Some(line),
        Ordering::Greater => format!("{} are placed, the rest is on its way or left behind", bytes(placed)),
        Ordering::Less => format!(
            "{} are placed, not all of it is there or was told of yet",
            bytes(placed)
        ),
    };
    Some(format!("{line}\n{placed}"))
}

/// What is kept in each form, and what that costs and gives.
fn forms(told: &Overview) -> Table {
    let (config, overhead) = (&told.config, &told.overhead);
    let (efficiency, modes) = (&told.report.efficiency, &told.report.mode_comparison);
    let mut table = output::table(&["FORM", "CHUNKS", "VIDEO", "HELD", "BYTES FOR ONE", "NODES", "SURVIVES"]);
    let mut row =
        |name: String, [chunks, uncounted]: [u64; 2], [video, held]: [u64; 2], measured: f64, figures: &ModeFigures| {
            table.add_row([
                name,
                match uncounted {
                    0 => chunks.to_string(),
                    _ => format!("{chunks}, {uncounted} not counted yet"),
                },
                bytes(video),
                bytes(held),
                match chunks {
                    _ if measured > 0.0 => format!("{measured:.2}"),
                    // Of what there is none, what it would take.
                    0 => format!("{:.2}", figures.overhead_factor),
                    _ => "-".to_owned(),
                },
                nodes_for(figures),
                lost_nodes(figures.failures_tolerated as u64),
            ]);
        };
    row(
        format!("{} copies", config.replication_factor),
        [overhead.replication_chunks, overhead.replication_uncounted_chunks],
        [overhead.replication_logical_bytes, overhead.replication_physical_bytes],
        efficiency.replication_overhead_factor,
        &modes.replication,
    );
    row(
        format!("{}+{} shards", config.erasure_data_shards, config.erasure_parity_shards),
        [overhead.erasure_coded_chunks, overhead.erasure_uncounted_chunks],
        [overhead.erasure_logical_bytes, overhead.erasure_physical_bytes],
        efficiency.erasure_coding_overhead_factor,
        &modes.erasure_coding,
    );
    table
}

/// How many nodes it takes, and with how many as many may be lost as can be: `3`, `3 to 5`.
fn nodes_for(figures: &ModeFigures) -> String {
    let (fewest, most) = (figures.nodes_required, figures.nodes_for_most_failures);
    if most > fewest {
        format!("{fewest} to {most}")
    } else {
        fewest.to_string()
    }
}

fn policy(keepings: &Keepings, config: &RedundancyConfig) -> String {
    let views = match keepings.policy.as_str() {
        "adaptive" => "views to be expected in a week",
        _ => "views",
    };
    format!(
        "policy {}: a video with more than {} {views} is kept as copies, others as shards; a new one is kept as copies \
         for {}, and one that was moved stays as it is for {}",
        plain(&keepings.policy),
        config.popularity_threshold,
        span(keepings.cold_after_seconds),
        span(keepings.dwell_seconds),
    )
}

/// What is being brought into another form.
fn progress(migration: &Migration) -> Vec<String> {
    let pace = if migration.paused {
        "paused, `vstack redundancy --resume` goes on".to_owned()
    } else {
        format!("at most {}/s", bytes(migration.rate_bytes_per_second))
    };
    let mut lines = vec![format!("migration: {pace}; {}", left(migration))];
    if migration.encoded_chunks + migration.decoded_chunks > 0 {
        lines.push(format!(
            "since the service started {} became shards, and {} copies",
            chunks(migration.encoded_chunks),
            chunks(migration.decoded_chunks),
        ));
    }
    if let Some(why) = migration.refused.as_deref().filter(|_| migration.waiting_chunks > 0) {
        lines.push(format!("some cannot be begun with: {}", plain(why)));
    }
    lines
}

fn left(migration: &Migration) -> String {
    if migration.waiting_chunks == 0 {
        return "every chunk has the form that is decided".to_owned();
    }
    let unready = match migration.unready_chunks {
        0 => String::new(),
        unready => format!(", {unready} of them to be whole, or moved, first"),
    };
    format!(
        "{} ({}) to be brought into another form{unready}",
        chunks(migration.waiting_chunks),
        bytes(migration.waiting_bytes),
    )
}

fn chunks_in_words(keeping: &VideoKeeping) -> String {
    let VideoKeeping {
        replicated_chunks: copies,
        coded_chunks: shards,
        waiting_chunks: waiting,
        ..
    } = *keeping;
    let counted = format!("{copies} as copies, {shards} as shards");
    if waiting > 0 {
        let waiting_bytes = bytes(keeping.waiting_bytes);
        return format!(
            "{counted}; {waiting} to be made {} ({waiting_bytes})",
            form(keeping.mode)
        );
    }
    if keeping.mode == RedundancyMode::ErasureCoding && copies > 0 {
        return format!("{counted}; the beginning, and what is small, stays copies");
    }
    counted
}

fn bytes_in_words(keeping: &VideoKeeping) -> String {
    let (placed, logical) = (keeping.placed_bytes, keeping.logical_bytes);
    if logical == 0 {
        return "not counted yet".to_owned();
    }
    let together = format!(
        "{} on all nodes together for {} of video, {:.2} for one",
        bytes(placed),
        bytes(logical),
        placed as f64 / logical as f64,
    );
    let (copies, shards) = (keeping.replicated_logical_bytes, keeping.coded_logical_bytes);
    if copies == 0 || shards == 0 {
        return together;
    }
    format!(
        "{together}; copies take {} for {}, shards {} for {}",
        bytes(keeping.replicated_placed_bytes),
        bytes(copies),
        bytes(keeping.coded_placed_bytes),
        bytes(shards),
    )
}

fn recommended(recommendation: &Recommendation) -> String {
    let config = &recommendation.config;
    let form = match (config.replication_factor, config.data_shards, config.total_shards) {
        (Some(copies), ..) => format!("{copies} copies"),
        (None, Some(data), Some(total)) => format!("{total} shards, of which any {data} give a chunk"),
        _ => form(recommendation.recommended_mode).to_owned(),
    };
    let views = match recommendation.view_count {
        1 => "1 view".to_owned(),
        views => format!("{views} views"),
    };
    let why = why(&recommendation.why);
    format!("recommended, with {views}: {form} ({why})")
}

/// A row for each video.
fn table(videos: &[VideoKeeping]) -> Table {
    let mut table = output::table(&[
        "VIDEO",
        "FORM",
        "WHY",
        "VIEWS",
        "AS COPIES",
        "AS SHARDS",
        "WAITING",
        "PLACED / VIDEO",
        "SURVIVES",
        "TITLE",
    ]);
    for keeping in videos {
        table.add_row([
            keeping.video_id.to_string(),
            form(keeping.mode).to_owned(),
            why(&keeping.why),
            keeping.view_count.to_string(),
            keeping.replicated_chunks.to_string(),
            keeping.coded_chunks.to_string(),
            match keeping.waiting_chunks {
                0 => "-".to_owned(),
                waiting => format!("{waiting} ({})", bytes(keeping.waiting_bytes)),
            },
            format!("{} / {}", bytes(keeping.placed_bytes), bytes(keeping.logical_bytes)),
            match keeping.failures_survived {
                Some(nodes) => lost_nodes(nodes.into()),
                None if chunks_of(keeping) == 0 => "not counted yet".to_owned(),
                None => "cannot be read now".to_owned(),
            },
            plain(&keeping.title),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use vstack_api::redundancy::HeldBytes;

    use super::*;

    const VIDEO: &str = "0190a5c4-7b1e-7d61-8f2e-5d3b6a9c1e47";

    fn keeping(why: &str, [copies, shards, waiting]: [u64; 3], survives: Option<u32>) -> VideoKeeping {
        serde_json::from_value(json!({
            "video_id": VIDEO, "title": "a\u{7}b", "view_count": 12, "mode": "erasure_coding",
            "override_mode": (why == "asked").then_some("erasure_coding"), "why": why,
            "since": "2026-01-02T03:04:05Z", "replicated_chunks": copies, "coded_chunks": shards,
            "waiting_chunks": waiting, "waiting_bytes": waiting * 2_000_000,
            "logical_bytes": (copies + shards) * 2_000_000, "placed_bytes": (copies * 3 + shards * 2) * 2_000_000,
            "replicated_logical_bytes": copies * 2_000_000, "replicated_placed_bytes": copies * 6_000_000,
            "coded_logical_bytes": shards * 2_000_000, "coded_placed_bytes": shards * 4_000_000,
            "failures_survived": survives,
        }))
        .expect("a keeping")
    }

    fn migration(paused: bool, waiting_chunks: u64) -> Migration {
        Migration {
            paused,
            rate_bytes_per_second: 20_000_000,
            waiting_chunks,
            waiting_bytes: waiting_chunks * 2_000_000,
            ..Migration::default()
        }
    }

    /// So many of five nodes told.
    fn held(item_bytes: u64, nodes_told: u64) -> HeldBytes {
        serde_json::from_value(json!({
            "item_bytes": item_bytes, "allocated_bytes": 5_000_000_000_u64, "nodes": 5, "nodes_told": nodes_told,
            "as_of": "2026-01-02T03:04:05Z",
        }))
        .expect("what is held")
    }

    fn overview(videos: Vec<VideoKeeping>, total: u64) -> Overview {
        let mode = |factor: f64, [fewest, most]: [usize; 2], failures: usize| ModeFigures {
            overhead_factor: factor,
            storage_efficiency: 100.0 / factor,
            storage_per_chunk_mb: 2.0 * factor,
            nodes_required: fewest,
            failures_tolerated_by_required: 1,
            nodes_for_most_failures: most,
            most_failures_tolerated: 2,
            failures_tolerated: failures,
        };
        Overview {
            report: vstack_api::redundancy::EfficiencyReport {
                efficiency: Efficiency {
                    storage_savings_percent: Some(22.24),
                    disk_savings_percent: Some(-316.67),
                    total_logical_bytes: 400_000_000,
                    total_physical_bytes: Some(933_000_000),
                    total_disk_bytes: Some(5_000_000_000),
                    total_placed_bytes: 933_000_000,
                    held: held(933_000_000, 5),
                    replication_overhead_factor: 3.0,
                    erasure_coding_overhead_factor: 0.0,
                },
                mode_comparison: vstack_api::redundancy::ModeComparison {
                    replication: mode(3.0, [3, 3], 2),
                    erasure_coding: mode(5.0 / 3.0, [3, 5], 1),
                },
            },
            overhead: vstack_api::redundancy::StorageOverhead {
                replication_chunks: 70,
                // Four more are on their way to become shards.
                replication_counted_chunks: 72,
                replication_uncounted_chunks: 2,
                replication_logical_bytes: 300_000_000,
                replication_physical_bytes: 900_000_000,
                ..Default::default()
            },
            config: RedundancyConfig {
                popularity_threshold: 1_000,
                replication_factor: 3,
                erasure_data_shards: 3,
                erasure_parity_shards: 2,
                erasure_total_shards: 5,
            },
            repairs_enabled: Some(true),
            keepings: Keepings {
                policy: "threshold".to_owned(),
                cold_after_seconds: 86_400,
                dwell_seconds: 7_200,
                videos,
                total,
                migration: migration(false, 3),
            },
        }
    }

    #[test]
    fn everything_is_told() {
        let told = all(&overview(vec![keeping("cold", [4, 6, 3], Some(2))], 3));
        for part in [
            "400.0 MB of video take 933.0 MB on all nodes together: 2.33 for one, 22.3 % less than as copies alone\n\
             5 nodes told that they hold 933.0 MB, and take 5.0 GB of their disks for it (316.7 % more than the bytes \
             of copies alone, with records, waste and room that is taken ahead); all of them have since \
             2026-01-02T03:04:05.000Z\n\n",
            "3 copies",
            "70, 2 not counted yet",
            "3 to 5",
            "300.0 MB",
            "900.0 MB",
            "3+2 shards",
            "1.67",
            "policy threshold: a video with more than 1000 views is kept as copies, others as shards; a new one is \
             kept as copies for a day, and one that was moved stays as it is for 2 h",
            "migration: at most 20.0 MB/s; 3 chunks (6.0 MB) to be brought into another form",
            VIDEO,
            "3 (6.0 MB)",
            "48.0 MB / 20.0 MB",
            "2 lost nodes",
            "a\u{fffd}b",
            "and 2 more; `--limit 3` lists them all",
        ] {
            assert!(told.contains(part), "{part} is not in\n{told}");
        }
        assert!(!told.contains("REPAIRS"), "{told}");
    }

    #[test]
    fn what_is_held_is_told_beside_what_is_placed_where_that_is_something_else() {
        let told = |physical: Option<u64>, placed: u64, held: HeldBytes| {
            let efficiency = Efficiency {
                total_logical_bytes: 400_000_000,
                total_physical_bytes: physical,
                total_placed_bytes: placed,
                held,
                ..Efficiency::default()
            };
            stored(&efficiency, 3)
        };
        let left_behind = told(Some(1_200_000_000), 900_000_000, held(1_200_000_000, 5));
        for part in [
            "400.0 MB of video take 1.2 GB on all nodes together: 3.00 for one, 0.0 % less",
            "5 nodes told that they hold 1.2 GB",
            "\n900.0 MB are placed, the rest is on its way or left behind",
        ] {
            assert!(left_behind.contains(part), "{part} is not in\n{left_behind}");
        }
        // What was just placed is not told of yet: that is nothing saved.
        let not_yet = told(Some(0), 1_200_000_000, held(0, 5));
        for part in [
            "400.0 MB of video take 1.2 GB on all nodes together: 3.00 for one, 0.0 % less",
            "5 nodes told that they hold 0 B",
            "\n1.2 GB are placed, not all of it is there or was told of yet",
        ] {
            assert!(not_yet.contains(part), "{part} is not in\n{not_yet}");
        }
        let unknown = told(None, 900_000_000, held(700_000_000, 4));
        assert_eq!(
            unknown,
            "400.0 MB of video are to take 900.0 MB on all nodes together: 2.25 for one, 25.0 % less than as copies alone\n\
             that is what is placed; what nodes hold is not known: 4 of 5 nodes told it"
        );
        // An older service does not tell it.
        let older = told(Some(900_000_000), 0, HeldBytes::default());
        assert_eq!(
            older,
            "400.0 MB of video take 900.0 MB on all nodes together: 2.25 for one, 25.0 % less than as copies alone"
        );
    }

    #[test]
    fn nothing_is_told_of_nothing() {
        let mut empty = overview(Vec::new(), 0);
        empty.report.efficiency = Efficiency::default();
        empty.repairs_enabled = Some(false);
        let told = all(&empty);
        for part in [
            "`vstack upload FILE` brings a video",
            "no video is whole",
            "REPAIRS=false",
        ] {
            assert!(told.contains(part), "{part} is not in\n{told}");
        }
    }

    #[test]
    fn a_video_is_told_with_what_is_recommended_and_what_is_left() {
        let recommendation = |mode: &str, why: &str, config: serde_json::Value| -> Recommendation {
            serde_json::from_value(json!({
                "video_id": VIDEO, "view_count": 12, "recommended_mode": mode, "why": why, "config": config,
            }))
            .expect("a recommendation")
        };
        let shards = json!({"mode": "erasure_coding", "data_shards": 3, "parity_shards": 2, "total_shards": 5});
        let told = one(&One {
            keeping: keeping("cold", [4, 6, 3], Some(1)),
            recommendation: recommendation("erasure_coding", "cold", shards.clone()),
            migration: migration(true, 3),
        });
        assert_eq!(
            told,
            format!(
                "{VIDEO}  a\u{fffd}b\n\
                 to be kept as shards since 2026-01-02T03:04:05.000Z: cold\n\
                 left to the policy; `--set replication` or `--set erasure_coding` asks for a form\n\
                 chunks: 4 as copies, 6 as shards; 3 to be made shards (6.0 MB)\n\
                 bytes: 48.0 MB on all nodes together for 20.0 MB of video, 2.40 for one; copies take 24.0 MB for \
                 8.0 MB, shards 24.0 MB for 12.0 MB\n\
                 survives 1 lost node\n\
                 recommended, with 12 views: 5 shards, of which any 3 give a chunk (cold)\n\
                 migration: paused, `vstack redundancy --resume` goes on; 3 chunks (6.0 MB) to be brought into another \
                 form"
            )
        );
        let asked = one(&One {
            keeping: keeping("asked", [1, 9, 0], None),
            recommendation: recommendation(
                "replication",
                "dwells",
                json!({"mode": "replication", "replication_factor": 3}),
            ),
            migration: migration(false, 0),
        });
        for part in [
            "kept as shards since 2026-01-02T03:04:05.000Z: asked for\nasked for by hand; `--set policy`",
            "1 as copies, 9 as shards; the beginning, and what is small, stays copies",
            &format!("cannot be read now; `vstack census {VIDEO}` says why"),
            "recommended, with 12 views: 3 copies (moved lately)",
        ] {
            assert!(asked.contains(part), "{part} is not in\n{asked}");
        }
        assert!(!asked.contains("migration"), "{asked}");
    }

    #[test]
    fn reasons_spans_and_losses_are_words() {
        let reasons = ["asked", "new", "hot", "cold", "dwells", "la\u{1b}ter"].map(why);
        assert_eq!(
            reasons,
            ["asked for", "new", "hot", "cold", "moved lately", "la\u{fffd}ter"]
        );
        let spans = [0, 90, 120, 7_200, 86_400, 172_800].map(span);
        assert_eq!(spans, ["0 s", "90 s", "2 min", "2 h", "a day", "2 days"]);
        assert_eq!(
            [0, 1, 2].map(lost_nodes),
            ["no lost node", "1 lost node", "2 lost nodes"]
        );
        assert_eq!([1, 2].map(chunks), ["1 chunk", "2 chunks"]);
        let uncounted = table(&[keeping("new", [0, 0, 0], None)]).to_string();
        assert!(uncounted.contains("not counted yet"), "{uncounted}");
        let unreadable = table(&[keeping("new", [1, 0, 0], None)]).to_string();
        assert!(unreadable.contains("cannot be read now"), "{unreadable}");
    }

    #[test]
    fn pausing_and_going_on_say_what_follows() {
        let paused = switched(&migration(true, 3));
        assert!(
            paused.starts_with("paused") && paused.contains("`vstack redundancy --resume`"),
            "{paused}"
        );
        assert_eq!(
            switched(&migration(false, 1)),
            "resumed, at most 20.0 MB/s; 1 chunk (2.0 MB) to be brought into another form"
        );
        assert_eq!(
            switched(&migration(false, 0)),
            "resumed, at most 20.0 MB/s; every chunk has the form that is decided"
        );
        let mut refused = migration(false, 3);
        refused.refused = Some("too few nodes".to_owned());
        refused.unready_chunks = 2;
        refused.encoded_chunks = 40;
        assert_eq!(
            progress(&refused),
            [
                "migration: at most 20.0 MB/s; 3 chunks (6.0 MB) to be brought into another form, 2 of them to be \
                 whole, or moved, first",
                "since the service started 40 chunks became shards, and 0 chunks copies",
                "some cannot be begun with: too few nodes",
            ]
        );
    }
}
