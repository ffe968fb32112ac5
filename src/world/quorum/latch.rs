//! Hands the znodes of a cluster over to another version of its application while no JobManager leads. Meanwhile the
//! gateway holds the leadership by a latch node of its own: as long as that node is the lowest, Flink elects nobody.

use std::collections::BTreeSet;

use zookeeper_client::{Acls, Client, CreateMode, MultiWriter};

use super::znodes::{ANY, Candidate, MARKS, Result, candidates, children, children_of, data, none, remove_remnants};
use crate::flink::job_id::JobId;
use crate::flink::znodes::{CHECKPOINTS, LATCH_PREFIX, LOCKS, PLANS, Paths};

/// What is stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredZnodes {
    /// The data of the znode with the mark.
    pub mark: Vec<u8>,
    /// Names of znodes with a graph, plan or application: ids of jobs and applications.
    pub plans: BTreeSet<String>,
    /// Version of that znode.
    pub version: i32,
}

/// Reads the HA data that the quorum stores now.
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

/// Stands for election, as a JVM does it (Curator's `LeaderLatch`); returns the path of our latch node once it is the
/// lowest. It goes with our session.
///
/// # Errors
/// When no server answers, or rights are missing.
pub async fn stand(client: &Client, paths: &Paths, acls: Acls<'_>) -> Result<Option<String>> {
    let (own, first) = standing(client, paths).await?;
    if own.is_empty() {
        client.mkdir(&paths.latch(), &CreateMode::Persistent.with_acls(acls)).await?;
        let prefix = format!("{}/{LATCH_PREFIX}", paths.latch());
        client.create(&prefix, b"gateway", &CreateMode::EphemeralSequential.with_acls(acls)).await?;
        let (_, first) = standing(client, paths).await?;
        return Ok(first);
    }
    Ok(first)
}

/// Gives our latch nodes up: there are two if the answer to a request was lost.
///
/// # Errors
/// When no server answers.
pub async fn withdraw(client: &Client, paths: &Paths) -> Result<()> {
    let (own, _) = standing(client, paths).await?;
    for candidate in own {
        client.delete(&candidate.path, None).await.or_else(none)?;
    }
    Ok(())
}

/// Our latch nodes, and the one that is the lowest of all.
async fn standing(client: &Client, paths: &Paths) -> Result<(Vec<Candidate>, Option<String>)> {
    let all = candidates(client, paths).await?;
    let is_ours = |candidate: &Candidate| candidate.session == client.session_id().0;
    let first = all.first().filter(|first| is_ours(first)).map(|first| first.path.clone());
    Ok((all.into_iter().filter(is_ours).collect(), first))
}

/// Removes all plans and says whose the rest is, in one transaction: while our latch node is there, and if nobody else
/// has said so since. A plan that a JobManager still has locked makes it fail.
///
/// # Errors
/// When no server answers, or one of these conditions does not hold. It is safe to try again.
pub async fn take_over(client: &Client, paths: &Paths, latch: &str, mark: &str, before: &StoredZnodes) -> Result<()> {
    let mut writer = client.new_multi_writer();
    writer.add_check_version(latch, ANY)?;
    for kind in PLANS {
        let parent = paths.child(kind);
        for id in children(client, &parent).await? {
            add_removal(client, &mut writer, &format!("{parent}/{id}")).await?;
        }
    }
    writer.add_set_data(&paths.child(MARKS), mark.as_bytes(), Some(before.version))?;
    writer.commit().await.map(drop).map_err(Into::into)
}

/// Writes `mark`, with the number of the pods' last start, if the znode [`MARKS`] still has the version in `before`.
///
/// # Errors
/// When no server answers, or when it was said meanwhile. It is safe to try again.
pub async fn raise(client: &Client, paths: &Paths, mark: &str, before: &StoredZnodes) -> Result<()> {
    client.set_data(&paths.child(MARKS), mark.as_bytes(), Some(before.version)).await.map(drop)
}

/// The pointer to the last checkpoint of a job; `None` when it has none.
///
/// # Errors
/// When no server answers.
pub async fn last_checkpoint(client: &Client, paths: &Paths, job: JobId) -> Result<Option<Vec<u8>>> {
    let parent = format!("{}/{CHECKPOINTS}", paths.job(job));
    // The names have a fixed width, so their order is that of the numbers.
    let Some(last) = children(client, &parent).await?.into_iter().max() else { return Ok(None) };
    data(client, &format!("{parent}/{last}")).await
}

/// Removes everything of a superseded run, its checkpoint pointers too, if this latch node still exists. It fails if a
/// JobManager still holds a lock on a pointer.
///
/// # Errors
/// When no server answers, or when another process has written meanwhile. A retry is safe.
pub async fn remove_run(client: &Client, paths: &Paths, latch: &str, job: JobId) -> Result<()> {
    let pointers = format!("{}/{CHECKPOINTS}", paths.job(job));
    for pointer in children(client, &pointers).await? {
        let mut writer = client.new_multi_writer();
        writer.add_check_version(latch, ANY)?;
        add_removal(client, &mut writer, &format!("{pointers}/{pointer}")).await?;
        writer.commit().await?;
    }
    remove_remnants(client, paths, latch, job).await
}

/// Adds the removal of a pointer at its current version. A child other than the empty parent of locks makes the
/// transaction fail.
async fn add_removal(client: &Client, writer: &mut MultiWriter<'_>, path: &str) -> Result<()> {
    let Some(stat) = client.check_stat(path).await? else { return Ok(()) };
    let locks = format!("{path}/{LOCKS}");
    if children_of(client, &locks).await?.is_some() {
        writer.add_delete(&locks, None)?;
    }
    writer.add_delete(path, Some(stat.version))
}
