//! Whole copies, and shards, of chunks that are not whole where they are placed, at nodes that nobody expects them at: what
//! such a node has is brought to those who lack it, and what can only be made of a whole copy is made of that.

use tokio::time::timeout;
use vstack_api::holdings::tag_of;
use vstack_client::{Holder, Make};
use vstack_types::{NodeRef, VideoId};
use vstack_upkeep::standing::Seen;

use super::PAGE_WITHIN;
use crate::{
    app::App,
    reaper::Asked,
    store::Chunk,
    upkeep::{counting::part_of, shards::shard_of},
};

/// Has nodes that lack their copy fetch it from one where the chunk is not placed any more; says how many did.
pub(super) async fn lent(app: &App, asked: &Asked, from: &Holder, video: VideoId, known: &Chunk) -> usize {
    let (placement, part) = (&known.placement, part_of(known));
    let lacking: Vec<(NodeRef, u32)> = {
        let state = app.upkeep.state();
        let row = state.census.row(video, part);
        let row = row.filter(|_| state.census.id(video, part) == known.id);
        let items = row.into_iter().flat_map(|row| row.of_layout());
        let lacks = items.filter(|item| matches!(item.seen, Seen::Absent | Seen::Damaged));
        lacks
            .filter_map(|item| Some((state.census.node(item.node)?, item.tag)))
            .collect()
    };
    let mut lent = 0;
    for (node, tag) in lacking {
        let items = placement.items_of(&placement.layout, node);
        let Some((item, to)) = items
            .into_iter()
            .find(|item| tag_of(*item) == tag)
            .zip(asked.urls.holder(node))
        else {
            continue;
        };
        let from_it = std::slice::from_ref(from);
        let pull = app.nodes.pull(&to, &known.id, item, placement.item_size(item), from_it);
        let mut has = matches!(timeout(PAGE_WITHIN, pull).await, Ok(Ok(())));
        if let Some(want) = shard_of(placement, node, item).filter(|_| !has) {
            // What is kept elsewhere may be a whole copy.
            let make = Make {
                sha256: placement.sha256,
                size: placement.size,
                whole: vec![from.clone()],
                shards: None,
                want: vec![want],
            };
            let made = timeout(PAGE_WITHIN, app.nodes.make(&to, &known.id, &make)).await;
            has = matches!(made, Ok(Ok(made)) if made.items == [item]);
        }
        if has {
            tracing::info!(chunk = %known.id, %node, from = %from.node, "a copy was restored from where the chunk is no more");
            app.upkeep.state().has_again(node, (video, part), item);
            lent += 1;
        }
    }
    lent
}

/// Whether a node has the whole chunk, read and found to have its SHA-256 just now.
pub(super) async fn has_it(app: &App, at: &Holder, known: &Chunk) -> bool {
    let make = Make {
        sha256: known.placement.sha256,
        size: known.placement.size,
        whole: vec![at.clone()],
        shards: None,
        // Nothing is wanted but to know whether it can be had.
        want: Vec::new(),
    };
    let read = timeout(PAGE_WITHIN, app.nodes.make(at, &known.id, &make)).await;
    matches!(read, Ok(Ok(_)))
}
