//! Reads a JVM's requests to ZooKeeper for two questions: does a request store the plan of an ended job, and does it
//! remove the whole cluster? Others are forwarded unread
//! (`org.apache.zookeeper.proto.RequestHeader`, `ZooDefs.OpCode`, ZooKeeper 3.5 to 3.9;
//! `ZooKeeperStateHandleStore.writeStoreHandleTransactionally` and `ZooKeeperLeaderElectionHaServices.internalCleanup`,
//! Flink 1.20 to 2.3).
//!
//! Such a request is not answered here, because ZooKeeper answers in the order of requests. It is forwarded with an
//! invalid path, so that the server refuses it (`BADARGUMENTS`), and with it the whole transaction.

use super::job_id::JobId;
use super::znodes::{PLANS, Paths};
use super::zookeeper_frames::HEADER;

const DELETE: i32 = 2;
/// Operations that create znodes: create, multi, create2, createContainer, createTTL.
const CREATING: [i32; 5] = [1, 14, 15, 19, 21];
/// A byte that is invalid everywhere in a path (`PathUtils.validatePath`,
/// `PrepRequestProcessor.getParentPathAndValidate`).
const NO_PATH: u8 = 0;
/// Bytes of a frame's length, and of the header after it: number of the request, and operation.
const BEGIN: usize = HEADER + 8;
/// Servers accept at most 1 MiB by default (`jute.maxbuffer`). A longer frame is forwarded unread.
const LONGEST: usize = 4 << 20;

/// A part of the client's stream. All parts together are the stream.
#[derive(Debug, PartialEq, Eq)]
pub enum Part {
    Unread(Vec<u8>),
    /// A whole request that creates znodes or is a transaction, with its length.
    Creating(Vec<u8>),
    /// A whole request that removes a znode.
    Removing(Vec<u8>),
}

/// Splits a stream into frames.
#[derive(Debug, Default)]
pub struct RequestFrames {
    state: Framing,
}

#[derive(Debug)]
enum Framing {
    /// The received beginning of a frame; or a frame that is held back until it is complete.
    Gathering { bytes: Vec<u8>, wanted: usize },
    /// Remaining bytes of a frame that is not read.
    Passing { left: usize },
    /// The stream is not understood, so everything is forwarded.
    Blind,
}

impl Default for Framing {
    fn default() -> Self {
        Framing::Gathering { bytes: Vec::new(), wanted: BEGIN }
    }
}

impl RequestFrames {
    /// Accepts received bytes, and returns the parts to forward, in the same order.
    pub fn push(&mut self, mut come: &[u8]) -> Vec<Part> {
        let mut out = Vec::new();
        while !come.is_empty() {
            match &mut self.state {
                Framing::Blind => {
                    pass_on(&mut out, come);
                    come = &[];
                }
                Framing::Passing { left } => {
                    let (now, later) = come.split_at(come.len().min(*left));
                    pass_on(&mut out, now);
                    come = later;
                    *left -= now.len();
                    if *left == 0 {
                        self.state = Framing::default();
                    }
                }
                Framing::Gathering { bytes, wanted } => {
                    let (now, later) = come.split_at(come.len().min(*wanted - bytes.len()));
                    bytes.extend(now);
                    come = later;
                    if bytes.len() == *wanted {
                        let whole = std::mem::take(bytes);
                        self.state = next(whole, &mut out);
                    }
                }
            }
        }
        out
    }
}

fn pass_on(out: &mut Vec<Part>, bytes: &[u8]) {
    match out.last_mut() {
        Some(Part::Unread(before)) => before.extend(bytes),
        _ => out.push(Part::Unread(bytes.to_vec())),
    }
}

/// Reads four bytes, the highest first; 0 if they are missing.
fn number(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).map_or(0, |four| four.iter().fold(0, |all, byte| all << 8 | u32::from(*byte)))
}

fn operation(request: &[u8]) -> i32 {
    i32::from_be_bytes(number(request, HEADER + 4).to_be_bytes())
}

/// The next step once the requested part of a frame has been received.
fn next(bytes: Vec<u8>, out: &mut Vec<Part>) -> Framing {
    let whole = HEADER + number(&bytes, 0) as usize;
    if bytes.len() == BEGIN {
        if whole < BEGIN {
            pass_on(out, &bytes);
            return Framing::Blind;
        }
        let operation = operation(&bytes);
        if (operation == DELETE || CREATING.contains(&operation)) && whole > BEGIN && whole <= LONGEST {
            return Framing::Gathering { bytes, wanted: whole };
        }
        pass_on(out, &bytes);
        return if whole == BEGIN { Framing::default() } else { Framing::Passing { left: whole - BEGIN } };
    }
    out.push(if operation(&bytes) == DELETE { Part::Removing(bytes) } else { Part::Creating(bytes) });
    Framing::default()
}

