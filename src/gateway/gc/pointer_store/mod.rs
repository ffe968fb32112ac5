//! The store of Flink's pointers to HA data, with either provider: ConfigMaps of the API server, or znodes.
//!
//! Everything that differs between the two in the ledger, the collector, the sweeper, the marks and the hand-over of an
//! application stands here. What makes a removal safe differs too, and each method says what it is: an HA ConfigMap
//! carries the stamp of the term that may change it, and a change of znodes is a transaction with the latch node of the
//! JVM that leads.

mod checkpoint;
mod config_maps;
mod snapshots;
mod znodes;

use crate::flink::job_id::JobId;
use crate::ha_data::inventory::Inventory;
use crate::ha_data::marks::{Mark, Records};
use crate::lease::term::Term;
use crate::ledger::jobs::Size;

pub use self::checkpoint::LastCheckpoint;
pub use self::config_maps::ConfigMaps;
pub use self::snapshots::Snapshots;
pub use self::znodes::Znodes;

/// Why there is no inventory.
pub const TERM_IS_OVER: &str = "another term has stamped the HA data, or the latch of this term is gone";

/// Reads pointers, and removes those that nothing needs.
#[derive(Clone)]
pub enum PointerStore {
    ConfigMaps(ConfigMaps),
    Znodes(Znodes),
}

impl PointerStore {
    /// Everything that is stored, and every file that a pointer names; `None` when this term is over.
    ///
    /// Safe to remove by: whoever leads later writes only after the stamp has changed or the latch is gone. ConfigMaps:
    /// one quorum list, in which the cluster's ConfigMap carries this term's stamp. Znodes: the latch is looked at
    /// after everything was read, and is still there.
    ///
    /// # Errors
    /// When something cannot be read: then nothing is known.
    pub async fn inventory(&self, term: &Term) -> anyhow::Result<Option<Inventory>> {
        match self {
            Self::ConfigMaps(config_maps) => config_maps.inventory(term).await,
            Self::Znodes(znodes) => znodes.inventory().await,
        }
    }

    /// The pointers of this inventory that cannot be read, by the names of their ConfigMaps or the paths of their
    /// znodes.
    pub fn unreadable(&self, inventory: &Inventory) -> Vec<String> {
        match self {
            Self::ConfigMaps(config_maps) => config_maps.unreadable(inventory),
            Self::Znodes(_) => inventory.unreadable_znodes.iter().cloned().collect(),
        }
    }

    /// The sizes of the HA ConfigMaps that were written in this term. A znode holds one short pointer, and none is
    /// told.
    pub fn written_sizes(&self) -> Vec<Size> {
        match self {
            Self::ConfigMaps(config_maps) => config_maps.snapshots.sizes(),
            Self::Znodes(_) => Vec::new(),
        }
    }

    /// Whether Flink can leave pointers of a job that point to nothing. The keys of a ConfigMap vanish with it; Flink
    /// removes znodes one by one, and may die in between.
    pub fn may_hold_empty(&self) -> bool {
        matches!(self, Self::Znodes(_))
    }

    /// Removes the pointers of a run in whose place another one began.
    ///
    /// Safe, because nothing is removed that another term may have written. ConfigMaps: exactly the object that was
    /// read with this term's stamp (UID and resourceVersion). Znodes: each in a transaction that requires the latch,
    /// and the version that was read.
    ///
    /// # Errors
    /// When this term is over, or something was written meanwhile. It is safe to try again.
    pub async fn remove_run(&self, job: JobId, term: &Term) -> anyhow::Result<()> {
        match self {
            Self::ConfigMaps(config_maps) => config_maps.remove_run(job, term).await,
            Self::Znodes(znodes) => znodes.remove_run(job).await,
        }
    }

    /// Removes the pointers of ended jobs that point to nothing ([`Inventory::remnants`]).
    ///
    /// Safe, because a pointer that Flink writes meanwhile is not removed. ConfigMaps: there are none. Znodes: each
    /// job's in one transaction that requires the latch, and a znode that is still empty.
    ///
    /// # Errors
    /// When this term is over, or something was written meanwhile. It is safe to try again.
    pub async fn remove_empty(&self, jobs: impl Iterator<Item = JobId>) -> anyhow::Result<()> {
        match self {
            Self::ConfigMaps(_) => Ok(()),
            Self::Znodes(znodes) => znodes.remove_empty(jobs).await,
        }
    }

    /// The last pointer of a job to a checkpoint; `None` when it has none. Changes nothing.
    ///
    /// # Errors
    /// When it cannot be read: then nothing is known.
    pub async fn last_checkpoint(&self, job: JobId) -> anyhow::Result<Option<LastCheckpoint>> {
        match self {
            Self::ConfigMaps(config_maps) => config_maps.last_checkpoint(job).await,
            Self::Znodes(znodes) => znodes.last_checkpoint(job).await,
        }
    }

    /// Signs the store itself, unless our mark stands. Returns the mark's place when it was written in another
    /// Kubernetes cluster; it stays as it is then.
    ///
    /// Safe: a mark of another Kubernetes cluster is never written over. ConfigMaps need none: they are in this
    /// Kubernetes cluster.
    ///
    /// # Errors
    /// When no server answers, or rights are missing.
    pub async fn mark(&self, us: &Mark, records: &Records) -> anyhow::Result<Option<String>> {
        match self {
            Self::ConfigMaps(_) => Ok(None),
            Self::Znodes(znodes) => znodes.sign(us, records).await,
        }
    }

    /// Marks of other owners in the store, for people.
    ///
    /// # Errors
    /// When no server answers, or rights are missing.
    pub async fn other_marks(&self, owner: &str) -> anyhow::Result<Vec<String>> {
        match self {
            Self::ConfigMaps(_) => Ok(Vec::new()),
            Self::Znodes(znodes) => znodes.others(owner).await,
        }
    }

    /// Gateway processes that have been seen alive in this cluster. Without a Lease there is nothing to see them on:
    /// those that the ledger names then, because clusters that share a quorum elect one leader between them.
    pub fn witnessed(&self, records: &Records) -> Vec<String> {
        match self {
            Self::ConfigMaps(config_maps) => config_maps.witnessed(),
            Self::Znodes(_) => records.signers.clone(),
        }
    }

    /// The UID of the cluster's Lease; `None` where Flink elects without one.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn lease_uid(&self) -> anyhow::Result<Option<String>> {
        match self {
            Self::ConfigMaps(config_maps) => config_maps.lease_uid().await.map(Some),
            Self::Znodes(_) => Ok(None),
        }
    }
}
