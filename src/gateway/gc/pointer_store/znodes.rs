//! Pointers in znodes of a ZooKeeper quorum.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use tokio::sync::watch;
use zookeeper_client::{Acls, Client};

use super::checkpoint::LastCheckpoint;
use crate::flink::job_id::JobId;
use crate::flink::pointer;
use crate::flink::znodes::Paths;
use crate::ha_data::inventory::Inventory;
use crate::ha_data::marks::{self, Mark, SignatureRecords};
use crate::ha_data::versions::StoredJobs;
use crate::world::quorum::{latch, quarantine, znodes};

/// The znodes of this cluster.
#[derive(Clone)]
pub struct Znodes {
    pub paths: Paths,
    client: watch::Receiver<Option<Client>>,
    pub acls: Acls<'static>,
    /// The latch node by which our JVM leads, or the gateway itself while none may. Every removal is a transaction that
    /// wants it to be there.
    latch: Arc<Mutex<Option<String>>>,
}

impl Znodes {
    pub fn new(paths: Paths, client: watch::Receiver<Option<Client>>, acls: Acls<'static>) -> Self {
        Self { paths, client, acls, latch: Arc::default() }
    }

    /// Makes the cluster's znode, unless it is there.
    ///
    /// # Errors
    /// When no server answers, or rights are missing.
    pub async fn prepare(&self) -> anyhow::Result<()> {
        let prepared = znodes::prepare(&self.client()?, &self.paths, self.acls).await;
        prepared.with_context(|| format!("failed to make the znode {}", self.paths.cluster))
    }

    /// Signs the cluster's znode, unless the mark stands. Returns its path when it was written in another Kubernetes
    /// cluster; it stays as it is then.
    ///
    /// # Errors
    /// When no server answers, or rights are missing.
    pub async fn sign(&self, us: &Mark, records: &SignatureRecords) -> anyhow::Result<Option<String>> {
        let (client, failed) = (self.client()?, || format!("failed to sign the znode {}", self.paths.cluster));
        let found = znodes::mark(&client, &self.paths, &us.owner).await.with_context(failed)?;
        if marks::is_of_another(us, found.as_deref(), records) {
            return Ok(Some(self.told(&us.owner)));
        }
        if found.as_deref().and_then(Mark::read).is_none_or(|mark| mark.certificates != us.certificates) {
            znodes::sign(&client, &self.paths, &us.owner, &us.to_text(), self.acls).await.with_context(failed)?;
        }
        Ok(None)
    }

    pub(super) async fn others(&self, owner: &str) -> anyhow::Result<Vec<String>> {
        let others = znodes::others(&self.client()?, &self.paths, owner).await;
        let others = others.with_context(|| format!("failed to read the marks of the znode {}", self.paths.cluster))?;
        Ok(others.iter().map(|other| self.told(other)).collect())
    }

    fn told(&self, owner: &str) -> String {
        format!("{} (a znode)", znodes::mark_path(&self.paths, owner))
    }

    /// Remembers by which node our JVM leads.
    pub fn lead_by(&self, latch: Option<String>) {
        *self.latch.lock().unwrap_or_else(PoisonError::into_inner) = latch;
    }

    pub fn leads(&self) -> bool {
        self.latch().is_some()
    }

    fn latch(&self) -> Option<String> {
        self.latch.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Has this gateway a session with the quorum?
    pub fn is_connected(&self) -> bool {
        self.client.borrow().is_some()
    }

    /// # Errors
    /// While there is no session.
    pub fn client(&self) -> anyhow::Result<Client> {
        self.client.borrow().clone().context("no ZooKeeper server answers")
    }

    /// Which jobs are stored, and in which form.
    ///
    /// # Errors
    /// When no server answers.
    pub async fn stored_jobs(&self) -> anyhow::Result<StoredJobs> {
        znodes::stored_by_form(&self.client()?, &self.paths).await.context("failed to read which jobs are stored")
    }

    pub(super) async fn stored_now(&self) -> anyhow::Result<Inventory> {
        let znodes = znodes::read(&self.client()?, &self.paths).await.context("failed to read the znodes")?;
        Ok(Inventory::of_znodes(&znodes))
    }

    pub(super) async fn inventory(&self) -> anyhow::Result<Option<Inventory>> {
        let (client, Some(latch)) = (self.client()?, self.latch()) else { return Ok(None) };
        let znodes = znodes::read(&client, &self.paths).await.context("failed to read the znodes")?;
        // Read in this tenure: the latch is there after everything was read.
        let leads = client.check_stat(&latch).await.context("failed to read the latch")?.is_some();
        Ok(leads.then(|| Inventory::of_znodes(&znodes)))
    }

    /// Removes all znodes of a run in whose place another one began. Returns false if its address stays.
    pub(super) async fn remove_run(&self, job: JobId) -> anyhow::Result<bool> {
        let (client, latch) = self.leading()?;
        let removed = async {
            quarantine::remove(&client, &self.paths, &latch, job).await?;
            latch::remove_run(&client, &self.paths, &latch, job).await
        };
        removed.await.with_context(|| format!("failed to remove the znodes of {job}"))
    }

    pub(super) async fn remove_empty(&self, jobs: impl Iterator<Item = JobId>) -> anyhow::Result<BTreeSet<JobId>> {
        let mut led = BTreeSet::new();
        for job in jobs {
            let (client, latch) = self.leading()?;
            let removed = znodes::remove_remnants(&client, &self.paths, &latch, job).await;
            if removed.with_context(|| format!("failed to remove the znodes of {job}"))? {
                tracing::info!(%job, "removed znodes of an ended job that pointed to nothing");
            } else {
                tracing::warn!(%job, "a JobManager leads this ended job; its address stays until it is gone");
                led.insert(job);
            }
        }
        Ok(led)
    }

    pub(super) async fn last_checkpoint(&self, job: JobId) -> anyhow::Result<Option<LastCheckpoint>> {
        let found = latch::last_checkpoint(&self.client()?, &self.paths, job).await;
        let pointer = found.context("failed to read the last checkpoint")?;
        Ok(pointer.map(|pointer| LastCheckpoint { metadata: pointer::file_of(&pointer).ok() }))
    }

    /// Moves pointers back to where Flink's leader sees them at once.
    pub(super) async fn bring_back(&self, jobs: &BTreeSet<JobId>) -> anyhow::Result<()> {
        let (client, latch) = self.leading()?;
        let moved = quarantine::bring_back(&client, &self.paths, &latch, self.acls, jobs).await;
        moved.context("failed to bring jobs back from quarantine")
    }

    /// Removes the plans of another version and writes whose what is left is (`mark`), in one transaction.
    ///
    /// Safe: the transaction requires our latch node, and that the znode with the mark still has this version.
    ///
    /// # Errors
    /// When we do not hold the leader's place any more, or something was written meanwhile. It is to be read anew then.
    pub async fn take_over(&self, latch: &str, mark: &str, version: i32) -> anyhow::Result<()> {
        let taken = latch::take_over(&self.client()?, &self.paths, latch, mark, version).await;
        taken.context("failed to take over the znodes of another version")
    }

    fn leading(&self) -> anyhow::Result<(Client, String)> {
        Ok((self.client()?, self.latch().context("another JobManager leads now")?))
    }
}
