//! A JVM's stream of requests to ZooKeeper: it is passed on byte for byte, except for what is refused.

use crate::flink::job_id::JobId;
use crate::flink::znode_requests::{Part, RequestFrames, latch, named, refuse, refuse_removal_of_all};
use crate::flink::znodes::{PLANS, Paths};
use crate::input::{Input, contains};

const ENDED: JobId = JobId::from_number(0xf1ed);
/// Longest request that is read.
const LONGEST: usize = 4 << 20;

pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let size = usize::from(input.byte()).max(1);
    let stream = input.rest();
    let paths = Paths::new("/flink", "flink.demo");

    let at_once = RequestFrames::default().push(stream);
    let mut frames = RequestFrames::default();
    let in_pieces: Vec<Part> = stream.chunks(size).flat_map(|piece| frames.push(piece)).collect();
    assert_eq!(read(&at_once), read(&in_pieces), "it matters how the stream arrives");
    let all: Vec<u8> = at_once.iter().flat_map(|part| of(part).iter().copied()).collect();
    assert!(stream.starts_with(&all), "the stream is changed");
    assert!(all.len() == stream.len() || stream.len() - all.len() <= LONGEST);
    assert_eq!(read(&at_once), expected(stream), "a request that is to be read is passed on unread");
    for part in &at_once {
        match part {
            Part::Creating(request) => creating(request, &paths),
            Part::Removing(request) => removing(request, &paths),
            Part::Unread(_) => {}
        }
    }
}

fn of(part: &Part) -> &[u8] {
    match part {
        Part::Unread(bytes) | Part::Creating(bytes) | Part::Removing(bytes) => bytes,
    }
}

/// The requests that are read, and whether each removes a znode.
fn read(parts: &[Part]) -> Vec<(bool, &[u8])> {
    let mut found = Vec::new();
    for part in parts {
        match part {
            Part::Unread(_) => {}
            Part::Creating(bytes) => found.push((false, bytes.as_slice())),
            Part::Removing(bytes) => found.push((true, bytes.as_slice())),
        }
    }
    found
}

/// The same, from ZooKeeper's definition: length, number, operation, and the rest.
fn expected(stream: &[u8]) -> Vec<(bool, &[u8])> {
    let (mut rest, mut found) = (stream, Vec::new());
    let number = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().expect("four bytes"));
    while rest.len() >= 12 {
        let length = 4 + number(&rest[..4]) as usize;
        if length < 12 {
            // Not a request: what follows it is not understood.
            break;
        }
        let operation = number(&rest[8..12]);
        let Some(request) = rest.get(..length) else { break };
        if length > 12 && length <= LONGEST && [1, 2, 14, 15, 19, 21].contains(&operation) {
            found.push((operation == 2, request));
        }
        rest = &rest[length..];
    }
    found
}

/// Whatever names an ended job is found, and a refusal changes one byte of its path.
fn creating(request: &[u8], paths: &Paths) {
    let found = named(request, paths);
    for kind in PLANS {
        let (parent, id) = (format!("{}/", paths.child(kind)), ENDED.as_str());
        let names = |window: &[u8]| {
            window.strip_prefix(parent.as_bytes()).is_some_and(|rest| rest.eq_ignore_ascii_case(id.as_bytes()))
        };
        let is_there = request.windows(parent.len() + id.len()).any(names);
        assert!(!is_there || found.iter().any(|named| named.job == ENDED), "{parent}{id} is not found");
    }
    for one in &found {
        let mut refused = request.to_vec();
        refuse(&mut refused, one);
        assert_eq!(refused.iter().zip(request).filter(|(after, before)| after != before).count(), 1);
        assert_eq!(named(&refused, paths).len(), found.len() - 1);
    }
    if let Some(path) = latch(request, paths) {
        assert!(path.starts_with(&format!("{}/", paths.latch())), "{path} is no latch");
        assert!(contains(request, path.as_bytes()));
    }
}

fn removing(request: &[u8], paths: &Paths) {
    let mut refused = request.to_vec();
    let is_refused = refuse_removal_of_all(&mut refused, paths);
    let path = [&(paths.cluster.len() as u32).to_be_bytes()[..], paths.cluster.as_bytes()].concat();
    assert_eq!(is_refused, request.get(12..).is_some_and(|rest| rest.starts_with(&path)));
    assert_eq!(refused.iter().zip(request).filter(|(after, before)| after != before).count(), usize::from(is_refused));
}
