//! The znodes of one cluster: read as a whole, and removed by transactions that succeed only while a certain latch node
//! is there.

use std::collections::BTreeSet;

use zookeeper_client::{Acls, Client, CreateMode, Error};

use crate::flink::job_id::JobId;
use crate::flink::version::StoredForm;
use crate::flink::znodes::{
    APPLICATIONS, CHECKPOINTS, COUNTER, ClusterZnodes, JOBS, JobZnode, LEADER, PLANS, Paths, PlanZnode, QUARANTINE,
    is_marked_for_deletion, job_of_leader, of_quarantine_name, plans, sequence,
};
use crate::ha_data::versions::StoredJobs;
use crate::quorum::Candidate;

pub(super) type Result<T> = std::result::Result<T, Error>;

/// Child of a cluster's znode with the marks by which clusters sign that they use it; each is named by its owner.
pub const MARKS: &str = "flinkha";

/// The candidates of Flink's election, the leader first.
///
/// # Errors
/// When no server answers.
pub async fn candidates(client: &Client, paths: &Paths) -> Result<Vec<Candidate>> {
    let mut children = children(client, &paths.latch()).await?;
    children.retain(|name| sequence(name).is_some());
    children.sort_by_key(|name| sequence(name));
    let mut found = Vec::new();
    for name in children {
        let path = format!("{}/{name}", paths.latch());
        if let Some(stat) = client.check_stat(&path).await? {
            found.push(Candidate { path, session: stat.ephemeral_owner });
        }
    }
    Ok(found)
}

/// The session that has published the address of the leading dispatcher, which is what Flink does when it has been
/// granted leadership.
///
/// # Errors
/// When no server answers.
pub async fn publisher(client: &Client, paths: &Paths) -> Result<Option<i64>> {
    Ok(client.check_stat(&paths.dispatcher()).await?.map(|stat| stat.ephemeral_owner))
}

/// Everything about jobs, as the quorum has it now and not as a server that is behind.
///
/// # Errors
/// When something cannot be read: then nothing is known.
pub async fn read(client: &Client, paths: &Paths) -> Result<ClusterZnodes> {
    client.sync(&paths.cluster).await.or_else(none)?;
    let mut znodes = ClusterZnodes::default();
    for kind in children(client, &paths.cluster).await? {
        let path = paths.child(&kind);
        match kind.as_str() {
            JOBS => {
                for id in children(client, &path).await? {
                    znodes.jobs.extend(read_job(client, format!("{path}/{id}"), JobId::of(&id)).await?);
                }
            }
            LEADER => {
                znodes
                    .with_leader
                    .extend(children(client, &path).await?.iter().filter_map(|child| job_of_leader(child)));
            }
            MARKS => {}
            QUARANTINE => {
                for name in children(client, &path).await? {
                    let id = of_quarantine_name(&name).map(|(_, id)| id);
                    znodes.quarantined.extend(read_pointer(client, format!("{path}/{name}"), id).await?);
                }
            }
            kind if PLANS.contains(&kind) => {
                for id in children(client, &path).await? {
                    znodes.plans.extend(read_pointer(client, format!("{path}/{id}"), JobId::of(&id)).await?);
                }
            }
            _ => znodes.unknown.push(path),
        }
    }
    Ok(znodes)
}

/// The ids of stored jobs, and of stored applications.
///
/// # Errors
/// When no server answers.
pub async fn stored(client: &Client, paths: &Paths) -> Result<(BTreeSet<JobId>, BTreeSet<JobId>)> {
    let mut stored = (BTreeSet::new(), BTreeSet::new());
    for kind in PLANS {
        let names = children(client, &paths.child(kind)).await?;
        let ids = names.iter().filter_map(|name| JobId::of(name));
        if kind == APPLICATIONS { stored.1.extend(ids) } else { stored.0.extend(ids) }
    }
    Ok(stored)
}

/// Which jobs are stored in which form, as the quorum has it now.
///
/// # Errors
/// When no server answers.
pub async fn stored_by_form(client: &Client, paths: &Paths) -> Result<StoredJobs> {
    client.sync(&paths.cluster).await.or_else(none)?;
    let job_graphs = children(client, &paths.child(plans(StoredForm::JobGraph))).await?;
    let execution_plans = children(client, &paths.child(plans(StoredForm::ExecutionPlan))).await?;
    Ok(StoredJobs {
        job_graphs: job_graphs.into_iter().collect(),
        execution_plans: execution_plans.into_iter().collect(),
    })
}

