//! A session in the words of the smart client's HTTP interface.

use vstack_api::web::{PlayerMetrics, PlayerPerformance, PlayerStats, PlayerStatus, SchedulerStats, SessionStats};

use crate::{End, Selector, Session};

impl Session {
    /// `GET /api/status`, as of the last input or poll.
    pub fn status(&self) -> PlayerStatus {
        let monitor = self.selector.monitor();
        let error = match self.ended {
            Some(End::Unavailable { piece }) => Some(format!("no replica of {piece} could be read")),
            Some(End::Played) | None => None,
        };
        PlayerStatus {
            video_id: Some(self.video_id),
            playing: self.is_playing(),
            startup_latency: self.buffer.startup().map(|startup| startup.as_secs_f64()),
            playback_duration: self.buffer.position().as_secs_f64(),
            buffer: self.buffer.status(),
            buffer_stats: self.buffer.stats(),
            scheduler_stats: scheduler_stats(&self.selector),
            network_stats: monitor.network_stats(),
            node_scores: monitor
                .scores()
                .map(|(node, score)| (node.to_string(), score))
                .collect(),
            error,
        }
    }

    /// `GET /api/stats`.
    pub fn stats(&self) -> PlayerStats {
        PlayerStats {
            session: SessionStats {
                video_id: Some(self.video_id),
                playing: self.is_playing(),
                startup_latency: self.buffer.startup().map(|startup| startup.as_secs_f64()),
                playback_duration: self.buffer.position().as_secs_f64(),
            },
            buffer: self.buffer.stats(),
            downloads: scheduler_stats(&self.selector),
            nodes: self.selector.monitor().downloads(),
        }
    }

    /// `GET /api/metrics`.
    pub fn metrics(&self) -> PlayerMetrics {
        self.history.metrics()
    }

    /// `GET /api/performance`.
    pub fn performance(&self) -> PlayerPerformance {
        let buffer = self.buffer.stats();
        let busy = self.busy.as_secs_f64();
        let mbits = self.verified_bytes as f64 * 8.0 / 1e6;
        PlayerPerformance {
            startup_latency_sec: self.buffer.startup().map(|startup| startup.as_secs_f64()),
            average_throughput_mbps: if busy > 0.0 { mbits / busy } else { 0.0 },
            rebuffering_events: buffer.rebuffering_events,
            average_buffer_level_sec: buffer.average_buffer_level,
            playback_duration_sec: self.buffer.position().as_secs_f64(),
            chunks_played: buffer.total_chunks_played,
            download_success_rate: scheduler_stats(&self.selector).success_rate,
        }
    }

    fn is_playing(&self) -> bool {
        self.ended.is_none() && self.buffer.is_playing()
    }
}

fn scheduler_stats(selector: &Selector) -> SchedulerStats {
    let (well, badly, failovers) = selector.counts();
    let total = well + badly;
    SchedulerStats {
        total_downloads: total,
        success_rate: if total == 0 {
            100.0
        } else {
            f64::from(well) / f64::from(total) * 100.0
        },
        failover_count: failovers,
    }
}
