//! Class-data archives: most of what a JVM of Flink does until it is up is to read, check and link some ten thousand
//! classes, the same ones in every JVM of every test. From an archive (JDK 17's dynamic AppCDS) it maps them.
//!
//! `rig/class-archive` records the archives with a cluster whose job was recovered. A JVM whose archive is stale (other
//! jars, another Java) starts as without it (`-Xshare:auto`); half a file would kill it, so each archive's length is
//! kept beside it. Whatever measures keeps cold classes, as production has them, unless SHARED_CLASSES=1 asks
//! otherwise.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::flink::java;

/// Whose archive: they load different classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    JobManager,
    TaskManager,
}

impl Role {
    const fn file(self) -> &'static str {
        match self {
            Self::JobManager => "jobmanager.jsa",
            Self::TaskManager => "taskmanager.jsa",
        }
    }
}

/// What SHARED_CLASSES asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    /// Nothing or `0`.
    Cold,
    /// `1`
    Shared,
    /// `record`: each JVM writes an archive when it ends.
    Record,
}

fn asked() -> Use {
    match std::env::var("SHARED_CLASSES").as_deref() {
        Err(_) | Ok("" | "0") => Use::Cold,
        Ok("1") => Use::Shared,
        Ok("record") => Use::Record,
        Ok(other) => panic!("SHARED_CLASSES is 0, 1 or record, not {other}"),
    }
}

/// The archives for one version of Flink, one Java and one way to elect leaders.
#[derive(Clone)]
pub struct Archives {
    directory: PathBuf,
}

impl Archives {
    pub fn of(version: &str, is_zookeeper: bool) -> Self {
        let provider = if is_zookeeper { "zookeeper" } else { "kubernetes" };
        let name = format!("{version}-{provider}-{}", java_version());
        Self { directory: cache().join("class-archives").join(name) }
    }

    /// The options of a JVM that lives in `own`; none where classes stay cold, or no archive was recorded.
    pub fn options(&self, role: Role, own: &Path) -> Vec<String> {
        let shared = self.path(role);
        match asked() {
            Use::Record => vec![format!("-XX:ArchiveClassesAtExit={}", recorded(own).display())],
            Use::Shared if is_whole(&shared) => {
                vec!["-Xshare:auto".to_owned(), format!("-XX:SharedArchiveFile={}", shared.display())]
            }
            Use::Shared | Use::Cold => Vec::new(),
        }
    }

    pub fn path(&self, role: Role) -> PathBuf {
        self.directory.join(role.file())
    }

    /// Keeps what the JVM that lived in `own` has written; in one step, so that nobody ever finds half of it.
    pub fn keep(&self, role: Role, own: &Path) {
        std::fs::create_dir_all(&self.directory).expect("failed to make a directory");
        let new = self.directory.join(format!("{}.{}", role.file(), std::process::id()));
        std::fs::copy(recorded(own), &new).expect("the archive that the JVM has written when it ended");
        let length = std::fs::metadata(&new).expect("the copy").len();
        let path = self.path(role);
        std::fs::rename(new, &path).expect("failed to rename an archive");
        std::fs::write(length_of(&path), length.to_string()).expect("failed to write an archive's length");
    }
}

fn length_of(archive: &Path) -> PathBuf {
    archive.with_extension("length")
}

fn is_whole(archive: &Path) -> bool {
    let noted = std::fs::read_to_string(length_of(archive)).ok().and_then(|text| text.parse().ok());
    std::fs::metadata(archive).is_ok_and(|found| Some(found.len()) == noted)
}

/// Where a JVM writes its archive.
pub fn recorded(own: &Path) -> PathBuf {
    own.join("classes.jsa")
}

/// Another Java has other archives: short, and a name of a directory.
fn java_version() -> String {
    let output = Command::new(java()).arg("-version").output().expect("a Java");
    // "openjdk version ...", "OpenJDK Runtime Environment (build 17.0.15+6-...)", ...
    let text = String::from_utf8_lossy(&output.stderr);
    let build = text.split("(build ").nth(1).and_then(|rest| rest.split([')', ',']).next()).unwrap_or("unknown");
    build.chars().map(|one| if one.is_ascii_alphanumeric() || ".+-".contains(one) { one } else { '_' }).collect()
}

fn cache() -> PathBuf {
    let own = || PathBuf::from(std::env::var_os("HOME").expect("HOME")).join(".cache/flinkha");
    std::env::var_os("FLINKHA_CACHE").map_or_else(own, PathBuf::from)
}
