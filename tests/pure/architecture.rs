//! Holds the code to its own rules: which room may use which, what a pure room may not touch, how long files and
//! lines are.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Rooms, and the rooms that each may use. A file belongs to the longest room that its path begins with.
const ROOMS: [(&str, &[&str]); 18] = [
    ("api", &[]),
    ("flink", &["api"]),
    ("lease", &["api"]),
    ("ledger", &["api", "flink", "lease"]),
    ("ha_data", &["api", "flink", "lease", "ledger"]),
    ("cluster", &["api", "flink", "lease", "ledger", "ha_data"]),
    ("quorum", &["flink", "lease", "ha_data"]),
    ("world", &["api", "flink", "lease", "ledger", "ha_data", "quorum"]),
    ("telemetry", &["api", "world"]),
    ("operator", &["api", "flink", "lease", "ledger", "ha_data", "cluster", "world", "telemetry"]),
    ("plugin", &["api", "flink", "lease", "ledger", "ha_data", "cluster", "world"]),
    ("gateway/gc", &[]),
    ("gateway/proxy", &["gateway/gc"]),
    ("gateway/application", &["gateway/gc"]),
    ("gateway/election", &["gateway/proxy", "gateway/gc", "gateway/application"]),
    ("gateway/base", &["gateway", "gateway/gc", "gateway/application", "gateway/election"]),
    ("gateway/quorum", &["gateway/base", "gateway/gc", "gateway/application", "gateway/election"]),
    (
        "gateway",
        &["gateway/base", "gateway/proxy", "gateway/gc", "gateway/application", "gateway/election", "gateway/quorum"],
    ),
];

/// Rooms outside of `gateway` that every room inside it may use.
const BELOW_GATEWAY: [&str; 9] =
    ["api", "flink", "lease", "ledger", "ha_data", "quorum", "cluster", "world", "telemetry"];

/// Files in the folder `gateway` itself that every room inside it may use. All others there only wire.
const GATEWAY_FLOOR: [&str; 9] = [
    "counters",
    "events",
    "health",
    "recovery",
    "signals",
    "storage_arguments",
    "tasks",
    "tenure",
    "zookeeper_arguments",
];

/// Rooms and files without I/O, without async and without a clock: time comes in as an argument.
const PURE: [&str; 12] = [
    "api",
    "flink",
    "lease",
    "ledger",
    "ha_data",
    "quorum",
    "cluster",
    "gateway/election/peer_messages.rs",
    "gateway/proxy/request.rs",
    "gateway/proxy/translate.rs",
    "plugin/changes.rs",
    "plugin/view",
];

