//! The node's own metrics. Counters of the engine are read when they are asked for.

use std::fmt;

use vstack_engine::{BoxedDisk, BufferPool, Reader, Scrubbed};
use vstack_service::prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{
        counter::{ConstCounter, Counter},
        family::Family,
        gauge::{ConstGauge, Gauge},
    },
    registry::Registry,
};
use vstack_types::Timestamp;

use crate::{measured, run::Queues};

/// Name and value.
type KindLabel = [(&'static str, &'static str); 1];

/// Memory that is bounded and used again.
pub(crate) struct Memory {
    pub arriving: BufferPool,
    pub sending: BufferPool,
}

/// Counters that handlers raise.
#[derive(Debug, Clone, Default)]
pub(crate) struct NodeMetrics {
    messages: Family<KindLabel, Counter>,
    replies: Family<KindLabel, Counter>,
    scrubbed_bytes: Counter,
    scrub_findings: Family<KindLabel, Counter>,
    slow_readers_cut_off: Counter,
    scrubbed_all_at: Gauge,
}

impl NodeMetrics {
    pub(crate) fn count_message(&self, kind: &'static str) {
        self.messages.get_or_create(&[("kind", kind)]).inc();
    }

    pub(crate) fn count_reply(&self, kind: &'static str) {
        self.replies.get_or_create(&[("kind", kind)]).inc();
    }

    pub(crate) fn count_scrub(&self, scrubbed: &Scrubbed) {
        for (kind, count) in [
            ("item", scrubbed.damaged.len() as u64),
            ("mended", scrubbed.mended),
            ("unnamed", scrubbed.unnamed),
            ("stretch", scrubbed.stretches),
        ] {
            self.scrub_findings.get_or_create(&[("kind", kind)]).inc_by(count);
        }
    }

    /// Counts what the scrub reads, while it does.
    pub(crate) fn scrubbed_bytes(&self, bytes: u64) {
        self.scrubbed_bytes.inc_by(bytes);
    }

    /// Counts connections whose peer took nothing of what it was sent for too long.
    pub(crate) fn cut_off(&self) -> Counter {
        self.slow_readers_cut_off.clone()
    }

    /// Everything was read again, once more.
    pub(crate) fn scrubbed_all(&self, at: Timestamp) {
        self.scrubbed_all_at.set(at.0 / 1000);
    }

    /// Registers these and the engine's.
    pub(crate) fn register(
        &self,
        registry: &mut Registry,
        reader: Reader<BoxedDisk>,
        memory: Memory,
        queues: impl Fn() -> Queues + Send + Sync + 'static,
    ) {
        registry.register(
            "vstack_paxos_messages",
            "Messages to the acceptor, by kind; every decision of a batch is one",
            self.messages.clone(),
        );
        registry.register(
            "vstack_paxos_replies",
            "Replies of the acceptor, by kind",
            self.replies.clone(),
        );
        registry.register(
            "vstack_scrub_bytes",
            "Bytes of items that the scrub read again",
            self.scrubbed_bytes.clone(),
        );
        registry.register(
            "vstack_scrub_findings",
            "What the scrub found: damaged items, registers mended from their other copy, records of which nothing is left, stretches that are no records",
            self.scrub_findings.clone(),
        );
        registry.register(
            "vstack_slow_readers_cut_off",
            "Connections ended because their peer took nothing of what it was sent",
            self.slow_readers_cut_off.clone(),
        );
        registry.register(
            "vstack_scrub_completed_seconds",
            "When everything was last read again, in seconds since 1970; 0 when that is not known",
            self.scrubbed_all_at.clone(),
        );
        let queues = Box::new(queues);
        registry.register_collector(Box::new(EngineCollector { reader, memory, queues }));
    }
}

struct EngineCollector {
    reader: Reader<BoxedDisk>,
    memory: Memory,
    queues: Box<dyn Fn() -> Queues + Send + Sync>,
}

impl fmt::Debug for EngineCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EngineCollector")
    }
}

