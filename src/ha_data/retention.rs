//! Which periodic savepoints are removed: by number and age, and only such as the ledger names. Nothing else of a
//! user's directory for savepoints is ever removed.

use jiff::{SignedDuration, Timestamp};

use crate::ledger::application::Retention;
use crate::ledger::savepoints::{TakenSavepoint, TakenSavepoints};

/// Marks the savepoints that go. `own_directory`: the directory of this resource in the user's directory for
/// savepoints. What was marked before stays marked, because some of it may be gone, unless it is in use.
///
/// The ledger's order tells which is the latest, and not the clock, which may have been set back.
pub fn mark(known: &mut TakenSavepoints, retention: &Retention, own_directory: &str, now: Timestamp) {
    // Whoever edits the ledger may mark anything.
    known.0.iter_mut().filter(|one| !one.is_periodic()).for_each(|one| one.removing = false);
    let periodic = known.0.iter_mut().rev().filter(|one| one.is_periodic());
    for (later, one) in periodic.enumerate() {
        let may_go = later > 0 && is_own(one, own_directory) && !is_in_use(one, retention);
        one.removing = may_go && (one.removing || is_surplus(one, later, retention, now));
    }
}

/// `later`: the number of periodic savepoints after it.
fn is_surplus(one: &TakenSavepoint, later: usize, retention: &Retention, now: Timestamp) -> bool {
    // Whoever edits the ledger may write anything; of what is not known nothing is removed.
    let Some(at) = one.at() else { return false };
    let age = retention.age_seconds.map(SignedDuration::from_secs);
    later >= retention.count.max(1) || age.is_some_and(|age| now.duration_since(at) > age)
}

/// It is at the path that a request of this resource for a periodic savepoint leads to:
/// `<directory for savepoints>/<own_directory>/<id>/<attempt>/savepoint-<digits>`.
fn is_own(one: &TakenSavepoint, own_directory: &str) -> bool {
    let parts: Vec<&str> = one.path.trim_end_matches('/').split('/').collect();
    let [.., directory, id, attempt, name] = parts.as_slice() else { return false };
    let is_number = !attempt.is_empty() && attempt.bytes().all(|byte| byte.is_ascii_digit());
    *directory == own_directory
        && *id == one.id
        && is_number
        && name.starts_with("savepoint-")
        && !parts.iter().any(|part| [".", ".."].contains(part))
}

