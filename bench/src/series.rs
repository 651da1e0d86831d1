//! The figures of several rounds: median and spread. Pure.

use serde::Serialize;

/// One figure, measured in several rounds.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct Series {
    /// The middle one, or the mean of the two in the middle.
    pub(crate) median: f64,
    /// The smallest.
    pub(crate) min: f64,
    /// The largest.
    pub(crate) max: f64,
    /// In the order in which they were measured.
    pub(crate) rounds: Vec<f64>,
}

impl Series {
    pub(crate) fn of(rounds: Vec<f64>) -> Self {
        let mut sorted = rounds.clone();
        sorted.sort_by(f64::total_cmp);
        let half = sorted.len() / 2;
        let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
        let median = match sorted.len() % 2 {
            1 => at(half),
            _ => f64::midpoint(at(half.wrapping_sub(1)), at(half)),
        };
        Self {
            median,
            min: at(0),
            max: at(sorted.len().wrapping_sub(1)),
            rounds,
        }
    }
}

/// The value that so many per cent do not exceed.
pub(crate) fn percentile(values: &mut [f64], percent: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "an index into something that is in memory"
    )]
    let index = (values.len() as f64 * percent / 100.0).ceil() as usize;
    values
        .get(index.saturating_sub(1))
        .copied()
        .unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let mut values: Vec<_> = (1..=200).rev().map(f64::from).collect();
        for (percent, wants) in [(50.0, 100.0), (99.0, 198.0), (100.0, 200.0)] {
            assert!((percentile(&mut values, percent) - wants).abs() < 1e-9);
        }
        assert!(percentile(&mut [], 50.0).is_nan());
    }

    #[test]
    fn the_median_is_the_middle_one() {
        let odd = Series::of(vec![3.0, 1.0, 2.0]);
        assert_eq!((odd.median, odd.min, odd.max), (2.0, 1.0, 3.0));
        for (rounds, median) in [(vec![4.0, 1.0, 2.0, 3.0], 2.5), (vec![7.0], 7.0)] {
            assert!((Series::of(rounds).median - median).abs() < 1e-9);
        }
        assert!(Series::of(Vec::new()).median.is_nan());
    }
}
