//! Removes the znodes of the election at the end of an application: Flink leaves them, and they belong to no job.

use std::time::Duration;

use anyhow::Context;
use tokio::time::timeout;

use crate::gateway::gc::ledger::Ledger;
use crate::gateway::gc::ownership;
use crate::gateway::gc::pointer_store::Znodes;
use crate::ha_data::marks::{Mark, SignatureRecords, is_of_another};
use crate::ledger::application::Run;
use crate::world::quorum::{latch, znodes};

/// Limit of the removal, because the pod is being deleted. The deletion of the resource removes the rest.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

/// Removes the cluster's znodes, if its run has ended and no other JobManager exists: the last one does it.
pub async fn part(ledger: &Ledger, znodes: &Znodes, run: &Run) {
    match timeout(SHUTDOWN_TIMEOUT, remove_election(ledger, znodes, run)).await {
        Ok(Ok(removed)) => tracing::info!(removed, "znodes of the election removed"),
        Ok(Err(error)) => tracing::info!(error = format!("{error:#}"), "znodes of the election stay for now"),
        Err(_) => tracing::warn!(
            "znodes of the election stay until the resource is deleted: quorum or API server do not answer"
        ),
    }
}

async fn remove_election(ledger: &Ledger, znodes: &Znodes, run: &Run) -> anyhow::Result<usize> {
    let ended = ledger.jobs().await?.into_iter().any(|job| job.id == run.job_id && job.collected.is_some());
    anyhow::ensure!(ended, "the application has not ended");
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
    znodes::purge(&client, &znodes.paths, &owner, true).await
}
