//! Holds README and docs to the tree: every link leads somewhere, and what they name exists.

use std::fs;
use std::path::{Path, PathBuf};

use flinkha::api::FlinkHaCluster;
use kube::CustomResourceExt;
use serde_json::Value;

use crate::architecture::assert_none;

const DOCUMENTS: [&str; 11] = [
    "README.md",
    "CHANGELOG.md",
    "CODE_OF_CONDUCT.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "charts",
    "docs",
    "gitops",
    "jobs/README.md",
    "rig/README.md",
    "tests/README.md",
];

/// A path in a document begins with one of these, and is relative to the root.
pub const TOP: [&str; 12] = [
    "src/",
    "tests/",
    "rig/",
    "jobs/",
    "demo/",
    "docs/",
    "examples/",
    "charts/",
    "crds/",
    "gitops/",
    ".ci/",
    ".github/",
];

pub struct Document {
    /// Relative to the root of the repository.
    pub path: String,
    /// Without fenced blocks.
    prose: String,
    /// Lines of fenced and indented blocks.
    pub commands: Vec<String>,
}

impl Document {
    fn read(path: &Path) -> Self {
        let text = fs::read_to_string(root().join(path)).unwrap();
        let (mut prose, mut commands, mut fenced) = (String::new(), Vec::new(), false);
        for line in text.lines() {
            if line.trim_start().starts_with("```") {
                fenced = !fenced;
                continue;
            }
            // An indented line is a command, or continues an item of a list.
            if fenced || line.starts_with("    ") {
                commands.push(line.trim().to_owned());
            }
            if !fenced {
                prose.push_str(line);
            }
            prose.push('\n');
        }
        Self { path: path.display().to_string(), prose, commands }
    }

    /// Texts between backticks.
    pub fn spans(&self) -> Vec<&str> {
        let parts: Vec<&str> = self.prose.split('`').collect();
        assert!(parts.len() % 2 == 1, "{}: a backtick is missing", self.path);
        parts.into_iter().skip(1).step_by(2).collect()
    }

    /// Targets of links that do not leave the repository.
    fn links(&self) -> Vec<&str> {
        let targets = self.prose.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        targets.filter(|target| !target.starts_with("http")).collect()
    }

    /// Anchors of the headings, as GitHub makes them.
    fn anchors(&self) -> Vec<String> {
        let headings = self.prose.lines().filter(|line| line.starts_with('#'));
        let anchor = |heading: &str| {
            let text = heading.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
            text.chars().filter(|c| c.is_alphanumeric() || "-_".contains(*c)).collect()
        };
        headings.map(anchor).collect()
    }

    fn directory(&self) -> PathBuf {
        Path::new(&self.path).parent().unwrap().to_owned()
    }
}

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Files below a path, relative to the root.
fn files(path: &str, extension: &str) -> Vec<PathBuf> {
    let (mut found, mut open) = (Vec::new(), vec![root().join(path)]);
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|found| found == extension) {
            found.push(path.strip_prefix(root()).unwrap().to_owned());
        }
    }
    found
}

pub fn documents() -> Vec<Document> {
    DOCUMENTS.iter().flat_map(|path| files(path, "md")).map(|path| Document::read(&path)).collect()
}

/// All text of the product.
pub fn sources() -> String {
    files("src", "rs").iter().map(|path| fs::read_to_string(root().join(path)).unwrap()).collect()
}

/// `a/{b,c}.rs` is `a/b.rs` and `a/c.rs`.
fn expand(path: &str) -> Vec<String> {
    let Some((before, (inside, after))) =
        path.split_once('{').and_then(|(before, rest)| Some((before, rest.split_once('}')?)))
    else {
        return vec![path.to_owned()];
    };
    inside.split(',').map(|one| format!("{before}{one}{after}")).collect()
}

/// The path that a text in backticks begins with, if it is one of this repository.
fn paths(span: &str) -> Vec<String> {
    let first = span.split_whitespace().next().unwrap_or_default();
    let is_room = |room: &str| !room.is_empty() && root().join("src").join(room).is_dir();
    let is_path = TOP.iter().any(|top| first.starts_with(top))
        || first.split_once('/').is_some_and(|(room, _)| is_room(room))
        || first.ends_with(".rs");
    if !is_path || first.contains(['<', '*', '…', '$', '=']) {
        return Vec::new();
    }
    expand(first)
}

fn exists(path: &str, document: &Document, modules: &[PathBuf]) -> bool {
    let bases = [root().to_owned(), root().join("src"), root().join(document.directory())];
    bases.iter().any(|base| base.join(path).exists() || base.join(format!("{path}.rs")).exists())
        || !path.contains('/') && modules.iter().any(|module| module.file_name().is_some_and(|name| name == path))
}