impl Collector for EngineCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let stats = self.reader.stats();
        let queues = (self.queues)();
        // A file that the filesystem says nothing of takes no space that could be told.
        let space = self.reader.space().unwrap_or_default();
        for (name, help, value) in [
            ("vstack_engine_syncs", "Syncs of data", stats.syncs),
            (
                "vstack_paxos_votes",
                "Promises and acceptances made durable",
                stats.votes,
            ),
            (
                "vstack_paxos_vote_syncs",
                "Syncs that made promises and acceptances durable",
                stats.vote_syncs,
            ),
            ("vstack_engine_batches", "Batches written", stats.batches),
            ("vstack_engine_operations", "Operations answered", stats.ops),
            (
                "vstack_engine_written_bytes",
                "Bytes of items written",
                stats.bytes_written,
            ),
            ("vstack_engine_read_bytes", "Bytes of items read", stats.bytes_read),
            (
                "vstack_index_hits",
                "Looks at the index that memory answered",
                stats.index_hits,
            ),
            (
                "vstack_index_misses",
                "Looks at the index that read the disk",
                stats.index_misses,
            ),
            (
                "vstack_space_reclaimed_bytes",
                "Bytes of items that are gone, given back to the filesystem where they were",
                stats.reclaimed_bytes,
            ),
            ("vstack_space_emptied", "Superblocks emptied", stats.emptied),
            (
                "vstack_space_moved_bytes",
                "Bytes of items written again so that superblocks could be emptied",
                stats.moved_bytes,
            ),
            (
                "vstack_engine_pieces_cached",
                "Pieces of chunks read from the page cache alone",
                stats.pieces_cached,
            ),
            (
                "vstack_engine_pieces_waited",
                "Pieces of chunks that the disk was waited for",
                stats.pieces_waited,
            ),
            (
                "vstack_engine_quarantined",
                "Items found damaged since the start",
                stats.quarantined,
            ),
        ] {
            let counter = ConstCounter::new(value);
            counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)?;
        }
        for (name, help, value) in [
            ("vstack_chunks", "Items held", stats.chunk_count),
            ("vstack_chunk_bytes", "Bytes of items held", stats.chunk_bytes),
            ("vstack_registers", "Registers kept", stats.register_count),
            ("vstack_superblocks", "Superblock files", stats.superblocks),
            ("vstack_index_bytes", "Memory of the index", stats.index_bytes),
            (
                "vstack_checkpoint_seq",
                "The log sequence number up to which the index was written down",
                stats.checkpoint_seq,
            ),
            ("vstack_log_seq", "Last durable log sequence number", stats.log_seq),
            (
                "vstack_space_allocated_bytes",
                "Bytes of the filesystem that superblocks take",
                space.iter().map(|one| one.allocated).sum(),
            ),
            (
                "vstack_space_live_bytes",
                "Bytes of their records that are wanted, about",
                space.iter().map(|one| one.live).sum(),
            ),
            (
                "vstack_queue_operations",
                "Operations that wait to be done",
                queues.ops as u64,
            ),
            (
                "vstack_queue_bytes",
                "Bytes of items that wait to be written or are being written",
                queues.op_bytes as u64,
            ),
            (
                "vstack_arriving_bytes",
                "Memory in use for chunks that arrive, until they are written",
                self.memory.arriving.used_bytes() as u64,
            ),
            (
                "vstack_arriving_pool_bytes",
                "Memory set aside for chunks that arrive, in use or not",
                self.memory.arriving.allocated_bytes() as u64,
            ),
            (
                "vstack_sending_bytes",
                "Memory in use for chunks on their way out",
                self.memory.sending.used_bytes() as u64,
            ),
            (
                "vstack_sending_pool_bytes",
                "Memory set aside for chunks on their way out, in use or not",
                self.memory.sending.allocated_bytes() as u64,
            ),
        ] {
            let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        measured::encode(&mut encoder, self.reader.instruments())
    }
}
