//! Writes and checks the marks of the storage directory and the znode; [`crate::ha_data::marks`] makes the decisions.
//! While another cluster may use the directory, nothing is removed: its owner may be stopped, and a file that looks
//! like an orphan here may be all that it has.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use ring::digest::{SHA256, digest};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::ledger::Ledger;
use crate::ha_data::marks::{AUTHORITY, Mark, REFRESH, Sharing, SignatureRecords, Standing, Watch, certificates_of};
use crate::lease::term::Term;
use crate::ledger::jobs::{COLLECTABLE, HaData};
use crate::ledger::place::HaDataPlace;
use crate::world::storage::Storage;
use crate::world::storage::reach::NotCollectable;

/// Interval at which the certificate of the Kubernetes cluster is read: its replacement takes days.
const CERTIFICATE_AGE: Duration = Duration::from_secs(3600);

/// Number of gateway processes that the ledger names.
const SIGNERS: usize = 16;

/// The storage directory, and whether it is ours.
pub struct Ownership {
    pub mark: DirectoryMark,
    pub storage: Result<Storage, NotCollectable>,
    /// Location from this gateway's flags.
    place: Option<HaDataPlace>,
    /// The result of the last refresh. Nothing is removed from a directory that is not known to be ours.
    pub is_ours: bool,
    /// Seconds for which the mark must stand, while the gateway waits for that.
    settling: Option<u64>,
    /// The state as last written into the ledger in this tenure.
    reported: Option<(u64, &'static str)>,
}

/// Checks the marks of the storage directory. There is one per gateway, which remembers earlier checks. Every task
/// checks the marks before it removes files.
#[derive(Clone)]
pub struct DirectoryMark {
    pub ledger: Ledger,
    /// Locked during a check.
    state: Arc<Mutex<State>>,
    /// Origin of the times of checks.
    begin: Instant,
}

/// State between checks.
#[derive(Default)]
struct State {
    us: Mark,
    /// From the ledger.
    records: SignatureRecords,
    /// Term and time in which the two fields above were read.
    read: Option<(u64, Instant)>,
    watch: Watch,
    /// Marks of other owners, for display.
    others: Vec<String>,
    /// Our mark in the store of the pointers, if another Kubernetes cluster wrote it.
    foreign_store: Option<String>,
    /// When all marks were last checked and ours was written.
    refreshed: Option<Instant>,
}

impl Ownership {
    pub fn new(mark: DirectoryMark, storage: Result<Storage, NotCollectable>) -> Self {
        Self { mark, storage, place: None, is_ours: false, settling: None, reported: None }
    }

    /// Sets the location that the ledger should name.
    pub fn at(self, place: HaDataPlace) -> Self {
        Self { place: Some(place), ..self }
    }

    /// Writes the mark, or finds that it still stands, and notes any change of the result in the ledger.
    ///
    /// # Errors
    /// When the API server does not answer. Errors of the storage go into the ledger.
    pub async fn refresh(&mut self, term: &Term) -> anyhow::Result<()> {
        let storage = match &self.storage {
            Ok(storage) => storage.clone(),
            Err(why) => return self.report(term, "NotCollectable", why.to_string(), None, false).await,
        };
        let mark = self.mark.clone();
        let mut state = mark.state.lock().await;
        self.is_ours = false;
        state.prepare(&mark.ledger, term).await?;
        let looked = state.look(&mark, &storage, term, false).await;
        mark.ledger.signals.counters.note_storage(looked.is_ok());
        let us = state.us.clone();
        let told = looked.as_ref().map(|standing| state.tell(standing, &storage));
        let settles = matches!(looked, Ok(Standing::Settling { .. }));
        self.settling = settles.then(|| state.watch.patience().as_secs());
        drop(state);
        self.is_ours = matches!(looked, Ok(Standing::Ours));
        match told {
            Ok((state, message)) => {
                // A copy of the ledger keeps the original's certificates; they identify the copy.
                let signs = !matches!(looked, Ok(Standing::Shared(Sharing::Certificate | Sharing::Unidentified)));
                self.report(term, state, message, Some(&us), signs).await
            }
            Err(error) => {
                let remedy = "look at its address and credentials (spec.flinkConfiguration, or the environment in spec.jobManager.podTemplate)";
                let message = format!("{}; {remedy}", brief(&format!("{error:#}")));
                self.report(term, "Unreachable", message, Some(&us), false).await
            }
        }
    }

