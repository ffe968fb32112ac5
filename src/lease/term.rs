//! Defines the fencing token of a term, which the Lease and every HA ConfigMap carry.

use std::fmt;
use std::str::FromStr;

/// One process of a JobManager's JVM: process id and start time (clock ticks since boot, `/proc/<pid>/stat` field 22).
/// The kernel may reuse a process id alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Incarnation {
    pub pid: i32,
    pub started: u64,
}

impl Incarnation {
    /// In the term of a gateway that leads without a JVM: no process has this id.
    pub const NONE: Incarnation = Incarnation { pid: 0, started: 0 };
}

/// A term. Its text form is `<number>.<pod uid>.<gateway process nonce>.<pid>-<start time>`; no part contains a dot.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Term {
    /// Rises with every tenure. The higher of two numbers is the newer term.
    pub number: u64,
    /// UID of the gateway's pod.
    pub pod_uid: String,
    /// Random per gateway process.
    pub process: String,
    pub jvm: Incarnation,
}

/// Highest number of a term. Gateways count one by one, so somebody else has written a higher one.
const LAST: u64 = i64::MAX as u64;

/// How a stamp relates to a term.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    Lower,
    Same,
    /// The stamp is of a newer term, or of another term with the same number. Only a Lease that somebody edited by hand
    /// causes the latter.
    Higher,
}

impl Term {
    /// Compares `stamp` with this term.
    pub fn relation_of(&self, stamp: &Term) -> Relation {
        if stamp == self {
            Relation::Same
        } else if stamp.number < self.number {
            Relation::Lower
        } else {
            Relation::Higher
        }
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}-{}", self.pid, self.started)
    }
}

impl fmt::Display for Term {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}.{}.{}", self.number, self.pod_uid, self.process, self.jvm)
    }
}

/// The text is not a term; no gateway wrote it.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("not a term: {0:?}")]
pub struct NotATerm(pub String);

impl FromStr for Term {
    type Err = NotATerm;

    fn from_str(text: &str) -> Result<Self, NotATerm> {
        let error = || NotATerm(text.to_owned());
        let parts: Vec<&str> = text.split('.').collect();
        let [number, pod_uid, process, jvm] = parts[..] else { return Err(error()) };
        let (pid, started) = jvm.split_once('-').ok_or_else(error)?;
        let number = number.parse().ok().filter(|number| *number <= LAST).ok_or_else(error)?;
        Ok(Term {
            number,
            pod_uid: pod_uid.to_owned(),
            process: process.to_owned(),
            jvm: Incarnation { pid: pid.parse().map_err(|_| error())?, started: started.parse().map_err(|_| error())? },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn term(number: u64, process: &str) -> Term {
        Term { number, pod_uid: "a-b".into(), process: process.into(), jvm: Incarnation { pid: 7, started: 99 } }
    }

    #[test]
    fn a_term_reads_back_as_it_was_written() {
        let written = term(12, "n0nce");
        assert_eq!(written.to_string(), "12.a-b.n0nce.7-99");
        assert_eq!(written.to_string().parse(), Ok(written));
    }

    #[test]
    fn anything_else_is_not_a_term() {
        for text in ["", "1", "1.a.b", "1.a.b.c", "x.a.b.1-2", "1.a.b.1-2.c", "9223372036854775808.a.b.1-2"] {
            assert_eq!(text.parse::<Term>(), Err(NotATerm(text.into())));
        }
    }

    #[test]
    fn i2_after_the_highest_number_that_is_read_there_is_a_higher_one() {
        let last: Term = format!("{LAST}.a.b.1-2").parse().expect("a term");
        assert!(last.number.checked_add(1).is_some());
    }

    #[test]
    fn i2_an_equal_number_of_another_process_is_never_taken_for_ones_own() {
        assert_eq!(term(2, "a").relation_of(&term(1, "b")), Relation::Lower);
        assert_eq!(term(2, "a").relation_of(&term(2, "a")), Relation::Same);
        assert_eq!(term(2, "a").relation_of(&term(2, "b")), Relation::Higher);
        assert_eq!(term(2, "a").relation_of(&term(3, "a")), Relation::Higher);
    }
}
