//! The engine's histograms in the OpenMetrics text format.

use std::fmt;

use vstack_engine::{Distribution, Instruments, Timed};
use vstack_service::prometheus_client::{
    encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet},
    metrics::MetricType,
};

/// Times are counted in microseconds and told in seconds.
const MICROSECONDS_OF_A_SECOND: f64 = 1e6;

/// Adds them to what a collector says.
pub(crate) fn encode(encoder: &mut DescriptorEncoder<'_>, instruments: &Instruments) -> fmt::Result {
    let mut times = encoder.encode_descriptor(
        "vstack_operation_seconds",
        "How long operations of the node and its engine took, by operation",
        None,
        MetricType::Histogram,
    )?;
    for what in Timed::ALL {
        let found = instruments.times(what).distribution();
        histogram(
            times.encode_family(&[("operation", what.as_str())])?,
            &found,
            MICROSECONDS_OF_A_SECOND,
        )?;
    }
    for (name, help, histogram_of) in [
        (
            "vstack_batch_operations",
            "Operations of the batches that the engine committed",
            &instruments.batch_ops,
        ),
        (
            "vstack_batch_bytes",
            "Bytes of the items in the batches that the engine committed",
            &instruments.batch_bytes,
        ),
    ] {
        let metric = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
        histogram(metric, &histogram_of.distribution(), 1.0)?;
    }
    Ok(())
}

#[expect(
    clippy::cast_precision_loss,
    reason = "sums and bounds that anybody reads have less than 52 bits"
)]
fn histogram(mut metric: MetricEncoder<'_>, found: &Distribution, divisor: f64) -> fmt::Result {
    let scaled = |value: u64| value as f64 / divisor;
    let mut buckets: Vec<(f64, u64)> = found
        .buckets
        .iter()
        .map(|(bound, count)| (scaled(*bound), *count))
        .collect();
    buckets.push((f64::INFINITY, found.above));
    metric.encode_histogram::<NoLabelSet>(scaled(found.sum), found.count(), &buckets, None)
}
