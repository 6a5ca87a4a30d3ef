//! Nothing waits without bound: neither in a node, nor on its way to one.

use vstack_engine::{QUEUE_BYTES_MAX, QUEUE_OPS_MAX};
use vstack_metadata::{REAPED_CHUNKS_AT_ONCE, REAPED_VIDEOS_AT_ONCE};
use vstack_node::Queues;
use vstack_uploader::{NODE_BATCHES_MAX, WINDOW};

use crate::{hosts::HostId, plan::Plan};

/// Of each chunk that an upload has under way: its bytes with the vote, once more without, and a proposer's message.
const PER_CHUNK: usize = 3;
/// Of each chunk that the reaper works on: a proposer's message, and bytes that are discarded beside.
const PER_REAPED: usize = 2;
/// Rivals, readers, deleters and whoever else asks for one thing after the other.
const ACTORS: usize = 16;
/// Signs of life, probes and copies put off, of each other host.
const PER_HOST: usize = 4;

/// Requests that a host may ever have to work on at once, as far as those who send them bound what they send. Any
/// may arrive twice.
pub(crate) fn under_way_max(plan: &Plan, hosts: usize) -> usize {
    let uploads = usize::try_from(plan.films).unwrap_or(usize::MAX);
    let reaper = REAPED_VIDEOS_AT_ONCE * REAPED_CHUNKS_AT_ONCE * PER_REAPED;
    2 * (uploads * (WINDOW * PER_CHUNK + NODE_BATCHES_MAX) + reaper + ACTORS + hosts * PER_HOST)
}

/// Whether `host` has no more to work on than `max`.
///
/// # Errors
/// The promise that was broken.
pub(crate) fn check_under_way(host: HostId, count: usize, max: usize) -> Result<(), String> {
    if count > max {
        return Err(format!(
            "{host} has {count} requests under way, and nobody sends more than {max}"
        ));
    }
    Ok(())
}

/// Whether what waits in a node keeps within its limits.
///
/// # Errors
/// The promise that was broken.
pub(crate) fn check(host: HostId, queues: Queues) -> Result<(), String> {
    let Queues {
        ops,
        op_bytes,
        arriving_bytes,
        arriving_bytes_max,
    } = queues;
    let bounded = ops <= QUEUE_OPS_MAX && op_bytes <= QUEUE_BYTES_MAX && arriving_bytes <= arriving_bytes_max;
    if bounded {
        Ok(())
    } else {
        Err(format!("{host} has more waiting than it may: {queues:?}"))
    }
}
