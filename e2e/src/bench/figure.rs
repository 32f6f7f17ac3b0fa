//! Samples and what is said of them.

use std::time::{Duration, Instant};

use anyhow::Result;
use serde::Serialize;

/// What a set of samples comes to, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(super) struct Figure {
    pub(super) count: usize,
    pub(super) min: f64,
    pub(super) median: f64,
    pub(super) p99: f64,
}

impl Figure {
    pub(super) fn of(samples: &[Duration]) -> Self {
        let mut sorted: Vec<f64> = samples.iter().map(|sample| sample.as_secs_f64() * 1e3).collect();
        sorted.sort_by(f64::total_cmp);
        let Some(last) = sorted.len().checked_sub(1) else { return Self::default() };
        Self { count: sorted.len(), min: sorted[0], median: sorted[last / 2], p99: sorted[last * 99 / 100] }
    }
}

/// Times `work` once for each of `count` rounds, after one round that is not counted.
pub(super) fn measure(count: usize, mut work: impl FnMut(usize) -> Result<()>) -> Result<Figure> {
    work(0)?;
    let mut samples = Vec::with_capacity(count);
    for round in 1..=count {
        let start = Instant::now();
        work(round)?;
        samples.push(start.elapsed());
    }
    Ok(Figure::of(&samples))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_has_the_middle_and_the_slow_end() {
        let samples: Vec<Duration> = (1..=101).rev().map(Duration::from_millis).collect();
        assert_eq!(Figure::of(&samples), Figure { count: 101, min: 1.0, median: 51.0, p99: 100.0 });
        assert_eq!(Figure::of(&[]), Figure::default());
    }
}