/// Flink gives each savepoint a name of its own, which stays the same however somebody writes the rest of the path.
fn is_in_use(one: &TakenSavepoint, retention: &Retention) -> bool {
    let name = one.path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    retention.in_use.iter().any(|path| path.contains(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = "ns.demo";

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap_or_default()
    }

    fn taken(id: &str, second: i64) -> TakenSavepoint {
        TakenSavepoint {
            id: id.to_owned(),
            path: format!("file:/s/{OWN}/{id}/3/savepoint-00aa00-{second:012}"),
            at: at(second).to_string(),
            ..TakenSavepoint::default()
        }
    }

    fn periodic(second: i64) -> TakenSavepoint {
        taken(&format!("periodic-{second}"), second)
    }

    fn removed(known: &[TakenSavepoint], retention: &Retention, now: i64) -> Vec<String> {
        let mut known = TakenSavepoints(known.to_vec());
        mark(&mut known, retention, OWN, at(now));
        known.0.into_iter().filter(|one| one.removing).map(|one| one.id).collect()
    }

    fn latest(count: usize) -> Retention {
        Retention { count, ..Retention::default() }
    }

    #[test]
    fn the_oldest_go_by_number_and_by_age_and_the_latest_stays() {
        let known = [periodic(10), taken("nonce-1", 15), periodic(20), periodic(30), taken("delete-40", 40)];
        assert_eq!(removed(&known, &latest(2), 50), ["periodic-10"]);
        assert_eq!(removed(&known, &latest(0), 50), ["periodic-10", "periodic-20"], "one is always kept");
        let young = |age| Retention { age_seconds: Some(age), ..latest(9) };
        assert_eq!(removed(&known, &young(30), 50), ["periodic-10"]);
        assert_eq!(removed(&known, &young(1), 1000), ["periodic-10", "periodic-20"]);
        assert!(removed(&known, &latest(3), 50).is_empty());
    }

    #[test]
    fn what_is_in_use_or_not_known_or_elsewhere_stays() {
        let known = [periodic(10), periodic(20), periodic(30), periodic(40)];
        let name = known[1].path.rsplit('/').next().expect("a name");
        let in_use = vec![format!("s3a://elsewhere/{name}/_metadata")];
        assert_eq!(removed(&known, &Retention { in_use, ..latest(1) }, 50), ["periodic-10", "periodic-30"]);
        for path in [
            "file:/s/ns.demo/periodic-10/3",
            "file:/s/ns.demo/periodic-10/x/savepoint-1",
            "file:/s/ns.other/periodic-10/3/savepoint-1",
            "file:/s/ns.demo/periodic-11/3/savepoint-1",
            "file:/s/ns.demo/periodic-10/3/chk-1",
            "file:/../ns.demo/periodic-10/3/savepoint-1",
            "savepoint-1",
            "",
        ] {
            let elsewhere = TakenSavepoint { path: path.to_owned(), ..periodic(10) };
            assert!(removed(&[elsewhere, periodic(20)], &latest(1), 50).is_empty(), "{path}");
        }
        let unknown = TakenSavepoint { at: "then".to_owned(), ..periodic(10) };
        assert!(removed(&[unknown, periodic(20)], &latest(1), 50).is_empty());
    }

    #[test]
    fn a_clock_that_was_set_back_makes_no_savepoint_older_than_the_ones_before_it() {
        let known = [periodic(1000), periodic(1010), periodic(20)];
        assert_eq!(removed(&known, &latest(1), 25), ["periodic-1000", "periodic-1010"]);
        let young = Retention { age_seconds: Some(5), ..latest(9) };
        assert!(removed(&known, &young, 25).is_empty(), "those of the future have no age");
    }

    #[test]
    fn what_is_being_removed_is_finished_unless_it_came_in_use() {
        let half = TakenSavepoint { removing: true, ..periodic(10) };
        assert_eq!(removed(&[half.clone(), periodic(20)], &latest(9), 50), ["periodic-10"]);
        let in_use = vec![half.path.clone()];
        assert!(removed(&[half.clone(), periodic(20)], &Retention { in_use, ..latest(9) }, 50).is_empty());
        assert!(removed(&[half], &latest(1), 50).is_empty(), "it is the latest");
    }

    #[test]
    fn whatever_the_ledger_says_only_periodic_savepoints_go_and_never_the_latest() {
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..2000 {
            let mut known: Vec<TakenSavepoint> = Vec::new();
            for _ in 0..random.usize(0..12) {
                let second = random.i64(0..100);
                let mut one = match random.u8(0..4) {
                    0 => taken("nonce-1", second),
                    1 => taken("upgrade-2", second),
                    _ => periodic(second),
                };
                if random.u8(0..8) == 0 {
                    one.path = one.path.replace(OWN, "ns.other");
                }
                one.removing = random.u8(0..6) == 0;
                known.push(one);
            }
            let retention = Retention {
                count: random.usize(0..5),
                age_seconds: random.bool().then(|| random.i64(0..60)),
                in_use: known.iter().filter(|_| random.u8(0..5) == 0).map(|one| one.path.clone()).collect(),
            };
            let mut after = TakenSavepoints(known.clone());
            mark(&mut after, &retention, OWN, at(random.i64(0..150)));
            let latest = after.latest_periodic().cloned();
            assert!(latest.is_none_or(|latest| !latest.removing));
            for one in after.0.iter().filter(|one| one.removing) {
                assert!(one.is_periodic() && one.path.contains("/ns.demo/"), "{one:?}");
                assert!(!retention.in_use.contains(&one.path), "{one:?}");
            }
            let again = TakenSavepoints(after.0.clone());
            assert_eq!(again.0.len(), known.len(), "nothing is forgotten before it is gone");
        }
    }
}
