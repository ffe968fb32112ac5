//! Pointers to graphs and plans that are moved from where Flink finds them to where it does not, and back. Each move is
//! one transaction that succeeds only while a certain latch node is there: so nobody moves anything who leads no more.

use std::collections::BTreeSet;

use zookeeper_client::{Acls, Client, CreateMode};

use super::latch::add_removal;
use super::znodes::{ANY, Result, children, data};
use crate::flink::job_id::JobId;
use crate::flink::version::StoredForm;
use crate::flink::znodes::{LOCKS, Paths, QUARANTINE, of_quarantine_name, plans, quarantine_name};

/// Sets the pointers of these jobs aside. One that a JobManager has locked makes its move fail.
///
/// # Errors
/// When no server answers, the latch is gone, or something was written meanwhile. It is safe to try again.
pub async fn set_aside(
    client: &Client,
    paths: &Paths,
    latch: &str,
    acls: Acls<'_>,
    jobs: &BTreeSet<JobId>,
) -> Result<()> {
    let (parent, mode) = (paths.child(QUARANTINE), CreateMode::Persistent.with_acls(acls));
    client.mkdir(&parent, &mode).await?;
    for kind in [StoredForm::JobGraph, StoredForm::ExecutionPlan].map(plans) {
        for id in children(client, &paths.child(kind)).await? {
            let path = format!("{}/{id}", paths.child(kind));
            let Some(pointer) = data(client, &path).await?.filter(|_| is_one_of(&id, jobs)) else { continue };
            let mut writer = client.new_multi_writer();
            writer.add_check_version(latch, ANY)?;
            add_removal(client, &mut writer, &path).await?;
            writer.add_create(&format!("{parent}/{}", quarantine_name(kind, &id)), &pointer, &mode)?;
            writer.commit().await?;
        }
    }
    Ok(())
}

/// Moves the pointers of these jobs back to where they were. A leader sees them at once
/// (`ZooKeeperExecutionPlanStoreWatcher`).
///
/// # Errors
/// As [`set_aside`], and when a pointer is stored there.
pub async fn bring_back(
    client: &Client,
    paths: &Paths,
    latch: &str,
    acls: Acls<'_>,
    jobs: &BTreeSet<JobId>,
) -> Result<()> {
    let (parent, mode) = (paths.child(QUARANTINE), CreateMode::Persistent.with_acls(acls));
    for name in children(client, &parent).await? {
        let Some((kind, id)) = of_quarantine_name(&name).filter(|(_, id)| jobs.contains(id)) else { continue };
        let (aside, path) = (format!("{parent}/{name}"), format!("{}/{id}", paths.child(kind)));
        let Some(pointer) = data(client, &aside).await? else { continue };
        client.mkdir(&paths.child(kind), &mode).await?;
        let mut writer = client.new_multi_writer();
        writer.add_check_version(latch, ANY)?;
        writer.add_delete(&aside, None)?;
        writer.add_create(&path, &pointer, &mode)?;
        // Without it Flink takes the pointer for one that it is about to remove.
        writer.add_create(&format!("{path}/{LOCKS}"), b"", &mode)?;
        writer.commit().await?;
    }
    Ok(())
}

/// Removes the pointers of a job that are set aside.
///
/// # Errors
/// As [`set_aside`].
pub async fn remove(client: &Client, paths: &Paths, latch: &str, job: JobId) -> Result<()> {
    let parent = paths.child(QUARANTINE);
    for name in children(client, &parent).await? {
        if of_quarantine_name(&name).is_some_and(|(_, id)| id == job) {
            let mut writer = client.new_multi_writer();
            writer.add_check_version(latch, ANY)?;
            writer.add_delete(&format!("{parent}/{name}"), None)?;
            writer.commit().await?;
        }
    }
    Ok(())
}

fn is_one_of(id: &str, jobs: &BTreeSet<JobId>) -> bool {
    JobId::of(id).is_some_and(|id| jobs.contains(&id))
}
