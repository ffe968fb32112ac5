//! Counters by one label whose values are known when the program is compiled, so that their number is bounded whatever
//! others send. All of them are shown from the start: Prometheus' `increase` misses a step to 1 from nothing.

use std::fmt::{Error, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;

/// Status codes of answers that are counted one by one; `none`: there was no answer.
pub const CODES: &[&str] =
    &["200", "201", "400", "401", "403", "404", "409", "410", "422", "429", "500", "503", "504", "none", "other"];

/// Counters by one label. Clones count together.
#[derive(Clone, Debug)]
pub struct CountsBy {
    label: &'static str,
    /// The last one stands for all that are not listed.
    values: &'static [&'static str],
    counts: Arc<[AtomicU64]>,
}

impl CountsBy {
    pub fn new(label: &'static str, values: &'static [&'static str]) -> Self {
        Self { label, values, counts: values.iter().map(|_| AtomicU64::new(0)).collect() }
    }

    /// Counts requests by the status code of their answer.
    pub fn of_codes() -> Self {
        Self::new("code", CODES)
    }

    pub fn inc(&self, value: &str) {
        let known = self.values.iter().position(|known| *known == value);
        if let Some(count) = self.counts.get(known.unwrap_or(self.values.len().saturating_sub(1))) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts the answer to a request; `None` if there was none.
    pub fn inc_code(&self, code: Option<u16>) {
        match code {
            Some(code) => self.inc(&code.to_string()),
            None => self.inc("none"),
        }
    }

    pub fn get(&self, value: &str) -> u64 {
        let known = self.values.iter().position(|known| *known == value);
        known.and_then(|index| self.counts.get(index)).map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// # Errors
    /// When the text cannot be written.
    pub fn encode(&self, encoder: &mut DescriptorEncoder, name: &str, help: &str) -> Result {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        self.values.iter().zip(self.counts.iter()).try_for_each(|(value, count)| {
            let counter = ConstCounter::new(count.load(Ordering::Relaxed));
            counter.encode(family.encode_family(&[(self.label, *value)])?).map_err(|_| Error)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_listed_counts_as_the_last_value_and_clones_count_together() {
        let counts = CountsBy::of_codes();
        let clone = counts.clone();
        for code in [Some(200), Some(418), Some(599), None] {
            clone.inc_code(code);
        }
        assert_eq!(["200", "none", "other", "404", "418"].map(|code| counts.get(code)), [1, 1, 2, 0, 0]);
    }
}
