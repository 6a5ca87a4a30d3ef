//! How many nodes videos may lose, in words for people.

use vstack_api::metadata::LibrarySurvival;

/// `no lost node`, `1 lost node`, `2 lost nodes`.
pub fn lost_nodes(nodes: u64) -> String {
    match nodes {
        0 => "no lost node".to_owned(),
        1 => "1 lost node".to_owned(),
        nodes => format!("{nodes} lost nodes"),
    }
}

fn videos(count: u64) -> String {
    if count == 1 {
        "1 video".to_owned()
    } else {
        format!("{count} videos")
    }
}

/// What one video survives, as a list has it: by what was counted, or not at all.
pub fn of_video(failures_survived: Option<u32>, counted: bool) -> String {
    match (failures_survived, counted) {
        (Some(nodes), true) => lost_nodes(nodes.into()),
        (Some(nodes), false) => format!("{}, not counted yet", lost_nodes(nodes.into())),
        (None, true) => "cannot be read now".to_owned(),
        (None, false) => "not counted yet".to_owned(),
    }
}

/// What so many active videos survive: the fewest losses that any of them does, and how many do no more.
pub fn of_library(survival: &LibrarySurvival, active: u64) -> String {
    let mut parts = Vec::new();
    if let Some(nodes) = survival.failures_survived {
        let who = if survival.videos == active {
            "every video".to_owned()
        } else {
            format!("{} of {} no more than that", survival.videos, videos(active))
        };
        parts.push(format!("{} ({who})", lost_nodes(nodes.into())));
    }
    if survival.unreadable_videos > 0 {
        parts.push(format!("{} cannot be read now", videos(survival.unreadable_videos)));
    }
    if survival.uncounted_videos > 0 {
        parts.push(format!("{} not counted yet", videos(survival.uncounted_videos)));
    }
    if parts.is_empty() {
        return "no video is stored".to_owned();
    }
    parts.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fewest_losses_are_told_and_how_many_videos_survive_no_more() {
        let of = |failures_survived, [videos, unreadable_videos, uncounted_videos]: [u64; 3], active| {
            let survival = LibrarySurvival {
                failures_survived,
                videos,
                unreadable_videos,
                uncounted_videos,
            };
            of_library(&survival, active)
        };
        assert_eq!(of(None, [0, 0, 0], 0), "no video is stored");
        assert_eq!(of(Some(2), [3, 0, 0], 3), "2 lost nodes (every video)");
        assert_eq!(
            of(Some(1), [3, 0, 0], 12),
            "1 lost node (3 of 12 videos no more than that)"
        );
        assert_eq!(
            of(Some(0), [1, 1, 2], 4),
            "no lost node (1 of 4 videos no more than that); 1 video cannot be read now; 2 videos not counted yet"
        );
        assert_eq!(of(None, [0, 2, 0], 2), "2 videos cannot be read now");
        assert_eq!(of(None, [0, 0, 1], 1), "1 video not counted yet");
    }

    #[test]
    fn what_was_not_counted_is_not_said_to_be() {
        let table = [
            (Some(2), true, "2 lost nodes"),
            (Some(0), true, "no lost node"),
            (Some(1), false, "1 lost node, not counted yet"),
            (None, true, "cannot be read now"),
            (None, false, "not counted yet"),
        ];
        for (nodes, counted, words) in table {
            assert_eq!(of_video(nodes, counted), words);
        }
    }
}