/// A graph, plan or application that a creating request names, or a lock below one.
#[derive(Debug, PartialEq, Eq)]
pub struct Named {
    /// Flink reads capital hexadecimal digits as the same id (`JobID.fromHexString`).
    pub job: JobId,
    /// Whether the path is that of the entry itself, not of a lock below it.
    pub is_plan: bool,
    /// Offset of its path.
    at: usize,
}

/// Returns everything that the request names.
pub fn named(request: &[u8], paths: &Paths) -> Vec<Named> {
    let mut found = Vec::new();
    for kind in PLANS {
        let prefix = format!("{}/", paths.child(kind));
        for (at, _) in request.windows(prefix.len()).enumerate().filter(|(_, window)| *window == prefix.as_bytes()) {
            let end = at + prefix.len() + 32;
            let id = request.get(end - 32..end).and_then(|id| std::str::from_utf8(id).ok());
            let job = id.and_then(|id| JobId::of(&id.to_ascii_lowercase()));
            found.extend(job.map(|job| Named { job, is_plan: request.get(end) != Some(&b'/'), at }));
        }
    }
    found
}

/// The path by which a creating request stands for election; `None` for any other. The server appends a number to it.
/// Curator makes a name of its own for each latch node (`ProtectedUtils`, `_c_<uuid>-latch-`, Curator 5).
pub fn latch(request: &[u8], paths: &Paths) -> Option<String> {
    let prefix = format!("{}/", paths.latch());
    let at = request.windows(prefix.len()).position(|window| window == prefix.as_bytes())?;
    // Its length stands before it.
    let length = number(request, at.checked_sub(4)?) as usize;
    let path = std::str::from_utf8(request.get(at..at.checked_add(length)?)?).ok()?;
    path.starts_with(&prefix).then(|| path.to_owned())
}

/// Changes a request that names this entry so that the server refuses it.
pub fn refuse(request: &mut [u8], named: &Named) {
    if let Some(first) = request.get_mut(named.at) {
        *first = NO_PATH;
    }
}

