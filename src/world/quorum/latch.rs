//! The znodes of a cluster taken over by another version of its application, while no JobManager leads. Our gateway
//! holds the place of the leader meanwhile, by a latch node of its own: as long as that is the lowest, Flink elects
//! nobody.

use std::collections::BTreeSet;

use zookeeper_client::{Acls, Client, CreateMode, MultiWriter};

use super::znodes::{ANY, MARKS, Result, candidates, children, children_of, data, none, remove_remnants};
use crate::flink::job_id::JobId;
use crate::flink::znodes::{CHECKPOINTS, LATCH_PREFIX, LOCKS, PLANS, Paths};
use crate::quorum::Candidate;

/// What is stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredZnodes {
    /// The data of the znode with the mark.
    pub mark: Vec<u8>,
    /// Names of znodes with a graph, plan or application: ids of jobs and applications.
    pub plans: BTreeSet<String>,
    /// Of the znode with the mark.
    pub version: i32,
}

/// What is stored, as the quorum has it now.
///
/// # Errors
/// When something cannot be read: then nothing is known.
pub async fn stored(client: &Client, paths: &Paths) -> Result<StoredZnodes> {
    client.sync(&paths.cluster).await.or_else(none)?;
    let (mark, stat) = client.get_data(&paths.child(MARKS)).await?;
    let mut plans = BTreeSet::new();
    for kind in PLANS {
        plans.extend(children(client, &paths.child(kind)).await?);
    }
    Ok(StoredZnodes { mark, plans, version: stat.version })
}

/// Stands for election, as a JVM does it (Curator's `LeaderLatch`), unless we do. Our latch node goes with our session.
///
/// # Errors
/// When no server answers, or rights are missing.
pub async fn stand(client: &Client, paths: &Paths, acls: Acls<'_>) -> Result<()> {
    if own(client, paths).await?.is_empty() {
        client.mkdir(&paths.latch(), &CreateMode::Persistent.with_acls(acls)).await?;
        let prefix = format!("{}/{LATCH_PREFIX}", paths.latch());
        client.create(&prefix, b"gateway", &CreateMode::EphemeralSequential.with_acls(acls)).await?;
    }
    Ok(())
}

/// Gives our latch nodes up: there are two if the answer to a request was lost.
///
/// # Errors
/// When no server answers.
pub async fn withdraw(client: &Client, paths: &Paths) -> Result<()> {
    for candidate in own(client, paths).await? {
        client.delete(&candidate.path, None).await.or_else(none)?;
    }
    Ok(())
}

/// Our latch nodes.
async fn own(client: &Client, paths: &Paths) -> Result<Vec<Candidate>> {
    let mut all = candidates(client, paths).await?;
    all.retain(|candidate| candidate.session == client.session_id().0);
    Ok(all)
}

/// This latch node is there, as the quorum has it now and not as a server that is behind.
///
/// # Errors
/// When no server answers.
pub async fn is_there(client: &Client, paths: &Paths, latch: &str) -> Result<bool> {
    client.sync(&paths.cluster).await.or_else(none)?;
    Ok(client.check_stat(latch).await?.is_some())
}

/// Removes all plans and says whose the rest is, in one transaction: while our latch node is there, and if nobody else
/// has said so since. A plan that a JobManager still has locked makes it fail.
///
/// # Errors
/// When no server answers, or one of these conditions does not hold. It is safe to try again.
pub async fn take_over(client: &Client, paths: &Paths, latch: &str, mark: &str, version: i32) -> Result<()> {
    let mut writer = client.new_multi_writer();
    writer.add_check_version(latch, ANY)?;
    for kind in PLANS {
        let parent = paths.child(kind);
        for id in children(client, &parent).await? {
            add_removal(client, &mut writer, &format!("{parent}/{id}")).await?;
        }
    }
    writer.add_set_data(&paths.child(MARKS), mark.as_bytes(), Some(version))?;
    writer.commit().await.map(drop).map_err(Into::into)
}

/// Says which start of the pods is the last, if nobody else has said whose the rest is since.
///
/// # Errors
/// When no server answers, or when it was said meanwhile. It is safe to try again.
pub async fn raise(client: &Client, paths: &Paths, mark: &str, version: i32) -> Result<()> {
    client.set_data(&paths.child(MARKS), mark.as_bytes(), Some(version)).await.map(drop)
}

/// The pointer to the last checkpoint of a job; `None` when it has none.
///
/// # Errors
/// When no server answers.
pub async fn last_checkpoint(client: &Client, paths: &Paths, job: JobId) -> Result<Option<Vec<u8>>> {
    let parent = format!("{}/{CHECKPOINTS}", paths.job(job));
    // The number in the name has a fixed width.
    let Some(last) = children(client, &parent).await?.into_iter().max() else { return Ok(None) };
    data(client, &format!("{parent}/{last}")).await
}

/// Removes everything of a run in whose place another one began, its pointers to checkpoints too, if this latch node is
/// still there. Returns false if the address of a JobManager that leads it stays. A pointer that a JobManager still has
/// locked makes it fail.
///
/// # Errors
/// When no server answers, or when something was written meanwhile. It is safe to try again.
pub async fn remove_run(client: &Client, paths: &Paths, latch: &str, job: JobId) -> Result<bool> {
    let pointers = format!("{}/{CHECKPOINTS}", paths.job(job));
    for pointer in children(client, &pointers).await? {
        let mut writer = client.new_multi_writer();
        writer.add_check_version(latch, ANY)?;
        add_removal(client, &mut writer, &format!("{pointers}/{pointer}")).await?;
        writer.commit().await?;
    }
    remove_remnants(client, paths, latch, job).await
}

/// The removal of a pointer as it is now. What is below it but the empty parent of locks makes the transaction fail.
pub(super) async fn add_removal(client: &Client, writer: &mut MultiWriter<'_>, path: &str) -> Result<()> {
    let Some(stat) = client.check_stat(path).await? else { return Ok(()) };
    let locks = format!("{path}/{LOCKS}");
    if children_of(client, &locks).await?.is_some() {
        writer.add_delete(&locks, None)?;
    }
    writer.add_delete(path, Some(stat.version))
}
