//! Znodes of Flink's HA services: their paths, and what stands in them (`ZooKeeperUtils`,
//! `ZooKeeperLeaderElectionDriver`, Flink 1.20 to 2.3).

use super::job_id::JobId;

/// Children of a cluster's znode that hold pointers to graphs, plans and applications: 1.x, 2.x, from 2.3 on.
pub const PLANS: [&str; 3] = ["jobgraphs", "execution-plans", APPLICATIONS];
/// The one for applications.
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

    /// The parent of the latch nodes, one for each candidate.
    pub fn latch(&self) -> String {
        self.child("leader/latch")
    }

    /// Ephemeral: the address of the leader's dispatcher, written when it has been granted leadership.
    pub fn dispatcher(&self) -> String {
        self.child("leader/dispatcher/connection_info")
    }

    pub fn job(&self, job: JobId) -> String {
        self.child(&format!("{JOBS}/{job}"))
    }

    /// Parent of the address of a job's leader; empty parents stay.
    pub fn leader_of_job(&self, job: JobId) -> String {
        self.child(&format!("{LEADER}/job-{job}"))
    }
}

/// What of a cluster's znodes is about jobs, as bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Znodes {
    pub plans: Vec<PlanZnode>,
    pub jobs: Vec<JobZnode>,
    /// Jobs with a parent for the address of their leader.
    pub with_leader: Vec<JobId>,
    /// Paths that no known version of Flink writes: they may name anything.
    pub unknown: Vec<String>,
}

/// A znode that points to a graph, plan or application.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlanZnode {
    pub path: String,
    /// Job or application; `None` when its name is no id, so that nothing is known of it.
    pub id: Option<JobId>,
    pub pointer: Vec<u8>,
}

/// What stands below `jobs/<id>`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobZnode {
    /// `None` when its name is no id, so that nothing is known of it.
    pub id: Option<JobId>,
    pub path: String,
    /// Pointers to checkpoints.
    pub checkpoints: Vec<Vec<u8>>,
    /// It has a child that is not known.
    pub unknown: bool,
}

/// The job of a child of `leader`: `job-<id>`.
pub fn job_of_leader(child: &str) -> Option<JobId> {
    JobId::of(child.strip_prefix("job-")?)
}

/// How the name of a latch node begins that is not a JVM's; a random id stands between in those of Curator.
pub const LATCH_PREFIX: &str = "flinkha-latch-";

/// The sequence number of a latch node; the lowest leads (Curator's `LeaderLatch`, `_c_<uuid>-latch-<10 digits>`). It
/// is compared as text is by Curator, and stays ten digits long for two thousand million candidates.
pub fn sequence(name: &str) -> Option<u64> {
    let (_, digits) = name.rsplit_once("latch-")?;
    (digits.len() >= 10).then(|| digits.parse().ok())?
}

/// The address in a `connection_info`: a Java stream with `writeUTF(address)` and `writeObject(UUID)`
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

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..128)) {
            let _ = address(&bytes);
            let _ = address(&[&[0xac, 0xed, 0, 5, 0x77][..], &bytes].concat());
        }
    }
}
