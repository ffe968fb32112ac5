//! Holds the fuzzers, a package outside of the workspace, to the product: they compile the versions that it has, and
//! each has a corpus.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use crate::architecture::assert_none;

fn text(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// Versions of the packages in a lock file, by name.
fn versions(path: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut all: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut name = String::new();
    for line in text(path).lines() {
        let value = |key: &str| line.strip_prefix(key).map(|value| value.trim_matches('"').to_owned());
        if let Some(found) = value("name = ") {
            name = found;
        } else if let Some(version) = value("version = ").filter(|_| !name.is_empty()) {
            all.entry(name.clone()).or_default().insert(version);
        }
    }
    all
}

#[test]
fn the_fuzzers_compile_the_versions_that_the_product_has() {
    let (product, fuzzers) = (versions("Cargo.lock"), versions("tests/fuzz/Cargo.lock"));
    let shared = fuzzers.iter().filter_map(|(name, versions)| Some((name, versions, product.get(name)?)));
    let others = shared.clone().filter(|(_, ours, theirs)| !ours.is_subset(theirs));
    assert!(shared.clone().count() > 50, "{} packages are those of the product", shared.count());
    assert_none(
        "the fuzzers compile another version than the product: copy Cargo.lock to tests/fuzz, and let cargo remove what is not needed",
        &others.map(|(name, ours, theirs)| format!("{name}: {ours:?}, not {theirs:?}")).collect::<Vec<_>>(),
    );
}

#[test]
fn every_fuzzer_has_a_corpus_and_is_described() {
    let (list, readme) = (text("tests/fuzz/targets/mod.rs"), text("tests/README.md"));
    let targets: Vec<&str> =
        list.lines().filter_map(|line| line.trim().strip_prefix("target(\"")?.split('"').next()).collect();
    assert!(targets.len() > 10, "{targets:?}");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz");
    for target in targets {
        let seeds = fs::read_dir(root.join("corpus").join(target)).map_or(0, Iterator::count);
        assert!(seeds > 0, "{target} has no corpus");
        assert!(root.join("words").join(target).exists(), "{target} has no words");
        assert!(readme.contains(&format!("| `{target}` |")), "{target} is not described in tests/README.md");
    }
}
