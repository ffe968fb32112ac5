//! Asks a gateway: runs `flinkha ask` in its container by the API server's `pods/exec`.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::AttachParams;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use super::access::PluginAccess;
use super::failure::said;
use super::view::cluster::ClusterReport;
use super::view::text::plain;
use crate::api::names::GATEWAY_CONTAINER;
use crate::cluster::build::job_manager::{HAND_OVER_SOCKET, PROGRAM};
use crate::ledger::asked::{GatewayAnswer, GatewayQuestion};

/// Longest answer, in bytes.
const ANSWER: u64 = 16 << 20;
/// What clap says of a command that an earlier version does not have.
const UNKNOWN_COMMAND: &str = "unrecognized subcommand";

/// The pod to ask: the leader, if it is one of the cluster's JobManagers. Whoever may write the Lease must not choose
/// another pod.
pub fn leading_pod(report: &ClusterReport) -> Result<String, String> {
    let leader = report.leader.as_ref().ok_or("no JobManager leads now, so there is none to ask")?;
    let is_candidate = report.candidates.iter().any(|one| one.pod == leader.pod);
    match (is_candidate, report.not_known.get("pods")) {
        (true, _) => Ok(leader.pod.clone()),
        (false, Some(why)) => Err(format!("the pods cannot be read: {why}")),
        (false, None) => Err(format!("{} leads, and is not a running JobManager of {}", leader.pod, report.name)),
    }
}

/// Asks the gateway of this pod.
///
/// # Errors
/// A sentence that says why there is no answer.
pub async fn ask(
    access: &PluginAccess,
    pod: &str,
    question: &GatewayQuestion,
    patience: Duration,
) -> Result<GatewayAnswer, String> {
    let answered = timeout(patience, exchange(access, pod, question)).await;
    answered.unwrap_or_else(|_| Err(format!("gateway {pod} has not answered for {} s", patience.as_secs())))
}

async fn exchange(access: &PluginAccess, pod: &str, question: &GatewayQuestion) -> Result<GatewayAnswer, String> {
    let client = access.patient_client().map_err(|failure| failure.to_string())?;
    let pods: Api<Pod> = Api::namespaced(client, &access.namespace);
    let parameters = AttachParams::default().container(GATEWAY_CONTAINER).stdin(true).stdout(true).stderr(true);
    let command = [PROGRAM, "ask", "--socket", HAND_OVER_SOCKET];
    let started = pods.exec(pod, command, &parameters).await;
    let mut process = started.map_err(|error| format!("gateway {pod} cannot be asked: {}", said(&error)))?;
    let (stdin, stdout, stderr) = (process.stdin(), process.stdout(), process.stderr());
    let line = serde_json::to_string(question).unwrap_or_default() + "\n";
    let write = async {
        if let Some(mut stdin) = stdin {
            let _ = stdin.write_all(line.as_bytes()).await;
            let _ = stdin.flush().await;
        }
    };
    let ((), answer, told) = tokio::join!(write, all_of(stdout), all_of(stderr));
    if let Ok(answer) = serde_json::from_str(&answer) {
        return Ok(answer);
    }
    let told = plain(&told);
    if told.contains(UNKNOWN_COMMAND) {
        return Err(format!("gateway {pod} is of an earlier version, which answers no questions"));
    }
    let told = if told.is_empty() { "nothing" } else { told.trim_start_matches("Error: ") };
    Err(format!("gateway {pod} does not answer: {told}"))
}

async fn all_of(reader: Option<impl AsyncRead + Unpin>) -> String {
    let mut bytes = Vec::new();
    if let Some(reader) = reader {
        let _ = reader.take(ANSWER).read_to_end(&mut bytes).await;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
