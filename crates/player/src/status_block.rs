//! The status block of `vstack play`, for people.

use std::fmt::Write as _;

use vstack_api::web::{BufferState, PlayerStatus};

const WIDTH: usize = 60;

/// A session's status as text; ends with a newline.
pub fn status_block(status: &PlayerStatus) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _infallible = write_block(&mut text, status);
    text
}

fn write_block(text: &mut String, status: &PlayerStatus) -> std::fmt::Result {
    let rule = "=".repeat(WIDTH);
    let video = status
        .video_id
        .map_or_else(|| "-".to_owned(), |video| video.to_string());
    let startup = status
        .startup_latency
        .map_or_else(|| "-".to_owned(), |seconds| format!("{seconds:.2}s"));
    let (buffer, played, downloads) = (&status.buffer, &status.buffer_stats, &status.scheduler_stats);
    writeln!(text, "V-STACK SMART CLIENT STATUS\n{rule}")?;
    writeln!(text, "Video ID: {video}")?;
    writeln!(text, "Startup Latency: {startup}\n")?;
    writeln!(text, "Buffer Status: {}", state(buffer.state))?;
    writeln!(
        text,
        "  Level: {:.1}s / {:.0}s",
        buffer.buffer_level_sec, buffer.target_buffer_sec
    )?;
    writeln!(text, "  Health: {:.0}%", buffer.buffer_health_percent)?;
    writeln!(text, "  Position: Chunk {}\n", buffer.current_position)?;
    writeln!(text, "Playback Statistics:")?;
    writeln!(text, "  Chunks Played: {}", played.total_chunks_played)?;
    writeln!(text, "  Rebuffering Events: {}\n", played.rebuffering_events)?;
    writeln!(text, "Download Statistics:")?;
    writeln!(text, "  Total Downloads: {}", downloads.total_downloads)?;
    writeln!(text, "  Success Rate: {:.1}%", downloads.success_rate)?;
    writeln!(text, "  Failovers: {}\n", downloads.failover_count)?;
    writeln!(text, "Storage Node Scores:")?;
    // A node that was pinged and gave nothing yet has no score.
    for node in status.network_stats.keys() {
        match status.node_scores.get(node) {
            Some(score) => writeln!(text, "  {node}: {score:.1}")?,
            None => writeln!(text, "  {node}: -")?,
        }
    }
    writeln!(text, "{rule}")
}

const fn state(state: BufferState) -> &'static str {
    match state {
        BufferState::Idle => "IDLE",
        BufferState::Starting => "STARTING",
        BufferState::Healthy => "HEALTHY",
        BufferState::Low => "LOW",
        BufferState::Stalled => "STALLED",
        BufferState::Ended => "ENDED",
    }
}

#[cfg(test)]
mod tests {
    use vstack_api::web::{BufferStats, BufferStatus, NetworkStats, SchedulerStats};

    use super::*;

    #[test]
    fn the_block_has_its_published_form() {
        let urls = [
            "http://localhost:8081",
            "http://localhost:8082",
            "http://localhost:8083",
        ];
        let scores = urls.iter().zip([16.8, 14.2, 12.5]);
        let status = PlayerStatus {
            video_id: Some("550e8400-e29b-41d4-a716-446655440000".parse().unwrap()),
            playing: true,
            startup_latency: Some(1.85),
            playback_duration: 53.2,
            buffer: BufferStatus {
                state: BufferState::Healthy,
                buffer_level_sec: 26.8,
                target_buffer_sec: 30.0,
                buffer_health_percent: 89.3,
                current_position: 5,
            },
            buffer_stats: BufferStats {
                total_chunks_played: 5,
                rebuffering_events: 0,
                average_buffer_level: 25.0,
            },
            scheduler_stats: SchedulerStats {
                total_downloads: 8,
                success_rate: 100.0,
                failover_count: 0,
            },
            network_stats: urls
                .iter()
                .map(|url| ((*url).to_owned(), NetworkStats::default()))
                .collect(),
            node_scores: scores.map(|(url, score)| ((*url).to_owned(), score)).collect(),
            error: None,
        };
        let expected = "\
V-STACK SMART CLIENT STATUS
============================================================
Video ID: 550e8400-e29b-41d4-a716-446655440000
Startup Latency: 1.85s

Buffer Status: HEALTHY
  Level: 26.8s / 30s
  Health: 89%
  Position: Chunk 5

Playback Statistics:
  Chunks Played: 5
  Rebuffering Events: 0

Download Statistics:
  Total Downloads: 8
  Success Rate: 100.0%
  Failovers: 0

Storage Node Scores:
  http://localhost:8081: 16.8
  http://localhost:8082: 14.2
  http://localhost:8083: 12.5
============================================================
";
        assert_eq!(status_block(&status), expected);
    }
}
