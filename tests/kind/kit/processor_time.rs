//! Where the processors' time goes during a failover: the kind nodes' processes are processes of this machine.

use std::collections::BTreeMap;
use std::fs;

/// Ticks per second of `/proc/<pid>/stat` on Linux (`USER_HZ`).
const TICKS_PER_SECOND: u64 = 100;

/// What did the work.
pub const PARTS: [&str; 6] = [
    "the JobManager that takes over",
    "other JobManagers",
    "TaskManagers",
    "gateways and operator",
    "API server and etcd",
    "all else",
];

/// Processor time of each process so far, in ticks, and its part.
pub struct Snapshot(BTreeMap<u32, (usize, u64)>);

impl Snapshot {
    pub fn take() -> Self {
        let ids =
            fs::read_dir("/proc").expect("/proc").filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        Self(ids.filter_map(|id: u32| Some((id, (part(id), ticks(id)?)))).collect())
    }

    /// Milliseconds of processor time of each part since this snapshot.
    pub fn since(&self) -> [u64; PARTS.len()] {
        let mut parts = [0; PARTS.len()];
        let mut busiest = 0;
        for (id, (part, now)) in Self::take().0 {
            // A process that began since has done all its work since.
            let before = self.0.get(&id).map_or(0, |(_, before)| *before);
            let millis = now.saturating_sub(before) * 1000 / TICKS_PER_SECOND;
            parts[part] += millis;
            if part == 1 {
                busiest = busiest.max(millis);
            }
        }
        // Recovering is more work than standing by or starting while another one recovers.
        (parts[0], parts[1]) = (busiest, parts[1] - busiest);
        parts
    }
}

/// User and system time of a process; `None` if it has ended.
fn ticks(id: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The name, in parentheses, may contain anything.
    let fields: Vec<&str> = stat.get(stat.rfind(')')? + 2..)?.split_whitespace().collect();
    Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
}

fn part(id: u32) -> usize {
    let line = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
    let line = String::from_utf8_lossy(&line).replace('\0', " ");
    let program = line.split(' ').next().and_then(|path| path.rsplit('/').next()).unwrap_or_default();
    match program {
        "java" if line.contains("ClusterEntrypoint") => 1,
        "java" if line.contains("TaskManagerRunner") => 2,
        "flinkha" => 3,
        "kube-apiserver" | "etcd" => 4,
        _ => 5,
    }
}
