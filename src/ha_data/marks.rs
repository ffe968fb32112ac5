//! Decides from the marks of a storage directory whether this cluster may remove files in it. A mark is a file by which
//! a cluster says that it uses the directory; its name is the cluster's owner id.
//!
//! Backups carry the ledger, and with it the owner id, into other clusters. So a mark also carries the certificates of
//! the Kubernetes cluster and the gateway process that wrote it. A different certificate means a different cluster. Two
//! clusters with the same certificate are control planes restored from one backup. Each sees that the other writes the
//! mark, because a leading gateway reads its mark every [`LOOK`] and writes it again when it finds another's.

use std::time::Duration;

use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use crate::ledger::jobs::HaData;

/// The ConfigMap that Kubernetes puts into every namespace, with the cluster's own certificates under the key `ca.crt`.
pub const AUTHORITY: &str = "kube-root-ca.crt";

/// Interval at which a leading gateway reads its mark.
pub const LOOK: Duration = Duration::from_secs(10);

/// Interval at which a leading gateway writes an unchanged mark again; the mark's time is the storage's own clock.
/// Gateways of earlier versions read the mark at this interval.
pub const REFRESH: Duration = Duration::from_secs(60);

/// Time for which our mark must stand unchanged after a gateway that the ledger names but that nobody has seen alive.
const NAMED: Duration = Duration::from_secs(2 * LOOK.as_secs());

/// Time for which our mark must stand unchanged after a gateway that nobody knows.
pub const UNKNOWN: Duration = Duration::from_secs(2 * REFRESH.as_secs());

/// The content of a mark.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Mark {
    pub owner: String,
    /// Digests of the certificates in `kube-root-ca.crt`. There are several while a certificate is being replaced.
    pub certificates: Vec<String>,
    /// The gateway process that wrote the mark.
    pub process: String,
    /// Its pod and JVM, which survive a restart of the gateway alone.
    pub jvm: String,
    /// Rises with every write of the process.
    pub count: u64,
}

impl Mark {
    /// Parses a mark; `None` for a mark of an earlier version, which holds the owner's name alone.
    pub fn read(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    pub fn to_text(&self) -> String {
        // Strings and numbers always serialize.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// Returns the digests of the certificates in a PEM text.
pub fn certificates_of(text: &str) -> Vec<String> {
    let begin = "-----BEGIN CERTIFICATE-----";
    let blocks: Vec<&str> = if text.contains(begin) { text.split(begin).skip(1).collect() } else { vec![text] };
    let content = |block: &str| {
        let content = block.split("-----END").next().unwrap_or_default();
        content.chars().filter(|character| !character.is_whitespace()).collect::<String>()
    };
    let hex = |content: String| {
        digest(&SHA256, content.as_bytes()).as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
    };
    blocks.into_iter().map(content).filter(|content| !content.is_empty()).map(hex).collect()
}

/// Do these certificates belong to another cluster? An empty list is unknown, and does not.
pub fn is_foreign(certificates: &[String], ours: &[String]) -> bool {
    !certificates.is_empty() && !ours.is_empty() && !certificates.iter().any(|one| ours.contains(one))
}

/// What this cluster's own records say about marks.
#[derive(Clone, Debug, Default)]
pub struct SignatureRecords {
    /// Gateway processes that our own process has seen alive in this cluster.
    pub witnessed: Vec<String>,
    /// Gateway processes that the ledger names.
    pub signers: Vec<String>,
    /// Certificates that the ledger names.
    pub certificates: Vec<String>,
    /// Time for which a mark must stand because the ledger says that another cluster may write it; zero without that
    /// doubt.
    pub doubt: Duration,
}

impl SignatureRecords {
    /// What the ledger says.
    pub fn of(noted: &HaData) -> Self {
        let doubt = match noted.state.as_str() {
            "Shared" => UNKNOWN,
            // No gateway waits for longer, whatever stands there.
            "Settling" => noted.settling.map_or(UNKNOWN, |seconds| Duration::from_secs(seconds).min(UNKNOWN)),
            _ => Duration::ZERO,
        };
        let (signers, certificates) = (noted.signers.clone(), noted.certificates.clone());
        Self { witnessed: Vec::new(), signers, certificates, doubt }
    }
}

/// Whether this cluster may remove files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    Ours,
    /// Another cluster may use the directory; `left` is the time until that is excluded.
    Settling {
        left: Duration,
    },
    Shared(Sharing),
}

/// How the gateway knows that another cluster uses the directory too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// Another owner has a mark there; carries its id.
    Mark(String),
    /// The mark or the ledger carries a certificate of another Kubernetes cluster.
    Certificate,
    /// The mark carries a certificate, and the certificate of this Kubernetes cluster is unknown.
    Unidentified,
    /// Another process keeps writing our mark.
    Contested,
}

impl Standing {
    /// Combines the decision with the marks of other owners, which leave no doubt.
    pub fn beside(self, others: &[String]) -> Self {
        match (others.first(), &self) {
            (None, _) | (_, Self::Shared(Sharing::Certificate | Sharing::Unidentified)) => self,
            (Some(other), _) => Self::Shared(Sharing::Mark(other.clone())),
        }
    }
}

/// The result of one look at the mark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Looked {
    /// Holds once `write` has been written.
    pub standing: Standing,
    /// The mark to write now, if any.
    pub write: Option<Mark>,
}

