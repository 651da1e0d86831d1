//! What the turns showed, by side and name. Pure.

use serde_json::json;

use super::scene::Spent;
use super::servers::Side;
use crate::report::Report;
use crate::series::Series;

/// The figures of all turns, in the order in which they were first noted.
#[derive(Debug, Default)]
pub(crate) struct Figures(Vec<(&'static str, String, Vec<f64>)>);

impl Figures {
    pub(crate) fn note(&mut self, side: &'static str, what: &str, value: f64) {
        let found = self
            .0
            .iter_mut()
            .find(|(of, name, _)| *of == side && name == what);
        match found {
            Some((_, _, rounds)) => rounds.push(value),
            None => self.0.push((side, what.to_owned(), vec![value])),
        }
    }

    /// Notes what the server, the load generator and the broker took of the processors, so that
    /// a reader sees which of them was the limit.
    pub(crate) fn note_shares(&mut self, side: &'static str, what: &str, spent: &Spent) {
        let [server, clients, broker] = spent.shares();
        self.note(side, &format!("% core of server, {what}"), server);
        self.note(side, &format!("% core of clients, {what}"), clients);
        if side == Side::Ours.name() || side == super::latency::BARE || side == super::stored::BARE
        {
            self.note(side, &format!("% core of broker, {what}"), broker);
        }
    }

    pub(crate) fn series(&self, side: &str, what: &str) -> Option<Series> {
        let mut all = self.0.iter();
        all.find(|(of, name, _)| *of == side && name == what)
            .map(|(_, _, rounds)| Series::of(rounds.clone()))
    }

    pub(crate) fn median(&self, side: &str, what: &str) -> Option<f64> {
        self.series(side, what).map(|series| series.median)
    }

    /// The last round of a side, in one line.
    pub(crate) fn last_of(&self, side: &str) -> String {
        let of = self.0.iter().filter(|(of, _, _)| *of == side);
        let last = of.filter_map(|(_, what, rounds)| {
            let value = rounds.last()?;
            (!what.starts_with('%')).then(|| format!("{what} {value:.2}"))
        });
        last.collect::<Vec<_>>().join("; ")
    }

    /// Adds everything to a report.
    pub(crate) fn add_to(&self, report: &mut Report) {
        for (side, what, rounds) in &self.0 {
            let figures = if *side == Side::Ours.name() {
                &mut report.ours
            } else {
                report.peers.entry(side).or_default()
            };
            figures.insert(what.clone(), json!(Series::of(rounds.clone())));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_of_one_figure_are_one_series() {
        let mut figures = Figures::default();
        for value in [1.0, 3.0, 2.0] {
            figures.note("ours", "a", value);
        }
        figures.note("nchan", "a", 9.0);
        assert_eq!(figures.median("ours", "a"), Some(2.0));
        assert_eq!(figures.median("nchan", "a"), Some(9.0));
        assert_eq!(figures.median("ours", "b"), None);
    }
}
