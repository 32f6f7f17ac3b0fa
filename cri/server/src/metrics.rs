//! cAdvisor's metrics by the CRI: the names, labels and meanings that dashboards know from the kubelet's
//! /metrics/cadvisor.
//!
//! The CRI carries whole numbers, so seconds are rounded down. A metric that could not be read has no value: a cgroup
//! whose kernel has no pressure accounting, say. Everything is read when asked for, hence no timestamps.

mod container;
mod descriptors;
mod pod;
mod process;

pub(crate) use descriptors::all as descriptors;
pub(crate) use pod::of;

use berth_cri_proto::v1 as cri;
use descriptors::Descriptor;

/// The values of one cgroup or pod, with the labels that they share.
#[derive(Debug)]
struct Values {
    labels: [String; descriptors::BASE.len()],
    metrics: Vec<cri::Metric>,
}

impl Values {
    fn new(labels: [String; descriptors::BASE.len()]) -> Self {
        Self { labels, metrics: Vec::new() }
    }

    fn put(&mut self, descriptor: &Descriptor<0>, value: impl Into<Option<u64>>) {
        self.put_for(descriptor, [], value);
    }

    /// A value with the descriptor's own labels; nothing where there is none.
    fn put_for<const N: usize>(
        &mut self,
        descriptor: &Descriptor<N>,
        labels: [&str; N],
        value: impl Into<Option<u64>>,
    ) {
        let Some(value) = value.into() else { return };
        let own = labels.into_iter().map(str::to_owned);
        self.metrics.push(cri::Metric {
            name: descriptor.name.to_owned(),
            timestamp: 0,
            metric_type: descriptor.kind.into(),
            label_values: self.labels.iter().cloned().chain(own).collect(),
            value: Some(cri::UInt64Value { value }),
        });
    }
}
