//! An API server that is away for the pods of one cluster and for nobody else: their nodes drop what they send there.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use flinkha::api::names::{JOB_MANAGER, TASK_MANAGER};

use super::cluster::{Cluster, ip};
use super::machine::kubectl;
use super::node;

/// The rule stands where a packet still goes to the Service's address, and as long as somebody holds the input: no
/// longer than the test program lives.
const DROP: &str = r#"
iptables -w -t mangle -I PREROUTING "$@" && echo there && cat
iptables -w -t mangle -D PREROUTING "$@"
"#;

/// Lasts until it is dropped. Connections that are open stay open, and nothing is answered.
pub struct Outage(Vec<Child>);

impl Outage {
    pub async fn of(cluster: &Cluster) -> Self {
        let service = ["get", "service", "kubernetes", "--namespace", "default"];
        let service = kubectl(&[service.as_slice(), &["--output", "jsonpath={.spec.clusterIP}"]].concat());
        let pods = [cluster.pods(JOB_MANAGER).await, cluster.pods(TASK_MANAGER).await].concat();
        Self(pods.iter().map(|pod| without(&service, ip(pod).expect("an address"), &node::of(pod))).collect())
    }
}

impl Drop for Outage {
    fn drop(&mut self) {
        for rule in &mut self.0 {
            drop(rule.stdin.take());
        }
        for rule in &mut self.0 {
            let _ = rule.wait();
        }
    }
}

/// Returns when a node drops what one of its pods sends to the Service.
fn without(service: &str, pod: &str, node: &str) -> Child {
    let rule = ["--source", pod, "--destination", service, "--protocol", "tcp", "--jump", "DROP"];
    let mut shell = Command::new("docker")
        .args(["exec", "--interactive", node, "sh", "-c", DROP, "drop"])
        .args(rule)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("failed to run docker");
    let mut line = String::new();
    BufReader::new(shell.stdout.take().expect("a pipe")).read_line(&mut line).expect("the shell on the node");
    assert_eq!(line, "there\n", "{node} takes no rule for {pod}");
    shell
}
