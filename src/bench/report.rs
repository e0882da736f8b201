//! The result of a benchmark: one row per kind of work, as a table for people and as JSON for machines.

use std::fmt::{self, Write as _};

use serde::Serialize;

/// What a row counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Unit {
    /// Events per second: more is better.
    #[serde(rename = "events/s")]
    EventsPerSecond,
    /// Documents per second: more is better.
    #[serde(rename = "documents/s")]
    DocumentsPerSecond,
    /// Milliseconds: less is better.
    #[serde(rename = "ms")]
    Milliseconds,
    /// Seconds: less is better.
    #[serde(rename = "s")]
    Seconds,
    /// Snapshots: more is better.
    #[serde(rename = "snapshots")]
    Snapshots,
    /// MiB: less is better.
    #[serde(rename = "MiB")]
    Mebibytes,
}

/// What a row should reach.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// Ours divided by the baseline.
    RatioAtLeast(f64),
    /// Ours divided by the baseline.
    RatioAtMost(f64),
    /// Ours, in the row's unit.
    AtMost(f64),
    /// Ours, in the row's unit: at most so many times the baseline, and so much more.
    AtMostTimes {
        /// Factor on the baseline.
        times: f64,
        /// What comes on top, in the row's unit.
        and: f64,
    },
    /// None was set.
    None,
}

/// One kind of work.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What was done.
    pub work: String,
    /// What the numbers count.
    pub unit: Unit,
    /// Ours, one number per repetition.
    pub ours: Vec<f64>,
    /// The baseline's, measured right beside ours. Empty where there is none.
    pub bare: Vec<f64>,
    /// What the baseline is.
    pub baseline: &'static str,
    /// What should be reached.
    pub target: Target,
    /// CPU time of the daemon, in seconds per million events.
    pub daemon_cpu: Vec<f64>,
    /// CPU time of the server under the daemon, in seconds per million events.
    pub server_cpu: Vec<f64>,
    /// CPU time of the server under the baseline, in seconds per million events.
    pub bare_server_cpu: Vec<f64>,
    /// The most memory that the daemon had at once, in MiB.
    pub peak_mib: Vec<f64>,
    /// From the start of the daemon's process until it read, in seconds. Not part of `ours`.
    pub start_seconds: Vec<f64>,
}

impl Row {
    /// A row without numbers.
    pub fn new(
        work: impl Into<String>,
        unit: Unit,
        baseline: &'static str,
        target: Target,
    ) -> Self {
        Self {
            work: work.into(),
            unit,
            ours: Vec::new(),
            bare: Vec::new(),
            baseline,
            target,
            daemon_cpu: Vec::new(),
            server_cpu: Vec::new(),
            bare_server_cpu: Vec::new(),
            peak_mib: Vec::new(),
            start_seconds: Vec::new(),
        }
    }

    /// The median of ours divided by the baseline, pair by pair, so that a slow moment of the machine
    /// hits both sides.
    pub fn ratio(&self) -> Option<f64> {
        let pairs = self.ours.iter().zip(&self.bare);
        median(&pairs.map(|(ours, bare)| ours / bare).collect::<Vec<_>>())
    }

    /// Whether the target is reached; `None` where there is no target or no number.
    pub fn is_reached(&self) -> Option<bool> {
        match self.target {
            Target::RatioAtLeast(least) => self.ratio().map(|ratio| ratio >= least),
            Target::RatioAtMost(most) => self.ratio().map(|ratio| ratio <= most),
            Target::AtMost(most) => median(&self.ours).map(|ours| ours <= most),
            Target::AtMostTimes { times, and } => {
                let pairs = self.ours.iter().zip(&self.bare);
                let beyond = pairs.map(|(ours, bare)| ours - times * bare).collect::<Vec<_>>();
                median(&beyond).map(|beyond| beyond <= and)
            }
            Target::None => None,
        }
    }
}

/// All rows.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// One per kind of work.
    pub rows: Vec<Row>,
}

/// The middle value, or the mean of the two in the middle; `None` without values.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    Some(if sorted.len().is_multiple_of(2) { (sorted[middle - 1] + upper) / 2.0 } else { upper })
}