/// Changes a removal of the cluster's znode so that the server refuses it. Flink requests it when it ends its own
/// cluster. If the answer is that the znode has children, it removes them; on any other error it leaves everything,
/// also its files (`AbstractHaServices.cleanupAllData`, `DeleteBuilderImpl.pathInForeground` of Curator 5).
pub fn refuse_removal_of_all(request: &mut [u8], paths: &Paths) -> bool {
    let (length, path) = (BEGIN, BEGIN + 4);
    let end = path + number(request, length) as usize;
    let removes = request.get(path..end) == Some(paths.cluster.as_bytes());
    if removes {
        request[path] = NO_PATH;
    }
    removes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ENDED: &str = "0000000000000000000000000000f1ed";

    fn frame(operation: i32, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(8 + body.len()).unwrap_or_default();
        [&length.to_be_bytes()[..], &7_i32.to_be_bytes(), &operation.to_be_bytes(), body].concat()
    }

    fn paths() -> Paths {
        Paths::new("/flink", "flink.demo")
    }

    fn whole(parts: Vec<Part>) -> Vec<u8> {
        parts
            .into_iter()
            .flat_map(|(Part::Unread(bytes) | Part::Creating(bytes) | Part::Removing(bytes))| bytes)
            .collect()
    }

    fn refused(stream: &[u8], chunk: usize) -> (Vec<u8>, Vec<JobId>) {
        let (mut requests, mut found) = (RequestFrames::default(), Vec::new());
        let mut refuse = |mut part: Part| {
            if let Part::Creating(bytes) = &mut part
                && let Some(ended) = named(bytes, &paths()).into_iter().find(|named| named.job == ENDED)
            {
                refuse(bytes, &ended);
                found.push(ended.job);
            }
            part
        };
        let out = stream
            .chunks(chunk.max(1))
            .flat_map(|bytes| whole(requests.push(bytes).into_iter().map(&mut refuse).collect()))
            .collect();
        (out, found)
    }

    #[test]
    fn a_latch_is_known_by_the_name_that_its_client_makes() {
        let path = format!("{}/_c_1b671a64-latch-", paths().latch());
        let request = |path: &str| {
            let length = u32::try_from(path.len()).unwrap_or_default();
            frame(15, &[&length.to_be_bytes()[..], path.as_bytes(), b"\0\0\0\x04data"].concat())
        };
        assert_eq!(latch(&request(&path), &paths()), Some(path));
        for other in [paths().latch(), paths().dispatcher(), "/flink/other/leader/latch/x".to_owned()] {
            assert_eq!(latch(&request(&other), &paths()), None);
        }
        assert_eq!(latch(format!("{}/", paths().latch()).as_bytes(), &paths()), None);
        let torn = [&3_u32.to_be_bytes()[..], paths().latch().as_bytes(), b"/x"].concat();
        assert_eq!(latch(&frame(15, &torn), &paths()), None, "a path that ends before the latch");
    }

    #[test]
    fn the_whole_cluster_is_not_removed() {
        let request = |path: &str| {
            let length = u32::try_from(path.len()).unwrap_or_default();
            frame(DELETE, &[&length.to_be_bytes()[..], path.as_bytes(), &(-1_i32).to_be_bytes()].concat())
        };
        let mut all = request("/flink/flink.demo");
        assert!(refuse_removal_of_all(&mut all, &paths()));
        assert_eq!(all, request("\0flink/flink.demo"));
        for path in ["/flink/flink.demo/leader", "/flink", "/flink/flink.demos"] {
            let mut other = request(path);
            assert!(!refuse_removal_of_all(&mut other, &paths()), "{path}");
            assert_eq!(other, request(path));
        }
        let mut torn = frame(DELETE, b"\0\0\xff\xff/flink");
        assert!(!refuse_removal_of_all(&mut torn, &paths()));
    }

    #[test]
    fn a_plan_is_told_from_the_locks_below_it() {
        let request = |path: &str| frame(14, &[path.as_bytes(), b"\0\0\0\0"].concat());
        let is_plan = |request: &[u8]| named(request, &paths()).iter().map(|named| named.is_plan).collect::<Vec<_>>();
        assert_eq!(is_plan(&request(&format!("/flink/flink.demo/execution-plans/{ENDED}"))), [true]);
        assert_eq!(is_plan(format!("/flink/flink.demo/jobgraphs/{ENDED}").as_bytes()), [true], "at the very end");
        let capital = request(&format!("/flink/flink.demo/execution-plans/{}", ENDED.to_uppercase()));
        assert_eq!(named(&capital, &paths())[0].job, ENDED, "as Flink would read it");
        assert_eq!(is_plan(&request(&format!("/flink/flink.demo/execution-plans/{ENDED}/locks/a"))), [false]);
        assert!(is_plan(&request(&format!("/flink/flink.demo/jobs/{ENDED}/checkpoints"))).is_empty());
        assert!(is_plan(&request("/flink/flink.demo/execution-plans/short")).is_empty());
    }

    #[test]
    fn only_the_plan_of_an_ended_job_is_refused() {
        let path = |id: &str| {
            [b"\0\0\0\x44".as_slice(), format!("/flink/flink.demo/execution-plans/{id}").as_bytes(), b"rest"].concat()
        };
        let other = ENDED.replace("f1ed", "cafe");
        let stream = [
            frame(11, b""),
            frame(4, &path(ENDED)),
            frame(14, &path(&other)),
            frame(14, &path(ENDED)),
            frame(2, &path(ENDED)),
        ]
        .concat();
        for chunk in [1, 5, 64, 4096] {
            let (out, found) = refused(&stream, chunk);
            assert_eq!(found, [ENDED]);
            let changed: Vec<usize> = (0..stream.len()).filter(|at| out[*at] != stream[*at]).collect();
            assert_eq!((out.len(), changed.len()), (stream.len(), 1), "one byte differs");
            assert_eq!(stream[changed[0]], b'/');
        }
    }

    proptest! {
        #[test]
        fn whatever_comes_goes_on_in_the_same_order(
            bytes in proptest::collection::vec(any::<u8>(), 0..512), chunk in 1_usize..64,
        ) {
            let frames = [frame(14, &bytes), frame(3, &bytes), frame(1, b"x"), frame(2, &bytes), bytes.clone()].concat();
            let (out, found) = refused(&frames, chunk);
            prop_assert!(frames.starts_with(&out) && found.is_empty());
            // The last bytes may be the beginning of a frame, which is held back.
            prop_assert!(out.len() >= frames.len() - bytes.len());
        }
    }
}