const IMPURE: [&str; 20] = [
    "kube::Client",
    "kube::Api<",
    "kube::client",
    "kube_runtime",
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

const LONGEST_FILE: usize = 450;
const LONGEST_LINE: usize = 120;

struct Source {
    /// Relative to the root of the repository.
    path: String,
    lines: Vec<String>,
}

impl Source {
    /// Path below `src`.
    fn inside(&self) -> &str {
        self.path.strip_prefix("src/").unwrap_or_default()
    }

    /// Numbered lines of the program itself: no comments, no unit tests, wherever in the file those stand.
    fn code(&self) -> Vec<(usize, &str)> {
        if self.path.ends_with("/tests.rs") || self.path.contains("/tests/") {
            return Vec::new();
        }
        let mut code = Vec::new();
        let mut lines = self.lines.iter().enumerate();
        while let Some((index, line)) = lines.next() {
            if line.trim() == "#[cfg(test)]" {
                let indentation = &line[..line.len() - line.trim_start().len()];
                let item = lines.by_ref().map(|(_, line)| line).find(|line| !line.trim_start().starts_with("#["));
                if item.is_some_and(|item| item.ends_with('{')) {
                    let end = format!("{indentation}}}");
                    lines.by_ref().find(|(_, line)| **line == end);
                }
            } else if !line.trim_start().starts_with("//") {
                code.push((index + 1, line.as_str()));
            }
        }
        code
    }

    /// `lease/term.rs` is the module `lease::term`.
    fn module(&self) -> Vec<&str> {
        let path = self.inside().trim_end_matches(".rs");
        let path = path.strip_suffix("/mod").unwrap_or(path);
        path.split('/').collect()
    }

    fn is_in(&self, place: &str) -> bool {
        let inside = self.inside();
        inside == place || inside == format!("{place}.rs") || inside.starts_with(&format!("{place}/"))
    }

    /// Paths of our own crate that the code names, from the root of the crate, each with its line.
    fn uses(&self) -> Vec<(usize, String)> {
        let mut found = Vec::new();
        let mut statement: Option<(usize, String)> = None;
        for (number, line) in self.code() {
            let line = line.trim();
            if let Some((_, text)) = &mut statement {
                text.push_str(line);
            } else if let Some(tree) = line.strip_prefix("pub use ").or_else(|| line.strip_prefix("use ")) {
                statement = Some((number, tree.to_owned()));
            } else {
                let is_path = |c: char| c.is_alphanumeric() || "_:".contains(c);
                let begins = ["crate::", "super::"].into_iter().flat_map(|word| line.match_indices(word));
                let paths = begins.filter(|(at, _)| !line[..*at].ends_with(is_path)).map(|(at, _)| &line[at..]);
                let whole = paths.map(|path| path.split(|c| !is_path(c)).next().unwrap_or_default());
                found.extend(whole.filter_map(|path| Some((number, self.absolute(path)?))));
            }
            if let Some((number, text)) = statement.take_if(|(_, text)| text.ends_with(';')) {
                let paths = expand("", text.trim_end_matches(';'));
                found.extend(paths.into_iter().filter_map(|path| Some((number, self.absolute(&path)?))));
            }
        }
        found
    }

    fn absolute(&self, path: &str) -> Option<String> {
        let mut parts: Vec<&str> = path.split("::").collect();
        let mut base = self.module();
        match parts[0] {
            "crate" => base.clear(),
            "self" => {}
            "super" => {
                while parts[0] == "super" {
                    base.pop();
                    parts.remove(0);
                }
                parts.insert(0, "super");
            }
            _ => return None,
        }
        parts.remove(0);
        Some([base, parts].concat().join("::"))
    }
}

/// The paths of a tree of imports: `a::{b, c::{d, e}}` is `a::b`, `a::c::d`, `a::c::e`.
fn expand(prefix: &str, tree: &str) -> Vec<String> {
    let Some((head, rest)) = tree.split_once('{') else { return vec![format!("{prefix}{}", tree.trim())] };
    let prefix = format!("{prefix}{}", head.trim());
    let (mut depth, mut from, mut paths) = (0, 0, Vec::new());
    let body = &rest[..rest.rfind('}').unwrap()];
    for (at, c) in body.char_indices().chain([(body.len(), ',')]) {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                paths.extend(Some(&body[from..at]).filter(|one| !one.trim().is_empty()));
                from = at + 1;
            }
            _ => {}
        }
    }
    paths.into_iter().flat_map(|path| expand(&prefix, path)).collect()
}

/// The room of a path such as `gateway/gc/ledger`.
fn room_of(path: &str) -> Option<&'static str> {
    let is_in = |place: &str| path == place || path.starts_with(&format!("{place}/"));
    if GATEWAY_FLOOR.iter().any(|file| is_in(&format!("gateway/{file}"))) {
        return Some("gateway floor");
    }
    ROOMS.iter().map(|(room, _)| *room).filter(|room| is_in(room)).max_by_key(|room| room.len())
}