    async fn report(
        &mut self,
        term: &Term,
        state: &'static str,
        message: String,
        us: Option<&Mark>,
        signs: bool,
    ) -> anyhow::Result<()> {
        if self.reported == Some((term.number, state)) {
            return Ok(());
        }
        let (place, settling) = (self.place.clone(), self.settling);
        let ledger = self.mark.ledger.clone();
        ledger
            .change_ha_data(term, |ha_data| {
                // Messages of a storage may differ each time; the first one suffices.
                if ha_data.state != state {
                    (ha_data.state, ha_data.message) = (state.to_owned(), message.clone());
                }
                ha_data.settling = settling;
                if let Some(place) = &place {
                    ha_data.place = Some(place.clone());
                }
                if let Some(us) = us {
                    ha_data.owner.get_or_insert_with(|| us.owner.clone());
                }
                if let Some(us) = us.filter(|_| signs) {
                    note_signer(ha_data, us);
                }
            })
            .await?;
        self.reported = Some((term.number, state));
        Ok(())
    }
}

/// Notes this cluster's owner id and certificates, and that this process writes the mark.
fn note_signer(ha_data: &mut HaData, signer: &Mark) {
    if !signer.certificates.is_empty() {
        ha_data.certificates.clone_from(&signer.certificates);
    }
    add_signer(ha_data, &signer.process);
}

fn add_signer(ha_data: &mut HaData, process: &str) {
    if !ha_data.signers.iter().any(|signer| signer == process) {
        ha_data.signers.insert(0, process.to_owned());
        ha_data.signers.truncate(SIGNERS);
    }
}

impl DirectoryMark {
    pub fn new(ledger: Ledger) -> Self {
        Self { ledger, state: Arc::default(), begin: Instant::now() }
    }

    /// Checks all marks before something is removed. Returns the time of our mark, by the storage's own clock.
    ///
    /// # Errors
    /// When a mark cannot be read or written, and when the directory is not known to be ours. Nothing may be removed
    /// then.
    pub async fn confirm(&self, storage: &Storage, term: &Term) -> anyhow::Result<SystemTime> {
        let mut state = self.state.lock().await;
        state.prepare(&self.ledger, term).await?;
        let standing = state.look(self, storage, term, true).await?;
        anyhow::ensure!(standing == Standing::Ours, "{}", state.tell(&standing, storage).1);
        let mark = storage.mark_of_only(&state.us.owner).await.context("failed to read the marks")?;
        Ok(mark.context("another cluster has signed the same directory; its files stay")?.beat)
    }
}

impl State {
    /// Reads our own identity and the ledger: once per term, and again when the certificate may have been replaced.
    async fn prepare(&mut self, ledger: &Ledger, term: &Term) -> anyhow::Result<()> {
        if self.read.is_some_and(|(number, at)| number == term.number && at.elapsed() < CERTIFICATE_AGE) {
            return Ok(());
        }
        let (mark, records) = identity(ledger).await?;
        // A gateway that holds the leader's latch itself has no JVM.
        let jvm = if term.jvm.pid == 0 { String::new() } else { format!("{}/{}", term.pod_uid, term.jvm) };
        self.us = Mark { process: term.process.clone(), jvm, ..mark };
        self.records = records;
        self.read = Some((term.number, Instant::now()));
        Ok(())
    }

    /// Checks our mark; also those of others if `all` or if their last check is old. Writes ours if it is due.
    async fn look(
        &mut self,
        mark: &DirectoryMark,
        storage: &Storage,
        term: &Term,
        all: bool,
    ) -> anyhow::Result<Standing> {
        let ledger = &mark.ledger;
        let refresh = self.refreshed.is_none_or(|at| at.elapsed() >= REFRESH);
        let mut records = self.records.clone();
        records.witnessed = ledger.pointers.witnessed(&records);
        let all = all || refresh || !self.others.is_empty() || self.foreign_store.is_some();
        if all {
            self.foreign_store = ledger.pointers.mark(&self.us, &records).await?;
        }
        let found = storage.mark(&self.us.owner).await.context("failed to read the mark")?;
        // Our mark is written before the others are read: two clusters that write at the same time both see the other.
        let looked = self.watch.look(&self.us, found.as_deref(), &records, mark.begin.elapsed(), refresh);
        if let Some(mark) = &looked.write {
            self.name_signer(ledger, term).await?;
            storage.sign(&self.us.owner, mark.to_text()).await.context("failed to write the mark")?;
        }
        if all {
            self.others = others(ledger, storage, &self.us.owner).await?;
            self.refreshed = if refresh { Some(Instant::now()) } else { self.refreshed };
        }
        let standing =
            if self.foreign_store.is_some() { Standing::Shared(Sharing::Certificate) } else { looked.standing };
        Ok(standing.beside(&self.others))
    }

    /// Names this process in the ledger before it writes its first mark. A leader of a few milliseconds may write no
    /// more than that mark, and its successor would have to take it for another cluster's.
    async fn name_signer(&mut self, ledger: &Ledger, term: &Term) -> anyhow::Result<()> {
        if self.records.signers.contains(&self.us.process) {
            return Ok(());
        }
        let process = self.us.process.clone();
        ledger.change_ha_data(term, |ha_data| add_signer(ha_data, &process)).await?;
        self.records.signers.insert(0, process);
        Ok(())
    }

