//! Making metrics from their definitions.

use prometheus::{
    Error, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry,
};

use super::Definition;

pub(super) fn options(definition: &Definition) -> Opts {
    Opts::new(definition.name, definition.help)
}

pub(super) fn counters(
    registry: &Registry,
    definition: &Definition,
) -> Result<IntCounterVec, Error> {
    let vec = IntCounterVec::new(options(definition), definition.labels)?;
    registry.register(Box::new(vec.clone()))?;
    Ok(vec)
}

pub(super) fn gauges(registry: &Registry, definition: &Definition) -> Result<IntGaugeVec, Error> {
    let vec = IntGaugeVec::new(options(definition), definition.labels)?;
    registry.register(Box::new(vec.clone()))?;
    Ok(vec)
}

pub(super) fn histograms(
    registry: &Registry,
    definition: &Definition,
) -> Result<HistogramVec, Error> {
    let options = HistogramOpts::new(definition.name, definition.help);
    let vec = HistogramVec::new(options.buckets(definition.buckets.to_vec()), definition.labels)?;
    registry.register(Box::new(vec.clone()))?;
    Ok(vec)
}

pub(super) fn each<const N: usize>(
    vec: &IntCounterVec,
    collection: &str,
    values: [&str; N],
) -> Result<[IntCounter; N], Error> {
    let mut children = Vec::with_capacity(N);
    for value in values {
        children.push(vec.get_metric_with_label_values(&[collection, value])?);
    }
    children.try_into().map_err(|_| Error::Msg("as many counters as label values".into()))
}
