//! Removes the znodes of the election at the end of an application: Flink leaves them, and they belong to no job.

use std::time::Duration;

use anyhow::Context;
use tokio::time::{Instant, sleep, timeout_at};

use crate::gateway::gc::ledger::Ledger;
use crate::gateway::gc::ownership;
use crate::gateway::gc::pointer_store::Znodes;
use crate::ha_data::marks::{Mark, SignatureRecords, is_of_another};
use crate::ledger::application::Run;
use crate::world::quorum::{latch, znodes};

/// Limit of the removal, because the pod is being deleted: half of its usual grace period. The deletion of the resource
/// removes the rest.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(15);
/// Between tries. JobManagers that end at the same time hold their latches for some moments more.
const PAUSE: Duration = Duration::from_millis(500);

/// Removes the cluster's znodes, if its run has ended and no other JobManager exists. It waits for those that are
/// ending too: otherwise each of two that end together would leave the znodes to the other one.
pub async fn part(ledger: &Ledger, znodes: &Znodes, run: &Run) {
    let deadline = Instant::now() + SHUTDOWN_TIMEOUT;
    let mut why = "quorum or API server do not answer".to_owned();
    loop {
        match timeout_at(deadline, remove_election(ledger, znodes, run)).await {
            Ok(Ok(Some(removed))) => return tracing::info!(removed, "znodes of the election removed"),
            Ok(Ok(None)) => return,
            Ok(Err(error)) => why = format!("{error:#}"),
            Err(_) => break,
        }
        if timeout_at(deadline, sleep(PAUSE)).await.is_err() {
            break;
        }
    }
    tracing::warn!(error = why, "znodes of the election stay until the resource is deleted");
}

/// Returns how many it has removed; `None` while the application has not ended.
async fn remove_election(ledger: &Ledger, znodes: &Znodes, run: &Run) -> anyhow::Result<Option<usize>> {
    let ended = ledger.jobs().await?.into_iter().any(|job| job.id == run.job_id && job.collected.is_some());
    if !ended {
        return Ok(None);
    }
    let owner =
        ledger.ha_data().await?.owner.context("the ledger does not tell how the cluster has signed its znodes")?;
    let client = znodes.client()?;
    let found = znodes::mark(&client, &znodes.paths, &owner).await?;
    let us = Mark { owner: owner.clone(), certificates: ownership::certificates(ledger).await?, ..Mark::default() };
    anyhow::ensure!(
        !is_of_another(&us, found.as_deref(), &SignatureRecords::default()),
        "another Kubernetes cluster has signed the same znode"
    );
    latch::withdraw(&client, &znodes.paths).await?;
    znodes::purge(&client, &znodes.paths, &owner, true).await.map(Some)
}