/// `None` when it has just gone.
async fn read_pointer(client: &Client, path: String, id: Option<JobId>) -> Result<Option<PlanZnode>> {
    let found = client.get_data(&path).await.map(Some).or_else(none)?;
    Ok(found.map(|(pointer, stat)| PlanZnode {
        path,
        id,
        pointer,
        is_going: is_marked_for_deletion(stat.num_children),
    }))
}

/// `None` when it has just gone.
async fn read_job(client: &Client, path: String, id: Option<JobId>) -> Result<Option<JobZnode>> {
    let Some(parts) = children_of(client, &path).await? else { return Ok(None) };
    let mut job = JobZnode { unknown: id.is_none(), id, path, ..JobZnode::default() };
    for part in parts {
        match part.as_str() {
            COUNTER => {}
            CHECKPOINTS => {
                let path = format!("{}/{CHECKPOINTS}", job.path);
                for checkpoint in children(client, &path).await? {
                    let found = read_pointer(client, format!("{path}/{checkpoint}"), id).await?;
                    let Some(PlanZnode { pointer, is_going, .. }) = found else { continue };
                    if is_going {
                        job.going.push(pointer.clone());
                    }
                    job.checkpoints.push(pointer);
                }
            }
            _ => job.unknown = true,
        }
    }
    Ok(Some(job))
}

/// Removes the znodes of a job that point to nothing, if this latch node is still there: then nobody else leads.
/// Whatever Flink has written in the meantime, and whatever another JobManager has locked, makes the transaction fail
/// as a whole. Returns false while a JobManager leads the job: its address stays.
///
/// # Errors
/// When no server answers, or when something was written meanwhile. It is safe to try again.
pub async fn remove_remnants(client: &Client, paths: &Paths, latch: &str, job: JobId) -> Result<bool> {
    let path = paths.job(job);
    if let Some(parts) = children_of(client, &path).await? {
        let mut writer = client.new_multi_writer();
        writer.add_check_version(latch, ANY)?;
        for part in parts {
            let part = format!("{path}/{part}");
            // With its version: what is written to it meanwhile stays.
            let Some(stat) = client.check_stat(&part).await? else { continue };
            writer.add_delete(&part, Some(stat.version))?;
        }
        writer.add_delete(&path, None)?;
        writer.commit().await?;
    }
    let leader = paths.leader_of_job(job);
    let Some(addresses) = children_of(client, &leader).await? else { return Ok(true) };
    if addresses.is_empty() {
        let mut writer = client.new_multi_writer();
        writer.add_check_version(latch, ANY)?;
        writer.add_delete(&leader, None)?;
        writer.commit().await?;
    }
    Ok(addresses.is_empty())
}

/// Any version: that the node is there is all that counts.
pub(super) const ANY: i32 = -1;

/// Makes the cluster's znode, unless it is there: shows whether we may.
///
/// # Errors
/// When no server answers, or rights are missing.
pub async fn prepare(client: &Client, paths: &Paths, acls: Acls<'_>) -> Result<()> {
    client.mkdir(&paths.child(MARKS), &CreateMode::Persistent.with_acls(acls)).await
}

/// The path of an owner's mark.
pub fn mark_path(paths: &Paths, owner: &str) -> String {
    format!("{}/{owner}", paths.child(MARKS))
}

/// What the owner's mark says; `None` when there is none.
///
/// # Errors
/// When no server answers, or rights are missing.
pub async fn mark(client: &Client, paths: &Paths, owner: &str) -> Result<Option<String>> {
    Ok(data(client, &mark_path(paths, owner)).await?.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
}

/// Signs the cluster's znode.
///
/// # Errors
/// When no server answers, or rights are missing.
pub async fn sign(client: &Client, paths: &Paths, owner: &str, mark: &str, acls: Acls<'_>) -> Result<()> {
    let path = mark_path(paths, owner);
    client.mkdir(&path, &CreateMode::Persistent.with_acls(acls)).await?;
    client.set_data(&path, mark.as_bytes(), None).await.map(drop)
}

/// Owners of the other marks.
///
/// # Errors
/// When no server answers, or rights are missing.
pub async fn others(client: &Client, paths: &Paths, owner: &str) -> Result<Vec<String>> {
    Ok(children(client, &paths.child(MARKS)).await?.into_iter().filter(|other| other != owner).collect())
}

/// What is found under a cluster's path before this cluster lets a JobManager in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FoundZnodes {
    /// A cluster of ours has signed the path, or has said whose application is stored there.
    pub is_signed: bool,
    /// The latch node of the leader, if there are candidates.
    pub leader: Option<String>,
    /// Something is stored for a job.
    pub holds_jobs: bool,
}

