//! Accesses Flink's pointers to HA data with either provider: ConfigMaps of the API server, or znodes.
//!
//! It contains every difference between the two for the ledger, the collector, the sweeper, the marks and the hand-over
//! of an application. What makes a removal safe differs too, and each method documents it: an HA ConfigMap carries the
//! stamp of the term that may change it, and a change of znodes is a transaction with the latch node of the JVM that
//! leads.

mod checkpoint;
mod config_maps;
mod snapshots;
mod znodes;

use std::collections::BTreeSet;

use crate::flink::job_id::JobId;
use crate::ha_data::inventory::Inventory;
use crate::ha_data::marks::{Mark, SignatureRecords};
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
    /// Returns everything that is stored, and every file that a pointer names; `None` if this term is over.
    ///
    /// It is safe to remove files by it: a later leader writes only after the stamp has changed or the latch has
    /// vanished. ConfigMaps: one quorum list, in which the cluster ConfigMap carries this term's stamp. Znodes: the
    /// latch still exists after everything was read.
    ///
    /// # Errors
    /// When something cannot be read; nothing is known then.
    pub async fn inventory(&self, term: &Term) -> anyhow::Result<Option<Inventory>> {
        match self {
            Self::ConfigMaps(config_maps) => config_maps.inventory(term).await,
            Self::Znodes(znodes) => znodes.inventory().await,
        }
    }

    /// Returns everything that is stored now, in whatever term. Nothing may be removed by it.
    ///
    /// # Errors
    /// When something cannot be read; nothing is known then.
    pub async fn stored_now(&self) -> anyhow::Result<Inventory> {
        match self {
            Self::ConfigMaps(config_maps) => config_maps.stored_now().await,
            Self::Znodes(znodes) => znodes.stored_now().await,
        }
    }

    /// Makes Flink recover these jobs, which are in quarantine, and whose files are there again.
    ///
    /// ConfigMaps: Flink's leader does not look there again. It asks for another leader by a planned switchover, which
    /// happens as soon as there is a standby; the grant moves the pointers. Znodes: Flink's leader sees at once what is
    /// stored, so the pointers are moved now, each in a transaction that requires the latch.
    ///
    /// # Errors
    /// When the API server or the quorum does not answer, or when this term is over. A retry is safe.
    pub async fn recover(&self, jobs: &BTreeSet<JobId>) -> anyhow::Result<()> {
        match self {
            Self::ConfigMaps(config_maps) => config_maps.ask_for_switchover().await,
            Self::Znodes(znodes) => znodes.bring_back(jobs).await,
        }
    }

    /// Returns the unreadable pointers of this inventory, by the names of their ConfigMaps or the paths of their
    /// znodes.
    pub fn unreadable(&self, inventory: &Inventory) -> Vec<String> {
        match self {
            Self::ConfigMaps(config_maps) => config_maps.unreadable(inventory),
            Self::Znodes(_) => inventory.unreadable_znodes.iter().cloned().collect(),
        }
    }

    /// Returns the sizes of the HA ConfigMaps that were written in this term; empty for znodes, which hold one short
    /// pointer each.
    pub fn written_sizes(&self) -> Vec<Size> {
        match self {
            Self::ConfigMaps(config_maps) => config_maps.snapshots.sizes(),
            Self::Znodes(_) => Vec::new(),
        }
    }

    /// Has this gateway a session with the quorum? `None` for ConfigMaps.
    pub fn quorum_session(&self) -> Option<bool> {
        match self {
            Self::ConfigMaps(_) => None,
            Self::Znodes(znodes) => Some(znodes.is_connected()),
        }
    }

    /// Returns the number of HA ConfigMaps that this gateway could not restore because it has no room for their copies.
    pub fn without_copy(&self) -> usize {
        match self {
            Self::ConfigMaps(config_maps) => config_maps.snapshots.without_copy(),
            Self::Znodes(_) => 0,
        }
    }

    /// Can Flink leave znodes of a job that hold no pointer? The keys of a ConfigMap vanish with it. Flink removes
    /// znodes one by one, and may die in between.
    pub fn may_hold_empty(&self) -> bool {
        matches!(self, Self::Znodes(_))
    }

    /// Removes the pointers of a superseded run or of a dropped job, in quarantine too. Returns false while another
    /// JobManager leads it: its address stays in ZooKeeper until that session ends.
    ///
    /// Safe, because it removes nothing that another term may have written. ConfigMaps: exactly the objects that were
    /// read with this term's stamp (UID, resourceVersion). Znodes: each in a transaction that requires the latch and
    /// the version that was read.
    ///
    /// # Errors
    /// When this term is over, or when somebody has written meanwhile. A retry is safe.
    pub async fn remove_run(&self, job: JobId, term: &Term) -> anyhow::Result<bool> {
        match self {
            Self::ConfigMaps(config_maps) => config_maps.remove_run(job, term).await.map(|()| true),
            Self::Znodes(znodes) => znodes.remove_run(job).await,
        }
    }

    /// Removes the znodes of ended jobs that hold no pointer ([`Inventory::remnants`]). Returns the jobs that a
    /// JobManager leads: its address stays in ZooKeeper until it closes the job or its session ends.
    ///
    /// Safe, because it does not remove a pointer that Flink writes meanwhile. ConfigMaps: there are none. Znodes: each
    /// job's in one transaction that requires the latch and an empty znode.
    ///
    /// # Errors
    /// When this term is over, or when somebody has written meanwhile. A retry is safe.
    pub async fn remove_empty(&self, jobs: impl Iterator<Item = JobId>) -> anyhow::Result<BTreeSet<JobId>> {
        match self {
            Self::ConfigMaps(_) => Ok(BTreeSet::new()),
            Self::Znodes(znodes) => znodes.remove_empty(jobs).await,
        }
    }

    /// Returns the last pointer of a job to a checkpoint; `None` if there is none. Changes nothing.
    ///
    /// # Errors
    /// When it cannot be read; nothing is known then.
    pub async fn last_checkpoint(&self, job: JobId) -> anyhow::Result<Option<LastCheckpoint>> {
        match self {
            Self::ConfigMaps(config_maps) => config_maps.last_checkpoint(job).await,
            Self::Znodes(znodes) => znodes.last_checkpoint(job).await,
        }
    }

    /// Writes our mark into the store itself, unless it stands. Returns the mark's location if another Kubernetes
    /// cluster wrote it; the mark then stays as it is.
    ///
    /// Safe: it never overwrites a mark of another Kubernetes cluster. ConfigMaps need no mark: they are in this
    /// Kubernetes cluster.
    ///
    /// # Errors
    /// When no server answers, or when rights are missing.
    pub async fn mark(&self, us: &Mark, records: &SignatureRecords) -> anyhow::Result<Option<String>> {
        match self {
            Self::ConfigMaps(_) => Ok(None),
            Self::Znodes(znodes) => znodes.sign(us, records).await,
        }
    }

    /// Returns the owners of other marks in the store, for display.
    ///
    /// # Errors
    /// When no server answers, or when rights are missing.
    pub async fn other_marks(&self, owner: &str) -> anyhow::Result<Vec<String>> {
        match self {
            Self::ConfigMaps(_) => Ok(Vec::new()),
            Self::Znodes(znodes) => znodes.others(owner).await,
        }
    }

    /// Returns gateway processes that were seen alive in this cluster. Without a Lease they cannot be seen, and those
    /// in the ledger count: clusters that share a quorum elect one leader between them.
    pub fn witnessed(&self, records: &SignatureRecords) -> Vec<String> {
        match self {
            Self::ConfigMaps(config_maps) => config_maps.witnessed(),
            Self::Znodes(_) => records.signers.clone(),
        }
    }

    /// Returns the UID of the cluster's Lease; `None` where Flink elects without one.
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