/// State between looks at the mark.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    /// The text of the mark at the last look.
    found: Option<String>,
    /// The mark as this process last wrote it, or tried to.
    written: Option<Mark>,
    since: Duration,
    patience: Duration,
    contested: bool,
}

impl Watch {
    /// Decides after one read of the mark. `us`: our own mark; `found`: the text of the stored one; `refresh`: write
    /// the mark even if it is unchanged; `now`: any monotonic clock.
    pub fn look(
        &mut self,
        us: &Mark,
        found: Option<&str>,
        records: &SignatureRecords,
        now: Duration,
        refresh: bool,
    ) -> Looked {
        let mark = found.map(Mark::read);
        if let Some(sharing) = foreign(us, mark.as_ref(), records) {
            *self = Self::default();
            return Looked { standing: Standing::Shared(sharing), write: None };
        }
        let author = mark.as_ref().and_then(Option::as_ref);
        let stands = self.written.is_some() && author.is_some_and(|author| author.process == us.process);
        if !stands {
            self.judge_author(us, found, mark.as_ref(), records);
            self.since = now;
        }
        self.found = found.map(str::to_owned);
        let write = (!stands || refresh)
            .then(|| Mark { count: self.written.as_ref().map_or(1, |written| written.count + 1), ..us.clone() });
        if write.is_some() {
            self.written.clone_from(&write);
        }
        let left = self.since.saturating_add(self.patience).saturating_sub(now);
        let standing = match left {
            Duration::ZERO => Standing::Ours,
            _ if self.contested => Standing::Shared(Sharing::Contested),
            left => Standing::Settling { left },
        };
        self.contested &= !left.is_zero();
        Looked { standing, write }
    }

    /// Returns the time for which the mark must stand in all, as last decided.
    pub fn patience(&self) -> Duration {
        self.patience
    }

    /// Decides for how long our mark must stand unchanged, from the writer of the mark that was found.
    fn judge_author(
        &mut self,
        us: &Mark,
        found: Option<&str>,
        mark: Option<&Option<Mark>>,
        records: &SignatureRecords,
    ) {
        let first = self.written.is_none();
        let author = mark.and_then(Option::as_ref);
        let of_this_cluster = author.is_some_and(|author| {
            let same_jvm = !us.jvm.is_empty() && author.jvm == us.jvm;
            author.process == us.process || same_jvm || records.witnessed.contains(&author.process)
        });
        let named = author.is_some_and(|author| records.signers.contains(&author.process));
        // The mark that we tried to write is missing, and nobody has written since: the write failed.
        let failed = !first && author.is_some_and(|_| self.found.as_deref() == found)
            || !first && found.is_none() && self.found.is_none();
        if failed || !first && of_this_cluster {
            return;
        }
        self.contested = !first;
        let patience = match mark {
            _ if !first => UNKNOWN,
            None => Duration::ZERO,
            Some(_) if of_this_cluster => Duration::ZERO,
            Some(_) if named => NAMED,
            Some(_) => UNKNOWN,
        };
        self.patience = patience.max(records.doubt);
    }
}

