//! `docs/operations.md` has a paragraph for each reason of a condition and for each event that the code can write.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Where reasons are written.
const PLACES: [&str; 4] = ["src/cluster", "src/operator", "src/ledger/refusal.rs", "src/ha_data/foreign.rs"];

/// Words in CamelCase of these places that are no reasons: kinds, phases, reasons and policies of Kubernetes, and
/// results that stand in the status.
const OTHERS: [&str; 32] = [
    "AlwaysAllow",
    "ConfigMap",
    "ConfigMaps",
    "CrashLoopBackOff",
    "CreateContainerConfigError",
    "CreateContainerError",
    "EndpointSlice",
    "ErrImageNeverPull",
    "ErrImagePull",
    "FallbackToLogsOnError",
    "FlinkHaCluster",
    "IgnoreExtraneous",
    "ImagePullBackOff",
    "InProgress",
    "InvalidImageName",
    "NetworkPolicy",
    "OOMKilled",
    "OnFailure",
    "OnRootMismatch",
    "OperatorRollOut",
    "PodDisruptionBudget",
    "PodInitializing",
    "PodScheduled",
    "RegistryUnavailable",
    "ReplicaFailure",
    "RoleBinding",
    "RolledBack",
    "RollingUpdate",
    "RunContainerError",
    "RuntimeDefault",
    "ScheduleAnyway",
    "ServiceAccount",
];

/// Reasons of one word. All others are in CamelCase, and found by that.
const SHORT: [&str; 17] = [
    "Complete",
    "Deleted",
    "Deleting",
    "Ended",
    "Ending",
    "Failed",
    "Failover",
    "Halted",
    "Held",
    "Paused",
    "Ready",
    "Refused",
    "Replacing",
    "Resumed",
    "Suspended",
    "Suspending",
    "Upgrading",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources(place: &Path, found: &mut Vec<String>) {
    if place.is_dir() {
        let mut entries: Vec<_> = fs::read_dir(place).unwrap().map(|entry| entry.unwrap().path()).collect();
        entries.sort();
        entries.iter().for_each(|entry| sources(entry, found));
    } else if !place.ends_with("tests.rs") && !place.to_string_lossy().contains("/tests/") {
        found.push(fs::read_to_string(place).unwrap());
    }
}

/// String literals of the program itself, without unit tests.
fn words() -> BTreeSet<String> {
    let mut texts = Vec::new();
    PLACES.iter().for_each(|place| sources(&root().join(place), &mut texts));
    let program = texts.iter().map(|text| text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default());
    let lines = program.flat_map(str::lines).filter(|line| !line.trim_start().starts_with("//"));
    lines.flat_map(|line| line.split('"').skip(1).step_by(2).map(str::to_owned)).collect()
}

fn is_camel_case(word: &str) -> bool {
    let letters = word.chars().all(|c| c.is_ascii_alphabetic());
    let capitals = word.chars().filter(char::is_ascii_uppercase).count();
    letters && word.starts_with(|c: char| c.is_ascii_uppercase()) && capitals >= 2 && capitals < word.len()
}

#[test]
fn each_reason_and_each_event_has_a_paragraph() {
    let words = words();
    let reasons = words.iter().filter(|word| is_camel_case(word) && !OTHERS.contains(&word.as_str())).cloned();
    let reasons: BTreeSet<String> = reasons.chain(SHORT.map(str::to_owned)).collect();
    assert!(reasons.len() > 60, "reasons are not found any more: {reasons:?}");
    let lost: Vec<&&str> = SHORT.iter().filter(|word| !words.contains(**word)).collect();
    assert!(lost.is_empty(), "no longer written: {lost:?}");
    let text = fs::read_to_string(root().join("docs/operations.md")).unwrap();
    // The words in front of the explanation: "- `One`, `Other` (where): what it means."
    let paragraphs = text.lines().filter_map(|line| line.strip_prefix("- `"));
    let named: String =
        paragraphs.filter_map(|line| line.split_once(": ")).map(|(names, _)| format!("`{names}\n")).collect();
    let missing: Vec<&String> = reasons.iter().filter(|reason| !named.contains(&format!("`{reason}`"))).collect();
    assert!(missing.is_empty(), "docs/operations.md has no paragraph for {missing:?}");
}