fn may_use(room: &str, other: &str) -> bool {
    let below: &[&str] = ROOMS.iter().find(|(name, _)| *name == room).map_or(&[], |(_, below)| below);
    let inside_gateway = room.starts_with("gateway");
    room == other
        || below.contains(&other)
        || inside_gateway && (other == "gateway floor" || BELOW_GATEWAY.contains(&other))
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
pub fn assert_none(rule: &str, offences: &[String]) {
    assert!(offences.is_empty(), "{rule}:\n  {}", offences.join("\n  "));
}

#[test]
fn a_room_uses_only_the_rooms_below_it() {
    let mut offences = Vec::new();
    for source in sources("src") {
        let Some(room) = room_of(source.inside().trim_end_matches(".rs")) else {
            let top = ["src/lib.rs", "src/main.rs", "src/cli.rs"];
            assert!(top.contains(&source.path.as_str()), "{} is in no room of the map in this test", source.path);
            continue;
        };
        for (number, path) in source.uses() {
            let other = room_of(&path.replace("::", "/"));
            offences.extend(
                other
                    .filter(|other| !may_use(room, other))
                    .map(|other| format!("{}:{number} uses {other}: {path}", source.path)),
            );
        }
    }
    assert_none("a room uses a room that is not below it", &offences);
}

/// Groups of files that use each other, each with what makes one thing of them.
const DEFENDED: [(&[&str], &str); 0] = [];

/// Which file each file uses, by their numbers.
fn arrows(sources: &[Source]) -> Vec<BTreeSet<usize>> {
    let modules: BTreeMap<String, usize> =
        sources.iter().enumerate().map(|(number, source)| (source.module().join("::"), number)).collect();
    let target = |path: &str| {
        let ends = path.match_indices("::").map(|(at, _)| at).chain([path.len()]);
        ends.filter_map(|end| modules.get(&path[..end]).copied()).last()
    };
    let of = |source: &Source| source.uses().iter().filter_map(|(_, path)| target(path)).collect();
    sources.iter().map(of).collect()
}

fn reached(from: usize, arrows: &[BTreeSet<usize>]) -> BTreeSet<usize> {
    let (mut seen, mut open) = (BTreeSet::new(), vec![from]);
    while let Some(file) = open.pop() {
        open.extend(arrows[file].iter().filter(|&&next| seen.insert(next)));
    }
    seen
}

#[test]
fn files_do_not_use_each_other_in_circles() {
    let sources = sources("src");
    let arrows = arrows(&sources);
    let reached: Vec<BTreeSet<usize>> = (0..sources.len()).map(|file| reached(file, &arrows)).collect();
    let name = |file: usize| sources[file].inside();
    let mut circles: BTreeSet<Vec<&str>> = BTreeSet::new();
    for file in 0..sources.len() {
        let mut circle: Vec<&str> =
            reached[file].iter().filter(|&&other| reached[other].contains(&file)).map(|&other| name(other)).collect();
        circle.sort_unstable();
        circles.extend(Some(circle).filter(|circle| circle.len() > 1));
    }
    let defended = |circle: &[&str]| DEFENDED.iter().any(|(files, _)| circle.iter().all(|file| files.contains(file)));
    let offences: Vec<String> =
        circles.iter().filter(|circle| !defended(circle)).map(|circle| circle.join(", ")).collect();
    assert_none("files that use each other", &offences);
}

/// Type names that are defined more than once, each with why they mean the same thing or cannot be confused.
const SAME_NAMES: [(&str, &str); 9] = [
    ("Action", "what an election wants to be done: with a Lease, with ZooKeeper"),
    ("Event", "what an election is told, likewise"),
    ("Intent", "what an election is about to do, likewise"),
    ("Tenure", "the leadership of one JVM, likewise"),
    ("Driver", "carries out what an election wants, likewise"),
    ("Settings", "durations of the module in which they stand"),
    ("Arguments", "of one command each"),
    ("State", "private: behind the lock of the one type in its file"),
    ("Result", "the standard library's, with the module's own error"),
];

#[test]
fn a_type_name_has_one_meaning() {
    let mut places: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for source in sources("src") {
        for (_, line) in source.code() {
            // Types inside of functions and traits are indented.
            let words: Vec<&str> =
                line.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty()).collect();
            let is_definition = |word: &&str| ["struct", "enum", "trait", "type"].contains(word);
            let Some(at) = words.iter().take(3).position(is_definition) else { continue };
            if !line.starts_with(char::is_whitespace) && words.len() > at + 1 {
                places.entry(words[at + 1].to_owned()).or_default().insert(source.path.clone());
            }
        }
    }
    assert!(places.len() > 200, "{} types", places.len());
    let is_defended = |name: &str| SAME_NAMES.iter().any(|(defended, _)| *defended == name);
    let offences = places.iter().filter(|(name, files)| files.len() > 1 && !is_defended(name));
    assert_none(
        "a type name stands for two things",
        &offences.map(|(name, files)| format!("{name}: {files:?}")).collect::<Vec<_>>(),
    );
    let forgotten = SAME_NAMES.iter().filter(|(name, _)| places.get(*name).is_none_or(|files| files.len() < 2));
    assert_none("defended and not needed", &forgotten.map(|(name, _)| (*name).to_owned()).collect::<Vec<_>>());
}

