//! What the long tests share: numbers from the environment, percentiles, and reports for machines.

use std::str::FromStr;

use serde_json::Value;

/// An environment variable as a number; panics with a sentence when it is none.
pub fn number<T: FromStr>(name: &str, default: T) -> T {
    std::env::var(name)
        .map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}")))
}

/// The smallest sample that so many per cent of all do not exceed; `None` without samples.
pub fn percentile<T: Copy + Ord>(samples: &[T], per_cent: usize) -> Option<T> {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    sorted.get((samples.len() * per_cent).div_ceil(100).saturating_sub(1)).copied()
}

const DIRECTORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/bench");

/// Writes `target/bench/<name>.json` and tells where.
pub fn write(name: &str, report: &Value) {
    std::fs::create_dir_all(DIRECTORY).expect("a directory for the report");
    std::fs::write(format!("{DIRECTORY}/{name}.json"), format!("{report:#}\n")).expect("failed to write the report");
    println!("\n{DIRECTORY}/{name}.json");
}

/// The same for rows that a field names: a row that this run has not measured stays as an earlier one left it.
pub fn write_rows(name: &str, field: &str, mut rows: Vec<Value>) {
    let earlier = std::fs::read(format!("{DIRECTORY}/{name}.json"))
        .ok()
        .and_then(|text| serde_json::from_slice::<Vec<Value>>(&text).ok());
    let mut all = earlier.unwrap_or_default();
    all.retain(|row| !rows.iter().any(|new| new[field] == row[field]));
    all.append(&mut rows);
    write(name, &Value::from(all));
}
