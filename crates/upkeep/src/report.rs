//! What a census comes to: for all, and for every video of which not everything is whole.

use std::collections::BTreeMap;

use vstack_types::VideoId;

use crate::{census::Part, plan::Outlook, standing::Standing};

/// How many chunks stand how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Everything wanted was counted and is there.
    pub whole: u64,
    /// As much as wanted, as far as is known, and not all of it counted.
    pub uncounted: u64,
    /// Fewer losses survived than wanted.
    pub under: u64,
    /// Not readable any more after the next loss.
    pub endangered: u64,
    /// Not readable now, and may be when silent nodes return.
    pub out_of_reach: u64,
    /// Not readable any more.
    pub lost: u64,
}

impl Tally {
    fn add(&mut self, standing: Standing) {
        let count = match standing {
            Standing::Whole => &mut self.whole,
            Standing::Uncounted => &mut self.uncounted,
            Standing::Under { .. } => &mut self.under,
            Standing::Endangered => &mut self.endangered,
            Standing::OutOfReach => &mut self.out_of_reach,
            Standing::Lost => &mut self.lost,
        };
        *count += 1;
    }

    /// All of them.
    pub const fn chunks(&self) -> u64 {
        self.whole + self.uncounted + self.under + self.endangered + self.out_of_reach + self.lost
    }

    /// Whether every one is whole.
    pub const fn is_whole(&self) -> bool {
        self.whole == self.chunks()
    }
}

/// A video of which not everything is whole.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VideoReport {
    /// Its chunks.
    pub tally: Tally,
    /// Those that are not whole, worst first.
    pub named: Vec<(Standing, Part)>,
}

/// What a census comes to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// All chunks.
    pub tally: Tally,
    /// Of each video of which not everything is whole.
    pub videos: BTreeMap<VideoId, VideoReport>,
    /// How many chunks each video has of which everything is.
    pub whole: BTreeMap<VideoId, u64>,
}

/// Judges every chunk.
pub fn report(outlook: &Outlook<'_>) -> Report {
    let mut report = Report::default();
    let mut of_video: Option<(VideoId, VideoReport)> = None;
    for (video, row) in outlook.census.rows() {
        let standing = outlook.standing(row);
        report.tally.add(standing);
        if of_video.as_ref().is_none_or(|(last, _)| *last != video) {
            report.keep(of_video.take());
        }
        let (_, here) = of_video.get_or_insert_with(|| (video, VideoReport::default()));
        here.tally.add(standing);
        if standing != Standing::Whole {
            here.named.push((standing, row.part));
        }
    }
    report.keep(of_video);
    report
}

impl Report {
    fn keep(&mut self, of_video: Option<(VideoId, VideoReport)>) {
        let Some((video, mut here)) = of_video else { return };
        if here.tally.is_whole() {
            self.whole.insert(video, here.tally.whole);
        } else {
            here.named.sort_unstable();
            self.videos.insert(video, here);
        }
    }
}
