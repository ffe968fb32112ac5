//! A namespace with the restricted Pod Security standard enforced, and a volume that the nodes share.

use std::path::PathBuf;

use tempfile::TempDir;

use super::machine::kubectl;
use super::machine::run;
use super::node;
use super::operator;
use crate::support::say;
use crate::support::script;
use crate::support::verify;

/// The claim that the pods mount at `/flink`.
pub const CLAIM: &str = "flink-storage";

pub struct Namespace(pub String);

impl Namespace {
    /// An empty one: what was in a namespace and a volume of this name is deleted.
    pub fn fresh(name: &str) -> Self {
        let namespace = Self(name.to_owned());
        // What an earlier run has left waits for an operator that does what its finalizers ask for.
        operator::install();
        operator::scale(1);
        if run("kubectl", &["get", "namespace", name], "").is_ok() {
            namespace.delete();
        }
        kubectl(&["create", "namespace", name]);
        kubectl(&["label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted"]);
        script("rig/volume", &[name, CLAIM]);
        node::run(&node::any(), &["find", &namespace.directory(), "-mindepth", "1", "-delete"]);
        namespace
    }

    pub fn delete(&self) {
        // Custom resources first, while their operator can still do what their finalizers ask for.
        let _ =
            run("kubectl", &["--namespace", &self.0, "delete", "flinkhaclusters", "--all", "--timeout", "180s"], "");
        let pods = ["--namespace", &self.0, "delete", "deployments,pods", "--all"];
        // A node that is busy may be slow to end a pod: what a test shows does not depend on it any more.
        if let Err(error) = run("kubectl", &[pods.as_slice(), &["--now", "--timeout", "120s"]].concat(), "") {
            say(format!("namespace {}: {error}; they are removed by force", self.0));
            kubectl(&[pods.as_slice(), &["--force", "--grace-period", "0", "--timeout", "60s"]].concat());
        }
        kubectl(&["delete", "namespace", &self.0, "--timeout", "300s"]);
    }

    /// Runs kubectl in this namespace.
    pub fn kubectl(&self, arguments: &[&str]) -> String {
        kubectl(&[["--namespace", &self.0].as_slice(), arguments].concat())
    }

    /// Where the nodes have the volume.
    pub fn directory(&self) -> String {
        format!("/shared/{}-{CLAIM}", self.0)
    }

    /// Files below a directory of the volume, relative to it; empty when there is no such directory.
    pub fn files(&self, directory: &str) -> Vec<String> {
        let path = format!("{}/{directory}", self.directory());
        let find = format!("cd '{path}' 2>/dev/null && find . -type f || true");
        let listed = node::run(&node::any(), &["sh", "-c", &find]);
        let mut files: Vec<String> = listed.lines().map(|line| line.trim_start_matches("./").to_owned()).collect();
        files.sort();
        files
    }

    /// Makes a file of the volume that was written at this time, as `touch --date` reads it, for the pods' user.
    pub fn age(&self, file: &str, date: &str) {
        let path = format!("{}/{file}", self.directory());
        let make = format!("echo x > '{path}' && touch --date '{date}' '{path}' && chmod 666 '{path}'");
        node::run(&node::any(), &["sh", "-c", &make]);
    }

    /// Proves that what a job has written there is exactly-once: so many lines, or "any".
    pub fn verify(&self, directory: &str, lines: &str) {
        verify(lines, || self.copy(directory));
    }

    /// A copy of a directory of the volume on this machine.
    fn copy(&self, directory: &str) -> (TempDir, PathBuf) {
        let target = tempfile::tempdir().expect("a temporary directory");
        let path = target.path().join("copy");
        node::copy(&node::any(), &format!("{}/{directory}", self.directory()), &path);
        (target, path)
    }
}