#[test]
fn every_link_leads_somewhere() {
    let documents = documents();
    let mut dead = Vec::new();
    for document in &documents {
        for link in document.links() {
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if path.is_empty() {
                root().join(&document.path)
            } else {
                root().join(document.directory()).join(path)
            };
            let Ok(target) = target.canonicalize() else {
                dead.push(format!("{}: {link}", document.path));
                continue;
            };
            let relative = target.strip_prefix(root().canonicalize().unwrap()).unwrap().to_owned();
            if !anchor.is_empty() && !Document::read(&relative).anchors().iter().any(|known| known == anchor) {
                dead.push(format!("{}: {link} names no heading", document.path));
            }
        }
    }
    assert_none("a link leads nowhere", &dead);
}

#[test]
fn every_path_that_the_documents_name_exists() {
    let modules: Vec<PathBuf> = ["src", "tests"].into_iter().flat_map(|path| files(path, "rs")).collect();
    let mut missing = Vec::new();
    for document in documents() {
        for span in document.spans() {
            let absent = paths(span).into_iter().filter(|path| !exists(path, &document, &modules));
            missing.extend(absent.map(|path| format!("{}: {path}", document.path)));
        }
    }
    assert_none("a path does not exist", &missing);
}

#[test]
fn every_make_target_that_the_documents_name_exists() {
    let makefile = fs::read_to_string(root().join("Makefile")).unwrap();
    let targets: Vec<&str> = makefile.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name).collect();
    let mut missing = Vec::new();
    for document in documents() {
        let commands = document.spans().into_iter().chain(document.commands.iter().map(String::as_str));
        for command in commands {
            let mut words = command.split_whitespace().skip_while(|word| word.contains('='));
            let Some(target) = words.next().filter(|word| *word == "make").and_then(|_| words.next()) else { continue };
            let exists = match target.strip_suffix('…') {
                Some(prefix) => targets.iter().any(|known| known.starts_with(prefix)),
                None => targets.contains(&target),
            };
            if !exists {
                missing.push(format!("{}: make {target}", document.path));
            }
        }
    }
    assert_none("the Makefile has no such target", &missing);
}

#[test]
fn every_field_that_the_documents_name_is_in_the_definition() {
    let definition = serde_json::to_value(FlinkHaCluster::crd()).unwrap();
    let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    let mut missing = Vec::new();
    for document in documents() {
        for span in document.spans() {
            let end = span.find(|c: char| !c.is_ascii_alphanumeric() && c != '.').unwrap_or(span.len());
            let field = span[..end].trim_end_matches('.');
            if (field.starts_with("spec.") || field.starts_with("status.")) && !has_field(schema, field) {
                missing.push(format!("{}: {field}", document.path));
            }
        }
    }
    assert_none("the CustomResourceDefinition has no such field", &missing);
}

pub fn has_field(schema: &Value, field: &str) -> bool {
    let found = field.split('.').try_fold(schema, |parent, name| {
        let parent = if parent["items"].is_object() { &parent["items"] } else { parent };
        parent["properties"].get(name)
    });
    found.is_some()
}

#[test]
fn every_annotation_and_label_that_the_documents_name_is_in_the_code() {
    let sources = sources();
    let mut missing = Vec::new();
    for document in documents() {
        let keys = document.spans().into_iter().filter(|span| span.starts_with("flinkha.dev/"));
        let keys = keys.map(|span| span.split(['=', ':', ' ']).next().unwrap().to_owned());
        let absent = keys.filter(|word| !sources.contains(&format!("\"{word}\"")));
        missing.extend(absent.map(|word| format!("{}: {word}", document.path)));
    }
    assert_none("the code has no such annotation or label", &missing);
}

#[test]
fn documents_are_read_as_they_are_meant() {
    let read = |name: &str| Document::read(Path::new(name));
    assert!(read("docs/protocol.md").anchors().contains(&"not-guaranteed".to_owned()));
    assert!(read("README.md").links().contains(&"docs/limits.md"), "{:?}", read("README.md").links());
    assert!(read("docs/protocol.md").spans().len() > 30, "{:?}", read("docs/protocol.md").spans());
    assert_eq!(paths("src/a/{b,c}.rs"), ["src/a/b.rs", "src/a/c.rs"]);
    assert_eq!(paths("gateway/gc/ledger"), ["gateway/gc/ledger"]);
    assert_eq!(paths("rig/volume NAMESPACE claim"), ["rig/volume"]);
    assert!(paths("jobs/<id>/checkpoints").is_empty() && paths("/readyz").is_empty());
}
