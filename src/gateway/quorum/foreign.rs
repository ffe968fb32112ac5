//! Admits no JVM to the quorum before the znodes under the cluster's path are known to be this cluster's own. Flink
//! elects among all JVMs that use the path, so a JVM of ours beside another Flink would some day lead that Flink's
//! jobs.
//!
//! A gateway that finds the path empty writes its mark first, and admits its JVM then. Afterwards the mark identifies
//! the path without the API server.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use serde_json::json;
use tokio::time::{sleep, timeout};

use super::gate::Gate;
use crate::gateway::gc::ledger::Ledger;
use crate::gateway::gc::ownership;
use crate::gateway::gc::pointer_store::Znodes;
use crate::ha_data::foreign;
use crate::ledger::refusal::{FOREIGN_HA_DATA, Refusal};
use crate::world::quorum::znodes::{self, FoundZnodes};

/// Interval of checks.
const PAUSE: Duration = Duration::from_millis(500);
/// Interval of checks of foreign znodes.
const REFUSAL_PAUSE: Duration = Duration::from_secs(5);
/// Limit of one check; after it the check is repeated.
const PATIENCE: Duration = Duration::from_secs(6);

/// Opens the gate once the znodes are this cluster's, and returns.
pub async fn guard(ledger: Ledger, znodes: Znodes, gate: Arc<Gate>) {
    loop {
        let pause = match timeout(PATIENCE, refusal(&ledger, &znodes)).await {
            Ok(Ok(None)) => return gate.know_own(),
            Ok(Ok(Some(refusal))) => {
                tracing::warn!(reason = refusal.reason, "the JobManager is not admitted: {}", refusal.message);
                if let Err(error) = ledger.note_refusal(Some(&refusal)).await {
                    tracing::warn!(error = format!("{error:#}"), "failed to write a refusal into the ledger");
                }
                REFUSAL_PAUSE
            }
            // Without a session there is no quorum to which a JVM could be admitted.
            Ok(Err(_)) if znodes.client().is_err() => PAUSE,
            Ok(Err(error)) => {
                tracing::warn!(error = format!("{error:#}"), "failed to look whose the znodes are; trying again");
                PAUSE
            }
            Err(_) => {
                tracing::warn!("failed to look whose the znodes are: quorum or API server do not answer; trying again");
                PAUSE
            }
        };
        sleep(pause).await;
    }
}

/// Writes our mark on the path, unless it is foreign; returns the refusal then.
async fn refusal(ledger: &Ledger, znodes: &Znodes) -> anyhow::Result<Option<Refusal>> {
    let client = znodes.client()?;
    let found = znodes::find(&client, &znodes.paths).await.context("failed to read the znodes")?;
    if found.is_signed {
        return Ok(None);
    }
    if let Some(refusal) = decide(&znodes.paths.cluster, &found)
        && !foreign::has_history(&json!(ledger.object().await?))
    {
        return Ok(Some(refusal));
    }
    znodes.prepare().await?;
    let (us, records) = ownership::identity(ledger).await?;
    znodes.sign(&us, &records).await?;
    Ok(None)
}

/// Returns the refusal for znodes without a mark of ours; `None` if there are none. In a cluster with a history they
/// are its own all the same.
fn decide(path: &str, found: &FoundZnodes) -> Option<Refusal> {
    let what = match (&found.leader, found.holds_jobs) {
        (_, _) if found.is_signed => return None,
        (None, false) => return None,
        (Some(latch), _) => format!("a JobManager that is not of this cluster holds its latch {latch}"),
        (None, true) => "it holds data of jobs".to_owned(),
    };
    let message = format!(
        "znode {path} was not written by this cluster: {what}; nothing is touched, and no JobManager of this cluster is admitted: give the \
         FlinkHaCluster another name or create it again with another rootPath, or end the Flink that uses this path and, if its HA data is not \
         needed, delete the znode: deleteall {path}"
    );
    Some(Refusal::new(FOREIGN_HA_DATA, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn znodes_that_nobody_of_ours_has_signed_are_refused_with_two_ways_out() {
        let found = |is_signed, leader: Option<&str>, holds_jobs| FoundZnodes {
            is_signed,
            leader: leader.map(str::to_owned),
            holds_jobs,
        };
        let decide = |found: FoundZnodes| decide("/flink/ns.demo", &found).map(|refusal| refusal.message);
        assert_eq!(decide(found(false, None, false)), None);
        assert_eq!(decide(found(true, Some("/flink/ns.demo/leader/latch/x"), true)), None);
        for found in [found(false, Some("/flink/ns.demo/leader/latch/x"), false), found(false, None, true)] {
            let message = decide(found).unwrap_or_default();
            assert!(message.contains("another rootPath") && message.contains("deleteall /flink/ns.demo"), "{message}");
        }
    }
}