/// Looks whose the znodes are, as the quorum has them now.
///
/// # Errors
/// When something cannot be read: then nothing is known.
pub async fn find(client: &Client, paths: &Paths) -> Result<FoundZnodes> {
    client.sync(&paths.cluster).await.or_else(none)?;
    // Before the mark: a gateway of ours signs first and lets its JVM in then.
    let leader = candidates(client, paths).await?.into_iter().next().map(|candidate| candidate.path);
    let znodes = read(client, paths).await?;
    let holds_plans = !znodes.plans.is_empty() || !znodes.quarantined.is_empty() || !znodes.unknown.is_empty();
    let holds_jobs = holds_plans || !znodes.jobs.is_empty();
    let marks = paths.child(MARKS);
    let of_application = data(client, &marks).await?.is_some_and(|mark| !mark.is_empty());
    Ok(FoundZnodes { is_signed: of_application || !children(client, &marks).await?.is_empty(), leader, holds_jobs })
}

/// Removes all znodes of a cluster whose JobManagers have ended, or only those of its election, if `retain`: those of
/// jobs stay then.
///
/// # Errors
/// When no server answers, when another cluster has signed the same path or this one has not, or when a JobManager
/// still holds a latch or a lock.
pub async fn purge(client: &Client, paths: &Paths, owner: &str, retain: bool) -> anyhow::Result<usize> {
    client.sync(&paths.cluster).await.or_else(none)?;
    if let Some(other) = children(client, &paths.child(MARKS)).await?.iter().find(|mark| *mark != owner) {
        anyhow::bail!("another cluster has signed the same znode {}/{MARKS}/{other}; its znodes stay", paths.cluster);
    }
    let held = candidates(client, paths).await?;
    anyhow::ensure!(held.is_empty(), "a JobManager still holds {}; the znodes stay", held[0].path);
    let keeps = retain && {
        let znodes = read(client, paths).await?;
        !znodes.plans.is_empty()
            || !znodes.quarantined.is_empty()
            || !znodes.unknown.is_empty()
            || znodes.jobs.iter().any(|job| !job.checkpoints.is_empty() || job.unknown)
    };
    let found = find(client, paths).await?;
    anyhow::ensure!(
        keeps || found.is_signed || !found.holds_jobs,
        "this cluster has not signed {}, which holds data of jobs; its znodes stay",
        paths.cluster
    );
    let tops = if keeps { vec![paths.child(LEADER)] } else { vec![paths.cluster.clone()] };
    let mut removed = 0;
    for top in tops {
        let mut open = vec![top];
        // Children before their parents: a node that has got a child since is not removed.
        let mut all = Vec::new();
        while let Some(path) = open.pop() {
            if let Some(children) = children_of(client, &path).await? {
                open.extend(children.iter().map(|child| format!("{path}/{child}")));
                all.push(path);
            }
        }
        // The marks at the very end: whoever goes on where this one was interrupted still finds the path signed.
        let (marks, others): (Vec<&String>, Vec<&String>) =
            all.iter().rev().partition(|path| **path == paths.cluster || path.starts_with(&paths.child(MARKS)));
        for path in others.into_iter().chain(marks) {
            // Somebody lives who uses what this belongs to.
            let held = client.check_stat(path).await?.is_some_and(|stat| stat.ephemeral_owner != 0);
            anyhow::ensure!(!held, "a JobManager still holds {path}; the znodes stay");
            match client.delete(path, None).await {
                Ok(()) => removed += 1,
                Err(Error::NoNode) => {}
                Err(error) => {
                    return Err(anyhow::Error::new(error).context(format!("failed to remove the znode {path}")));
                }
            }
        }
    }
    Ok(removed)
}

/// A node that is not there has no children.
pub(super) async fn children(client: &Client, path: &str) -> Result<Vec<String>> {
    Ok(children_of(client, path).await?.unwrap_or_default())
}

pub(super) async fn children_of(client: &Client, path: &str) -> Result<Option<Vec<String>>> {
    client.list_children(path).await.map(Some).or_else(none)
}

pub(super) async fn data(client: &Client, path: &str) -> Result<Option<Vec<u8>>> {
    client.get_data(path).await.map(|(bytes, _)| Some(bytes)).or_else(none)
}

/// What is not there is no error.
pub(super) fn none<T: Default>(error: Error) -> Result<T> {
    match error {
        Error::NoNode => Ok(T::default()),
        other => Err(other),
    }
}
