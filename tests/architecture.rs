//! Holds the house to its own rules: which room may know which, what a pure room may not touch, and how long a file may
//! be.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::{Path, PathBuf};

/// Rooms, and the rooms that each may use.
const ROOMS: [(&str, &[&str]); 8] = [
    ("api", &[]),
    ("flink", &["api"]),
    ("lease", &["api"]),
    ("cluster", &["api", "flink", "lease"]),
    ("world", &["api", "flink", "lease"]),
    ("operator", &["api", "flink", "lease", "cluster", "world", "telemetry"]),
    ("gateway", &["api", "flink", "lease", "cluster", "world", "telemetry"]),
    ("telemetry", &["api", "world"]),
];

/// Rooms and files without I/O, without async and without a clock: time comes in as an argument.
const PURE: [&str; 6] = ["api", "flink", "lease", "cluster", "gateway/asker.rs", "gateway/translate.rs"];

const IMPURE: [&str; 20] = [
    "kube::Client",
    "kube::Api<",
    "kube::client",
    "kube::runtime",
    "tokio",
    "futures",
    "async fn",
    "hyper",
    "axum",
    "reqwest",
    "rustix",
    "tracing",
    "Instant",
    "SystemTime",
    "Timestamp::now",
    "std::fs",
    "std::env",
    "std::net::Tcp",
    "std::process",
    "std::thread",
];

const LONGEST_FILE: usize = 400;

struct Source {
    /// Relative to the root of the repository.
    path: String,
    lines: Vec<String>,
}

impl Source {
    /// Numbered lines of the program itself: no comments, no unit tests.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let tests = self.path.ends_with("/tests.rs") || self.path.contains("/tests/");
        let lines = self.lines.iter().enumerate().map(|(index, line)| (index + 1, line.as_str()));
        let code = lines.take_while(move |(_, line)| !tests && line.trim() != "#[cfg(test)]");
        code.filter(|(_, line)| !line.trim_start().starts_with("//"))
    }

    /// `src/lease/term.rs` belongs to the room `lease`.
    fn is_in(&self, place: &str) -> bool {
        let inside = self.path.strip_prefix("src/").unwrap_or_default();
        inside == place || inside == format!("{place}.rs") || inside.starts_with(&format!("{place}/"))
    }
}

fn sources(directory: &str) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    let mut open: Vec<PathBuf> = vec![root.join(directory)];
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let lines = fs::read_to_string(&path).unwrap().lines().map(str::to_owned).collect();
            found.push(Source { path: path.strip_prefix(root).unwrap().display().to_string(), lines });
        }
    }
    assert!(!found.is_empty(), "no Rust files in {directory}");
    found
}

/// Every offence at once, so that one run shows all.
fn assert_none(rule: &str, offences: &[String]) {
    assert!(offences.is_empty(), "{rule}:\n  {}", offences.join("\n  "));
}

#[test]
fn a_room_uses_only_the_rooms_below_it() {
    let mut offences = Vec::new();
    for source in sources("src") {
        let Some((room, below)) = ROOMS.iter().find(|(room, _)| source.is_in(room)) else {
            let top = ["src/lib.rs", "src/main.rs", "src/cli.rs"];
            assert!(top.contains(&source.path.as_str()), "{} is in no room of the map in this test", source.path);
            continue;
        };
        for (number, line) in source.code() {
            for (other, _) in ROOMS.iter().filter(|(other, _)| other != room && !below.contains(other)) {
                if line.contains(&format!("crate::{other}")) {
                    offences.push(format!("{}:{number} uses {other}: {}", source.path, line.trim()));
                }
            }
        }
    }
    assert_none("a room uses a room that is not below it", &offences);
}

#[test]
fn pure_rooms_touch_neither_network_nor_files_nor_runtime_nor_clock() {
    let mut offences = Vec::new();
    for source in sources("src").iter().filter(|source| PURE.iter().any(|place| source.is_in(place))) {
        for (number, line) in source.code() {
            if let Some(word) = IMPURE.iter().find(|&&word| line.contains(word)) {
                offences.push(format!("{}:{number} has {word}: {}", source.path, line.trim()));
            }
        }
    }
    assert_none("a pure room has an effect", &offences);
}

#[test]
fn no_file_is_longer_than_one_can_hold_in_the_head() {
    let all = ["src", "tests"].into_iter().flat_map(sources);
    let long = all.filter(|source| source.lines.len() > LONGEST_FILE);
    let offences: Vec<String> = long.map(|source| format!("{}: {} lines", source.path, source.lines.len())).collect();
    assert_none(&format!("a file is longer than {LONGEST_FILE} lines"), &offences);
}

#[test]
fn nothing_panics_on_purpose_outside_tests() {
    let mut offences = Vec::new();
    for source in sources("src") {
        let code = source.code();
        let panics = code
            .filter(|(_, line)| [".unwrap()", ".expect(", "panic!(", "todo!("].iter().any(|word| line.contains(word)));
        offences.extend(panics.map(|(number, line)| format!("{}:{number}: {}", source.path, line.trim())));
    }
    assert_none("something panics outside tests", &offences);
}
