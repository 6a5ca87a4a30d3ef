//! What is chosen once for all chunks that are alike: whether there are nodes enough for a form depends on the nodes alone,
//! and where the chunks of one video go on nothing but them and the video. So a million chunks that cannot be brought into
//! another form, or not yet, cost no more than one.

use std::{collections::BTreeMap, num::NonZeroU8};

use vstack_types::{NodeRef, VideoId};

use super::Refused;

/// A form that chunks are to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Wanted {
    /// As many as are usual.
    Copies,
    /// Shards.
    Shards {
        /// Those that are needed.
        data: NonZeroU8,
        /// Those beyond.
        parity: u8,
        /// Losses of nodes that they are to survive at least.
        survive: usize,
    },
}

/// What was chosen so far, of one and the same cluster. Only of chunks of which nothing was tried in vain: for others some
/// nodes are left out.
#[derive(Debug, Default)]
pub(super) struct Chosen {
    /// Of the last video.
    last: Option<(VideoId, Wanted, Vec<NodeRef>)>,
    refused: BTreeMap<Wanted, Refused>,
}

impl Chosen {
    /// Where chunks of a video are to be in this form, as `choose` says, which is asked once.
    pub(super) fn or(
        &mut self,
        video: VideoId,
        wanted: Wanted,
        choose: impl FnOnce() -> Result<Vec<NodeRef>, Refused>,
    ) -> Result<Vec<NodeRef>, Refused> {
        if let Some(refused) = self.refused.get(&wanted) {
            return Err(*refused);
        }
        if let Some((of, form, to)) = &self.last
            && (*of, *form) == (video, wanted)
        {
            return Ok(to.clone());
        }
        let chosen = choose();
        match &chosen {
            Ok(to) => self.last = Some((video, wanted, to.clone())),
            Err(refused) => drop(self.refused.insert(wanted, *refused)),
        }
        chosen
    }
}

#[cfg(test)]
mod tests {
    use vstack_types::NodeUuid;

    use super::*;

    #[test]
    fn it_is_chosen_once_for_a_video_and_refused_once_for_all() {
        let video = |n| VideoId::from_bytes([n; 16]);
        let node = |n| NodeRef::first(NodeUuid::from_bytes([n; 16]));
        let shards = |survive| Wanted::Shards {
            data: NonZeroU8::MIN,
            parity: 2,
            survive,
        };
        let never = || -> Result<Vec<NodeRef>, Refused> { panic!("that was chosen before") };
        let mut chosen = Chosen::default();
        assert_eq!(chosen.or(video(1), shards(1), || Ok(vec![node(1)])), Ok(vec![node(1)]));
        assert_eq!(chosen.or(video(1), shards(1), never), Ok(vec![node(1)]));
        assert_eq!(chosen.or(video(2), shards(1), || Ok(vec![node(2)])), Ok(vec![node(2)]));
        assert_eq!(
            chosen.or(video(2), Wanted::Copies, || Ok(vec![node(3)])),
            Ok(vec![node(3)])
        );
        let refused = Refused::Copies {
            nodes: 1,
            needed: 3,
            survived: 2,
        };
        assert_eq!(chosen.or(video(2), shards(2), || Err(refused)), Err(refused));
        for n in 1..5 {
            assert_eq!(chosen.or(video(n), shards(2), never), Err(refused));
        }
        assert_eq!(chosen.or(video(2), Wanted::Copies, never), Ok(vec![node(3)]));
    }
}
