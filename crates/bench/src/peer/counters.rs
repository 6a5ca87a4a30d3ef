//! The engine's counters of a peer, under the names that a storage node gives them.

use std::fmt;

use vstack_engine::{FileDisk, Reader};
use vstack_service::prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::counter::ConstCounter,
};

/// Read when they are asked for.
pub struct EngineCounters(pub Reader<FileDisk>);

impl fmt::Debug for EngineCounters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EngineCounters")
    }
}

impl Collector for EngineCounters {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let stats = self.0.stats();
        for (name, help, value) in [
            ("vstack_engine_syncs", "Syncs of data", stats.syncs),
            ("vstack_engine_batches", "Batches written", stats.batches),
        ] {
            let counter = ConstCounter::new(value);
            counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)?;
        }
        Ok(())
    }
}