/// The distance between the largest and the smallest value, relative to the median, in percent.
fn spread(values: &[f64]) -> Option<f64> {
    let (least, most) =
        (values.iter().copied().reduce(f64::min)?, values.iter().copied().reduce(f64::max)?);
    median(values).filter(|_| values.len() > 1).map(|median| 100.0 * (most - least) / median)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let header = [
            "work",
            "ours",
            "±%",
            "baseline",
            "bare",
            "±%",
            "ratio",
            "target",
            "",
            "daemon s/M",
            "mongod s/M",
            "bare mongod s/M",
            "peak MiB",
            "start s",
        ];
        let rows: Vec<[String; 14]> = self.rows.iter().map(cells).collect();
        let mut widths = header.map(|cell| cell.chars().count());
        for row in &rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        line(f, &header.map(str::to_owned), &widths)?;
        let rule = widths.map(|width| "-".repeat(width));
        line(f, &rule, &widths)?;
        rows.iter().try_for_each(|row| line(f, row, &widths))
    }
}

fn line(f: &mut fmt::Formatter<'_>, cells: &[String; 14], widths: &[usize; 14]) -> fmt::Result {
    for (cell, width) in cells.iter().zip(widths) {
        write!(f, "| {cell:<width$} ")?;
    }
    writeln!(f, "|")
}

fn cells(row: &Row) -> [String; 14] {
    let digits = match row.unit {
        Unit::EventsPerSecond | Unit::DocumentsPerSecond | Unit::Snapshots => 0,
        _ => 2,
    };
    let number = |values: &[f64], digits: usize| {
        median(values).map_or_else(String::new, |value| format!("{value:.digits$}"))
    };
    let percent = |values: &[f64]| spread(values).map_or_else(String::new, |s| format!("{s:.0}"));
    let unit = match row.unit {
        Unit::EventsPerSecond => "/s",
        Unit::DocumentsPerSecond => " docs/s",
        Unit::Milliseconds => " ms",
        Unit::Seconds => " s",
        Unit::Snapshots => " snapshots",
        Unit::Mebibytes => " MiB",
    };
    let mut target = String::new();
    // Writing to a string cannot fail.
    let _infallible = match row.target {
        Target::RatioAtLeast(least) => write!(target, ">= {least}"),
        Target::RatioAtMost(most) => write!(target, "<= {most}"),
        Target::AtMost(most) => write!(target, "<= {most}{unit}"),
        Target::AtMostTimes { times, and } => write!(target, "<= {times} x + {and}{unit}"),
        Target::None => Ok(()),
    };
    [
        row.work.clone(),
        format!("{}{unit}", number(&row.ours, digits)),
        percent(&row.ours),
        row.baseline.to_owned(),
        number(&row.bare, digits),
        percent(&row.bare),
        row.ratio().map_or_else(String::new, |ratio| format!("{ratio:.2}")),
        target,
        row.is_reached().map_or("", |reached| if reached { "ok" } else { "MISSED" }).to_owned(),
        number(&row.daemon_cpu, 2),
        number(&row.server_cpu, 2),
        number(&row.bare_server_cpu, 2),
        number(&row.peak_mib, 0),
        number(&row.start_seconds, 2),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }

    #[test]
    fn ratios_are_taken_pair_by_pair() {
        let mut row = Row::new("x", Unit::EventsPerSecond, "y", Target::RatioAtLeast(0.5));
        assert_eq!((row.ratio(), row.is_reached()), (None, None));
        (row.ours, row.bare) = (vec![1.0, 10.0, 6.0], vec![2.0, 20.0, 10.0]);
        assert_eq!((row.ratio(), row.is_reached()), (Some(0.5), Some(true)));
        row.target = Target::RatioAtMost(0.4);
        assert_eq!(row.is_reached(), Some(false));
        row.target = Target::AtMostTimes { times: 0.4, and: 2.0 };
        assert_eq!(row.is_reached(), Some(true), "0.2, 2 and 2 beyond 0.4 times the baseline");
        row.target = Target::AtMostTimes { times: 0.4, and: 1.0 };
        assert_eq!(row.is_reached(), Some(false));
    }
}
