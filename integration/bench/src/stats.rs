//! Order statistics of a series.

/// Nearest-rank percentiles, in the unit of the samples.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Summary {
    pub median: f64,
    pub p10: f64,
    pub p99: f64,
}

impl Summary {
    /// In another unit.
    pub fn scaled(self, factor: f64) -> Self {
        Self { median: self.median * factor, p10: self.p10 * factor, p99: self.p99 * factor }
    }
}

/// `None` for an empty series.
pub fn summary(values: impl Iterator<Item = u64>) -> Option<Summary> {
    let mut sorted: Vec<u64> = values.collect();
    sorted.sort_unstable();
    let (&middle, &lower) = (sorted.get(sorted.len() / 2)?, sorted.get(sorted.len().saturating_sub(1) / 2)?);
    let median = f64::midpoint(middle as f64, lower as f64);
    Some(Summary { median, p10: rank(&sorted, 10), p99: rank(&sorted, 99) })
}

/// Smallest value that at least `percent` of the samples do not exceed.
fn rank(sorted: &[u64], percent: usize) -> f64 {
    let position = (sorted.len() * percent).div_ceil(100).max(1);
    sorted[position - 1] as f64
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    #[test]
    fn percentiles_of_a_hundred_values_are_those_values() {
        let summary = summary(1..=100).unwrap();
        assert_eq!(summary, Summary { median: 50.5, p10: 10.0, p99: 99.0 });
    }

    #[test]
    fn one_sample_is_every_percentile_and_none_has_no_summary() {
        assert_eq!(summary([7].into_iter()).unwrap(), Summary { median: 7.0, p10: 7.0, p99: 7.0 });
        assert_eq!(summary(std::iter::empty()), None);
    }

    #[test]
    fn order_of_the_samples_does_not_matter() {
        assert_eq!(summary([3, 1, 2].into_iter()).unwrap().median, 2.0);
    }
}
