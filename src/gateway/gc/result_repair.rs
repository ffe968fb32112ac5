//! Repairs the result stores before a JVM is shown the lock; what and why is decided in [`crate::ha_data::repair`].

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;
use tokio::time::{sleep, timeout};

use crate::flink::ha_data;
use crate::flink::job_id::JobId;
use crate::flink::result::{Store, application_entry};
use crate::ha_data::repair::{Mend, mend};
use crate::world::storage::Storage;

/// A former leader may be writing an entry just now; what still is torn after this long stays torn.
const SETTLE_DELAY: Duration = Duration::from_millis(500);
/// A storage that does not answer must not keep a leader from being elected.
const STORAGE_TIMEOUT: Duration = Duration::from_secs(3);

/// Jobs and applications that are stored, as read in the term of the leader that is to be, or after the last one has
/// died.
#[derive(Clone, Debug, Default)]
pub struct Stored {
    pub jobs: BTreeSet<JobId>,
    pub applications: BTreeSet<JobId>,
}

impl Stored {
    /// By the keys of the cluster ConfigMap with our stamp.
    pub fn in_config_map(cluster: &Value) -> Self {
        Self { jobs: ha_data::stored_jobs(cluster), applications: ha_data::stored_applications(cluster) }
    }
}

/// Mends, if something is to be mended. Takes no time otherwise.
async fn mend_all(storage: &Storage, Stored { jobs, applications }: &Stored) -> object_store::Result<()> {
    let first = mend(&storage.entries().await?, jobs, applications);
    if first.is_empty() {
        return Ok(());
    }
    sleep(SETTLE_DELAY).await;
    let again = mend(&storage.entries().await?, jobs, applications);
    for repair in again.iter().filter(|repair| first.contains(repair)) {
        match repair {
            Mend::Remove { store, id } => {
                tracing::warn!(
                    %id,
                    ?store,
                    "the last leader died while it wrote this result: removing it, the job resumes"
                );
                storage.remove_dirty(*store, *id).await?;
            }
            Mend::Write { application, of_job } => {
                tracing::warn!(%application, "the last leader died before it wrote this result: writing it");
                storage.write_dirty(Store::Application, *application, application_entry(*application, of_job)).await?;
            }
        }
    }
    Ok(())
}

/// Mends within bounded time; a failure is reported and does not keep the leader from being elected.
pub async fn mend_before_grant(storage: &Storage, stored: &Stored) {
    match timeout(STORAGE_TIMEOUT, mend_all(storage, stored)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "failed to look through the result stores"),
        Err(_) => tracing::warn!("the storage directory does not answer"),
    }
}