/// Does this mark belong to another Kubernetes cluster?
pub fn is_of_another(us: &Mark, found: Option<&str>, records: &SignatureRecords) -> bool {
    foreign(us, found.map(Mark::read).as_ref(), records).is_some()
}

/// Does the mark or the ledger belong to another Kubernetes cluster? Without a mark nobody else claims the directory,
/// whatever the ledger says: a person who removes the mark gives the directory to this cluster.
fn foreign(us: &Mark, mark: Option<&Option<Mark>>, records: &SignatureRecords) -> Option<Sharing> {
    let certificates = match mark? {
        Some(mark) if !mark.certificates.is_empty() => &mark.certificates,
        _ => &records.certificates,
    };
    if !certificates.is_empty() && us.certificates.is_empty() {
        return Some(Sharing::Unidentified);
    }
    is_foreign(certificates, &us.certificates).then_some(Sharing::Certificate)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: Standing = Standing::Ours;
    const CONTESTED: Standing = Standing::Shared(Sharing::Contested);
    const FOREIGN: Standing = Standing::Shared(Sharing::Certificate);

    fn us(process: &str) -> Mark {
        let certificates = vec!["certificate".to_owned()];
        Mark {
            owner: "owner".to_owned(),
            certificates,
            process: process.to_owned(),
            jvm: format!("jvm of {process}"),
            count: 0,
        }
    }

    /// A directory with one mark.
    #[derive(Default)]
    struct Directory(Option<String>);

    impl Directory {
        fn signed_by(mark: &Mark) -> Self {
            Self(Some(mark.to_text()))
        }

        fn look(&mut self, watch: &mut Watch, us: &Mark, records: &SignatureRecords, second: u64) -> Standing {
            let looked = watch.look(us, self.0.as_deref(), records, Duration::from_secs(second), false);
            if let Some(mark) = looked.write {
                self.0 = Some(mark.to_text());
            }
            looked.standing
        }
    }

    fn strings(all: &[&str]) -> Vec<String> {
        all.iter().map(|one| (*one).to_owned()).collect()
    }

    fn settling(seconds: u64) -> Standing {
        Standing::Settling { left: Duration::from_secs(seconds) }
    }

    #[test]
    fn a_directory_that_nobody_has_signed_is_ours_at_once() {
        let (mut directory, mut watch) = (Directory::default(), Watch::default());
        assert_eq!(directory.look(&mut watch, &us("a"), &SignatureRecords::default(), 0), OURS);
        assert_eq!(directory.look(&mut watch, &us("a"), &SignatureRecords::default(), 10), OURS);
        let refreshed =
            watch.look(&us("a"), directory.0.as_deref(), &SignatureRecords::default(), Duration::from_secs(20), true);
        assert_eq!(refreshed.write.map(|mark| mark.count), Some(2), "the storage's clock is read from it");
    }

    #[test]
    fn no_time_that_somebody_has_written_into_the_ledger_is_waited_for() {
        let noted = HaData { state: "Settling".to_owned(), settling: Some(u64::MAX), ..HaData::default() };
        let records = SignatureRecords { doubt: SignatureRecords::of(&noted).doubt, ..SignatureRecords::default() };
        let (mut directory, mut watch) = (Directory::default(), Watch::default());
        assert_eq!(directory.look(&mut watch, &us("a"), &records, 1), settling(UNKNOWN.as_secs()));
    }

    #[test]
    fn another_certificate_is_another_cluster_at_once_and_its_mark_is_not_written_over() {
        let original = Mark { certificates: strings(&["another"]), ..us("original") };
        let mut directory = Directory::signed_by(&original);
        let records = SignatureRecords {
            signers: strings(&["original"]),
            witnessed: strings(&["original"]),
            ..SignatureRecords::default()
        };
        assert_eq!(directory.look(&mut Watch::default(), &us("copy"), &records, 0), FOREIGN);
        assert_eq!(directory.0, Some(original.to_text()));
        // Marks of the earlier version carry no certificate, so that of the ledger counts.
        let copied = SignatureRecords { certificates: strings(&["another"]), ..SignatureRecords::default() };
        let mut old = Directory(Some("owner".to_owned()));
        assert_eq!(old.look(&mut Watch::default(), &us("copy"), &copied, 0), FOREIGN);
        assert_eq!(old.0.as_deref(), Some("owner"));
        // A person has removed the mark.
        let mut removed = Directory::default();
        assert_eq!(removed.look(&mut Watch::default(), &us("copy"), &copied, 0), OURS);
        assert_eq!(
            removed.look(&mut Watch::default(), &us("copy"), &copied, 10),
            OURS,
            "the mark counts, not the ledger"
        );
    }

    #[test]
    fn a_certificate_is_replaced_in_steps() {
        let mut directory = Directory::signed_by(&us("a"));
        let records = SignatureRecords { witnessed: strings(&["a", "b"]), ..SignatureRecords::default() };
        let with = |process: &str, certificates: &[&str]| Mark { certificates: strings(certificates), ..us(process) };
        assert_eq!(directory.look(&mut Watch::default(), &with("b", &["certificate", "new"]), &records, 0), OURS);
        assert_eq!(directory.look(&mut Watch::default(), &with("c", &["new"]), &records, 0), OURS);
        assert_eq!(directory.look(&mut Watch::default(), &with("d", &["certificate"]), &records, 0), FOREIGN);
        let unknown = directory.look(&mut Watch::default(), &with("e", &[]), &records, 0);
        assert_eq!(unknown, Standing::Shared(Sharing::Unidentified));
    }

    #[test]
    fn a_failover_is_not_waited_for() {
        let mut directory = Directory::signed_by(&us("a"));
        let records = SignatureRecords { witnessed: strings(&["a"]), ..SignatureRecords::default() };
        assert_eq!(directory.look(&mut Watch::default(), &us("b"), &records, 0), OURS);
        // Only the gateway restarts.
        let restarted = Mark { process: "c".to_owned(), ..us("b") };
        assert_eq!(directory.look(&mut Watch::default(), &restarted, &SignatureRecords::default(), 0), OURS);
        // The same process leads again.
        assert_eq!(directory.look(&mut Watch::default(), &restarted, &SignatureRecords::default(), 0), OURS);
    }

    #[test]
    fn who_was_not_seen_alive_is_waited_for() {
        for (signers, seconds) in [(vec![], 120), (strings(&["a"]), 20)] {
            let records = SignatureRecords { signers, ..SignatureRecords::default() };
            let (mut directory, mut watch) = (Directory::signed_by(&us("a")), Watch::default());
            assert_eq!(directory.look(&mut watch, &us("b"), &records, 0), settling(seconds));
            assert_eq!(directory.look(&mut watch, &us("b"), &records, 10), settling(seconds - 10));
            assert_eq!(directory.look(&mut watch, &us("b"), &records, seconds), OURS);
        }
    }

    #[test]
    fn a_mark_and_a_ledger_of_an_earlier_version_are_accepted_once() {
        let (mut directory, mut watch) = (Directory(Some("owner".to_owned())), Watch::default());
        assert_eq!(directory.look(&mut watch, &us("a"), &SignatureRecords::default(), 0), settling(120));
        assert_eq!(directory.look(&mut watch, &us("a"), &SignatureRecords::default(), 120), OURS);
        // The gateway of an earlier version still runs.
        directory.0 = Some("owner".to_owned());
        assert_eq!(directory.look(&mut watch, &us("a"), &SignatureRecords::default(), 130), CONTESTED);
    }

    #[test]
    fn two_clusters_of_one_certificate_see_each_other_and_neither_removes() {
        // The clusters come from one backup: both ledgers name the process that led when it was made.
        let records = SignatureRecords { signers: strings(&["before"]), ..SignatureRecords::default() };
        let mut directory = Directory::signed_by(&us("before"));
        let (mut first, mut second) = (Watch::default(), Watch::default());
        assert_eq!(directory.look(&mut first, &us("a"), &records, 0), settling(20));
        assert_eq!(directory.look(&mut first, &us("a"), &records, 20), OURS, "the other one does not run yet");
        assert_eq!(directory.look(&mut second, &us("b"), &records, 25), settling(120));
        for second_of in (30..400).step_by(10) {
            assert_eq!(directory.look(&mut first, &us("a"), &records, second_of), CONTESTED);
            assert_eq!(directory.look(&mut second, &us("b"), &records, second_of + 5), CONTESTED);
        }
        // One of the clusters has ended.
        assert_eq!(directory.look(&mut first, &us("a"), &records, 400), CONTESTED);
        assert_eq!(directory.look(&mut first, &us("a"), &records, 519), CONTESTED);
        assert_eq!(directory.look(&mut first, &us("a"), &records, 520), OURS);
    }

    #[test]
    fn a_new_leader_does_not_forget_that_another_cluster_signs() {
        let mut directory = Directory::signed_by(&us("a"));
        let records = SignatureRecords { witnessed: strings(&["a"]), doubt: UNKNOWN, ..SignatureRecords::default() };
        assert_eq!(directory.look(&mut Watch::default(), &us("b"), &records, 0), settling(120));
        // The wait after a gateway that the ledger names starts again, and stays as short.
        let mut directory = Directory::signed_by(&us("a"));
        let records = SignatureRecords { signers: strings(&["a"]), doubt: NAMED, ..SignatureRecords::default() };
        assert_eq!(directory.look(&mut Watch::default(), &us("b"), &records, 0), settling(20));
    }

    #[test]
    fn a_mark_that_was_not_written_or_was_removed_makes_nothing_ours() {
        let (records, before) =
            (SignatureRecords { signers: strings(&["a"]), ..SignatureRecords::default() }, us("a").to_text());
        let mut watch = Watch::default();
        watch.look(&us("b"), Some(&before), &records, Duration::ZERO, false);
        let again = watch.look(&us("b"), Some(&before), &records, Duration::from_secs(100), false);
        assert_eq!(again.standing, settling(20), "the write has failed");
        assert!(again.write.is_some());
        let removed = watch.look(&us("b"), None, &records, Duration::from_secs(110), false);
        assert_eq!(removed.standing, CONTESTED);
    }

    #[test]
    fn a_mark_of_another_owner_stops_everything() {
        let others = strings(&["else"]);
        assert_eq!(OURS.beside(&others), Standing::Shared(Sharing::Mark("else".to_owned())));
        assert_eq!((OURS.beside(&[]), FOREIGN.beside(&others)), (OURS, FOREIGN));
    }

    #[test]
    fn certificates_are_told_apart_whatever_stands_around_them() {
        let pem = |content: &str| format!("-----BEGIN CERTIFICATE-----\n{content}\n-----END CERTIFICATE-----\n");
        let both = certificates_of(&format!("# a comment\n{}\n{}", pem("a\nb"), pem("c")));
        assert_eq!(both, [certificates_of(&pem("ab")), certificates_of(&pem("c"))].concat());
        assert_eq!((certificates_of(" \n"), certificates_of("no PEM").len()), (Vec::new(), 1));
        assert!(is_foreign(&both[..1], &both[1..]) && !is_foreign(&both, &both[1..]) && !is_foreign(&both, &[]));
    }
}
