//! The comparison as a table, as JSON and as comma-separated values.

use std::fmt::{self, Write as _};

use serde::Serialize;

use super::{figures::Figures, measure::Row};

#[derive(Debug, Serialize)]
pub(super) struct Report {
    machine: Machine,
    rows: Vec<Row>,
}

/// Where figures were taken.
#[derive(Debug, Serialize)]
struct Machine {
    cpu: String,
    cores: usize,
    kernel: String,
    /// Of one minute, after the run and with it.
    load: String,
}

impl Machine {
    fn read() -> Self {
        let text = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let cpuinfo = text("/proc/cpuinfo");
        let cpu = cpuinfo.lines().find_map(|line| line.strip_prefix("model name"));
        let first = |text: String| text.split_whitespace().next().unwrap_or("unknown").to_owned();
        Self {
            cpu: cpu
                .unwrap_or("unknown CPU")
                .trim_start_matches([' ', '\t', ':'])
                .to_owned(),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            kernel: first(text("/proc/sys/kernel/osrelease")),
            load: first(text("/proc/loadavg")),
        }
    }
}

impl Report {
    pub(super) fn new(rows: Vec<Row>) -> Self {
        Self {
            machine: Machine::read(),
            rows,
        }
    }

    /// Every value: sandbox, language, measure, number, value, unit.
    pub(super) fn csv(&self) -> String {
        let mut text = "sandbox,language,measure,number,value,unit\n".to_owned();
        for row in &self.rows {
            for (measure, figures) in measures(row) {
                for (number, value) in figures.raw.iter().enumerate() {
                    writeln!(
                        text,
                        "{},{},{measure},{number},{value},{}",
                        row.sandbox, row.language, figures.unit
                    )
                    .expect("a string takes every write");
                }
            }
        }
        text
    }
}

fn measures(row: &Row) -> Vec<(&'static str, &Figures)> {
    let mut all = vec![
        ("cold", &row.cold),
        ("warm", &row.warm),
        ("throughput", &row.throughput),
        ("cpu", &row.cpu),
        ("cpu_of_work", &row.cpu_of_work),
        ("memory", &row.memory),
    ];
    all.extend(row.floor.iter().map(|(_, figures)| ("floor", figures)));
    all
}

/// With three digits that say something.
fn number(value: f64) -> String {
    match value.abs() {
        huge if huge >= 100.0 => format!("{value:.0}"),
        large if large >= 10.0 => format!("{value:.1}"),
        small => format!("{value:.*}", if small == 0.0 { 0 } else { 2 }),
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Machine {
            cpu,
            cores,
            kernel,
            load,
        } = &self.machine;
        writeln!(f, "{cores} x {cpu}, Linux {kernel}, load {load}\n")?;
        writeln!(
            f,
            "{:<9}{:<12}{:<16}{:>6}{:>10}{:>20}{:>10}{:>10}  unit",
            "sandbox", "language", "measure", "n", "median", "95 % interval", "p95", "p99"
        )?;
        for row in &self.rows {
            for (measure, figures) in measures(row) {
                let [low, high] = figures.median_ci95.map(number);
                writeln!(
                    f,
                    "{:<9}{:<12}{measure:<16}{:>6}{:>10}{:>20}{:>10}{:>10}  {}",
                    row.sandbox.as_str(),
                    row.language.as_str(),
                    figures.n,
                    number(figures.median),
                    format!("{low} to {high}"),
                    number(figures.p95),
                    number(figures.p99),
                    figures.unit
                )?;
            }
        }
        writeln!(f)?;
        for row in &self.rows {
            if let Some((what, figures)) = &row.floor {
                writeln!(
                    f,
                    "{} {}: a cold call takes {:.1} times its floor ({what})",
                    row.sandbox,
                    row.language,
                    row.cold.median / figures.median.max(f64::MIN_POSITIVE)
                )?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use piecework_model::Language;
    use piecework_sandbox::BackendName;

    use super::{super::wall::Wall, *};

    fn report() -> Report {
        let figures = |unit| Figures::of(unit, vec![1.0, 20.5, 300.0]).expect("some");
        Report::new(vec![Row {
            sandbox: BackendName::Oci,
            language: Language::Python,
            wall: Wall {
                runtime: "crun".to_owned(),
                kernel: None,
                has_own_namespaces: true,
            },
            cold: figures("ms"),
            warm: figures("us"),
            throughput: figures("calls/s"),
            cpu: figures("us"),
            cpu_of_work: figures("ms"),
            memory: figures("MiB"),
            floor: Some(("bare crun run of python".to_owned(), figures("ms"))),
        }])
    }

    #[test]
    fn every_value_is_in_the_raw_figures() {
        let csv = report().csv();
        assert_eq!(csv.lines().count(), 1 + 7 * 3, "{csv}");
        assert!(csv.contains("oci,python,cold,1,20.5,ms\n"), "{csv}");
        let json = serde_json::to_value(report()).expect("JSON");
        assert_eq!(json["rows"][0]["cold"]["raw"], serde_json::json!([1.0, 20.5, 300.0]));
        assert_eq!(json["rows"][0]["wall"]["runtime"], "crun");
    }

    #[test]
    fn the_table_shows_each_measure_beside_its_floor() {
        let text = report().to_string();
        for said in ["cold", "throughput", "20.5", "1.00 to 300", "1.0 times its floor"] {
            assert!(text.contains(said), "{said}: {text}");
        }
    }
}