#[test]
fn grouped_and_relative_imports_are_understood() {
    let source = |text: &str| Source {
        path: "src/gateway/gc/ledger.rs".to_owned(),
        lines: text.lines().map(str::to_owned).collect(),
    };
    let uses = |text: &str| source(text).uses().into_iter().map(|(_, path)| path).collect::<Vec<_>>();
    assert_eq!(uses("use crate::{a, b::{self, c}};"), ["a", "b::self", "b::c"]);
    assert_eq!(uses("use super::super::signals::{\n    Signals,\n};"), ["gateway::signals::Signals"]);
    assert_eq!(uses("use kube::Api;\nlet x = crate::world::lease::read(y);"), ["world::lease::read"]);
    assert_eq!(uses("let x = super::super::proxy::fence(y);"), ["gateway::proxy::fence"]);
    let tests = "#[cfg(test)]\nmod tests {\n    use crate::operator;\n}\nuse crate::flink;";
    assert_eq!(uses(tests), ["flink"], "code after unit tests counts");
    assert_eq!(room_of("gateway/gc/ledger"), Some("gateway/gc"));
    assert!(!may_use("gateway/gc", "gateway/election") && may_use("gateway/gc", "world"));
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
fn files_and_lines_are_short_enough_to_read() {
    let mut offences = Vec::new();
    for source in ["src", "tests"].into_iter().flat_map(sources) {
        if source.lines.len() > LONGEST_FILE {
            offences.push(format!("{}: {} lines", source.path, source.lines.len()));
        }
        let mut in_text = false;
        for (index, line) in source.lines.iter().enumerate() {
            // Text in quotation marks stays in one piece, so that it can be searched for; so does the row of a table.
            let is_text = in_text || line.contains('"') || ["/// |", "//! |"].iter().any(|row| line.starts_with(row));
            in_text = line.ends_with('\\');
            if line.chars().count() > LONGEST_LINE && !is_text && !in_text {
                offences.push(format!("{}:{}: a long line", source.path, index + 1));
            }
        }
    }
    assert_none(&format!("more than {LONGEST_FILE} lines or {LONGEST_LINE} columns"), &offences);
}

#[test]
fn nothing_panics_on_purpose_outside_tests() {
    let mut offences = Vec::new();
    for source in sources("src") {
        let words = [".unwrap()", ".expect(", "panic!(", "todo!("];
        let panics = source.code().into_iter().filter(|(_, line)| words.iter().any(|word| line.contains(word)));
        offences.extend(panics.map(|(number, line)| format!("{}:{number}: {}", source.path, line.trim())));
    }
    assert_none("something panics outside tests", &offences);
}

#[test]
fn every_file_of_the_process_tests_belongs_to_a_program() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let programs =
        ["main.rs", "long.rs"].map(|name| fs::read_to_string(root.join("tests/processes").join(name)).unwrap());
    let mut forgotten = Vec::new();
    for entry in fs::read_dir(root.join("tests/processes")).unwrap() {
        let file = entry.unwrap().file_name().into_string().unwrap();
        let module = format!("mod {};", file.trim_end_matches(".rs"));
        let is_program = ["main.rs", "long.rs"].contains(&file.as_str());
        if !is_program && !programs.iter().any(|program| program.contains(&module)) {
            forgotten.push(file);
        }
    }
    assert_none("a file of the process tests is no part of a program", &forgotten);
}
