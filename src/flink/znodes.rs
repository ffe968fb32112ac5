//! Defines the znodes of Flink's HA services: their paths and contents (`ZooKeeperUtils`,
//! `ZooKeeperLeaderElectionDriver`, Flink 1.20 to 2.3).

use super::job_id::JobId;
use super::version::StoredForm;

/// Children of a cluster's znode that hold pointers to graphs (1.x), plans (2.x) and applications (≥ 2.3).
pub const PLANS: [&str; 3] = [plans(StoredForm::JobGraph), plans(StoredForm::ExecutionPlan), APPLICATIONS];

/// Child of a cluster's znode with a pointer for each job that is stored in this form.
pub const fn plans(form: StoredForm) -> &'static str {
    match form {
        StoredForm::JobGraph => "jobgraphs",
        StoredForm::ExecutionPlan => "execution-plans",
    }
}
/// Child with pointers to applications.
pub const APPLICATIONS: &str = "applications";
/// Child with checkpoints and counters by job.
pub const JOBS: &str = "jobs";
/// Child with the latch and the addresses of the leader's components.
pub const LEADER: &str = "leader";
/// Child of a job with a pointer for each checkpoint.
pub const CHECKPOINTS: &str = "checkpoints";
/// Child of a job with the number of the next checkpoint.
pub const COUNTER: &str = "checkpoint_id_counter";
/// Child of a pointer with one ephemeral child for each JobManager that uses it
/// (`ZooKeeperStateHandleStore.getRootLockPath`).
pub const LOCKS: &str = "locks";

/// Child of a cluster's znode where a gateway keeps pointers that Flink is not to find. Each is a child
/// `<child of Flink's>-<id>`, for example `execution-plans-<id>`. Flink lists the children that it names itself, and no
/// others (`ZooKeeperUtils.createExecutionPlans`, `ZooKeeperStateHandleStore.getAllHandles`; 1.20 to 2.3).
pub const QUARANTINE: &str = "flinkha-quarantine";

/// Returns the name of a pointer in quarantine. `kind`: one of [`PLANS`]; `id`: the name of its znode there.
pub fn quarantine_name(kind: &str, id: &str) -> String {
    format!("{kind}-{id}")
}

/// Returns kind and id of a pointer in quarantine.
pub fn of_quarantine_name(name: &str) -> Option<(&str, JobId)> {
    let (kind, id) = name.rsplit_once('-')?;
    PLANS.contains(&kind).then_some(())?;
    Some((kind, JobId::of(id)?))
}

/// Is Flink about to remove a pointer with so many children, so that it recovers nothing from it? It removes [`LOCKS`]
/// first, then the file, and then the pointer (`ZooKeeperStateHandleStore.isNotMarkedForDeletion`).
pub fn is_marked_for_deletion(children: i32) -> bool {
    children == 0
}

/// Paths of a cluster's znodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// `<path.root>/<high-availability.cluster-id>`
    pub cluster: String,
}

impl Paths {
    pub fn new(root: &str, ha_cluster_id: &str) -> Self {
        Self { cluster: format!("{}/{ha_cluster_id}", root.trim_end_matches('/')) }
    }

    pub fn child(&self, name: &str) -> String {
        format!("{}/{name}", self.cluster)
    }

    /// Returns the parent of the latch nodes, of which each candidate has one.
    pub fn latch(&self) -> String {
        self.child("leader/latch")
    }

    /// Returns the ephemeral znode with the address of the leader's dispatcher, which Flink writes once it has been
    /// granted leadership.
    pub fn dispatcher(&self) -> String {
        self.child("leader/dispatcher/connection_info")
    }

    pub fn job(&self, job: JobId) -> String {
        self.child(&format!("{JOBS}/{job}"))
    }

    /// Returns the parent of the address of a job's leader. Flink leaves an empty parent.
    pub fn leader_of_job(&self, job: JobId) -> String {
        self.child(&format!("{LEADER}/job-{job}"))
    }
}

/// The part of a cluster's znodes that concerns jobs, with pointers as bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterZnodes {
    pub plans: Vec<PlanZnode>,
    /// Plans that a gateway has set aside, where Flink does not look.
    pub quarantined: Vec<PlanZnode>,
    pub jobs: Vec<JobZnode>,
    /// Jobs with a parent for the address of their leader.
    pub with_leader: Vec<JobId>,
    /// Paths that no known version of Flink writes; they may name any file.
    pub unknown: Vec<String>,
}

/// A znode that points to a graph, plan or application.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlanZnode {
    pub path: String,
    /// Job or application; `None` if the znode's name is not an id, so that nothing is known about it.
    pub id: Option<JobId>,
    pub pointer: Vec<u8>,
    /// Flink is about to remove it.
    pub is_going: bool,
}

/// The znodes below `jobs/<id>`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobZnode {
    /// `None` if the znode's name is not an id, so that nothing is known about it.
    pub id: Option<JobId>,
    pub path: String,
    /// Pointers to checkpoints.
    pub checkpoints: Vec<Vec<u8>>,
    /// Those of them that Flink is about to remove.
    pub going: Vec<Vec<u8>>,
    /// The znode has an unknown child.
    pub unknown: bool,
}

/// Returns the job of a child `job-<id>` of `leader`.
pub fn job_of_leader(child: &str) -> Option<JobId> {
    JobId::of(child.strip_prefix("job-")?)
}

/// Prefix of the latch nodes of gateways. Those of JVMs come from Curator and contain a random id.
pub const LATCH_PREFIX: &str = "flinkha-latch-";

/// Returns the sequence number of a latch node; the lowest leads (Curator's `LeaderLatch`,
/// `_c_<uuid>-latch-<10 digits>`). Curator compares it as text; it keeps ten digits for two thousand million
/// candidates.
pub fn sequence(name: &str) -> Option<u64> {
    let (_, digits) = name.rsplit_once("latch-")?;
    (digits.len() >= 10).then(|| digits.parse().ok())?
}

/// Returns the address in a `connection_info`: a Java stream with `writeUTF(address)` and `writeObject(UUID)`
/// (`ZooKeeperUtils.writeLeaderInformationToZooKeeper`).
pub fn address(bytes: &[u8]) -> Option<&str> {
    let block = bytes.strip_prefix(&[0xac, 0xed, 0x00, 0x05, 0x77])?;
    let length = usize::from(u16::from_be_bytes(block.get(1..3)?.try_into().ok()?));
    std::str::from_utf8(block.get(3..3 + length)?).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_lowest_latch_leads_and_an_address_is_read() {
        assert_eq!(sequence("_c_0f6e1c1a-9f63-4d53-8f0e-3b1d5b8ff1b4-latch-0000000012"), Some(12));
        assert_eq!(sequence("latch"), None);
        let mut info = vec![0xac, 0xed, 0, 5, 0x77, 7, 0, 5];
        info.extend(b"pekko\x73\x72");
        assert_eq!(address(&info), Some("pekko"));
    }

    #[test]
    fn a_name_in_quarantine_tells_whose_the_pointer_is_and_where_it_was() {
        let id = JobId::from_number(1);
        for kind in PLANS {
            assert_eq!(of_quarantine_name(&quarantine_name(kind, id.as_str())), Some((kind, id)));
        }
        for other in ["", "x", "jobgraphs", "jobgraphs-x", &format!("jobs-{id}"), id.as_str()] {
            assert_eq!(of_quarantine_name(other), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..128)) {
            let _ = address(&bytes);
            let _ = address(&[&[0xac, 0xed, 0, 5, 0x77][..], &bytes].concat());
        }
    }
}