    /// Returns the state and the message for the ledger.
    fn tell(&self, standing: &Standing, storage: &Storage) -> (&'static str, String) {
        let mark = self.foreign_store.clone().unwrap_or_else(|| storage.uri_of_mark(&self.us.owner));
        match standing {
            Standing::Ours => (COLLECTABLE, String::new()),
            Standing::Settling { left } => (
                "Settling",
                format!(
                    "nothing is removed for {} s more, until it is sure that nobody else signs the directory: its mark {mark} was last written by a \
                     gateway that was not seen in this cluster",
                    left.as_secs()
                ),
            ),
            Standing::Shared(Sharing::Mark(other)) => (
                "Shared",
                format!(
                    "another cluster has signed the same directory, so nothing is removed from it; give each its own, or, if that cluster is gone for \
                     good, remove its mark {other}"
                ),
            ),
            Standing::Shared(Sharing::Certificate) => (
                "Shared",
                format!(
                    "the mark {mark} was written in another Kubernetes cluster, and this cluster may be a copy of that one, so nothing is removed; give \
                     the copy a directory of its own, or, if the other one is gone for good or the certificate in ConfigMap {AUTHORITY} was replaced, \
                     remove that mark"
                ),
            ),
            Standing::Shared(Sharing::Unidentified) => (
                "Shared",
                format!(
                    "the mark {mark} names the certificate of its Kubernetes cluster, and the one of this cluster is not known, so nothing is removed: \
                     ConfigMap {AUTHORITY} with the key ca.crt is missing in this namespace"
                ),
            ),
            Standing::Shared(Sharing::Contested) => (
                "Shared",
                format!(
                    "somebody else writes or removes our mark {mark}, probably a cluster that was restored from the same backup, so nothing is removed \
                     until it has stood for {} s; give each cluster its own directory, or delete the other one with spec.haData.onDelete: Retain",
                    2 * REFRESH.as_secs()
                ),
            ),
        }
    }
}

/// Returns the owners of the other marks.
async fn others(ledger: &Ledger, storage: &Storage, owner: &str) -> anyhow::Result<Vec<String>> {
    let marks = storage.marks().await.context("failed to read the marks")?;
    let others = marks.into_iter().map(|mark| mark.owner).filter(|other| other != owner);
    let others: Vec<String> = others.map(|other| storage.uri_of_mark(&other)).collect();
    Ok([others, ledger.pointers.other_marks(owner).await?].concat())
}

/// Shortens an error of a storage: of the document that an object store appends, only the code remains.
fn brief(error: &str) -> String {
    let (said, document) = error.split_once("<?xml").unwrap_or((error, ""));
    let code =
        document.split_once("<Code>").and_then(|(_, rest)| rest.split_once("</Code>")).map_or("", |(code, _)| code);
    let said: String = said.chars().take(400).collect();
    format!("{}{code}", if code.is_empty() { said.trim_end() } else { said.as_str() })
}

/// Returns the Kubernetes cluster's own certificates as PEM.
async fn certificate(ledger: &Ledger) -> anyhow::Result<Option<String>> {
    let authority =
        ledger.config_maps().get_opt(AUTHORITY).await.with_context(|| format!("failed to read {AUTHORITY}"))?;
    Ok(authority.and_then(|authority| authority.data?.remove("ca.crt")))
}

/// Returns this cluster's mark without a process, and the ledger's records about marks.
///
/// # Errors
/// When the API server does not answer.
pub async fn identity(ledger: &Ledger) -> anyhow::Result<(Mark, SignatureRecords)> {
    let noted = ledger.ha_data().await?;
    let certificate = certificate(ledger).await?;
    let records = SignatureRecords::of(&noted);
    let owner = match noted.owner {
        Some(owner) => owner,
        None => chosen_owner(ledger, certificate.as_deref()).await?,
    };
    let certificates = certificate.as_deref().map(certificates_of).unwrap_or_default();
    Ok((Mark { owner, certificates, ..Mark::default() }, records))
}

/// Chooses the owner id. The one in the ledger, which stays with retained data, takes precedence; the caller checks it.
/// The next is a digest of the Kubernetes cluster's CA certificate, so that a re-created resource finds its directory
/// again; the last is the UID of the Lease, or without one of the ledger. Other resources of that Kubernetes cluster
/// have their own directories.
async fn chosen_owner(ledger: &Ledger, certificate: Option<&str>) -> anyhow::Result<String> {
    if let Some(certificate) = certificate {
        let digest = digest(&SHA256, certificate.as_bytes());
        return Ok(digest.as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect());
    }
    match ledger.pointers.lease_uid().await? {
        Some(uid) => Ok(uid),
        None => ledger.object().await?.metadata.uid.context("the ledger has no UID"),
    }
}

/// Returns the digests that identify this Kubernetes cluster.
///
/// # Errors
/// When the API server does not answer.
pub async fn certificates(ledger: &Ledger) -> anyhow::Result<Vec<String>> {
    Ok(certificate(ledger).await?.as_deref().map(certificates_of).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::brief;

    #[test]
    fn of_an_object_stores_error_document_only_the_code_is_told() {
        let error = "failed to read the mark: 403 Forbidden: <?xml version=\"1.0\"?>\n<Error><Code>SignatureDoesNotMatch</Code><Message>long</Message></Error>";
        assert_eq!(brief(error), "failed to read the mark: 403 Forbidden: SignatureDoesNotMatch");
        assert_eq!(brief("permission denied "), "permission denied");
    }
}
