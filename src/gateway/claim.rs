//! The mark by which a cluster signs its storage directory. While another cluster's mark stands beside it, nothing is removed: its owner may be
//! stopped, and what looks like an orphan from here may be all that it has.

use anyhow::Context;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use ring::digest::{SHA256, digest};

use super::book::Book;
use super::pointers::Pointers;
use crate::api::names;
use crate::lease::term::Term;
use crate::world::storage::Storage;
use crate::world::storage::reach::NotCollectable;

/// The storage directory and whether it is ours.
pub struct Claim {
    pub storage: Result<Storage, NotCollectable>,
    /// How this cluster signs.
    owner: Option<String>,
    /// As the last beat found it: nothing is removed from a directory that is not known to be ours.
    pub is_ours: bool,
    /// The state as last written into the ledger in this tenure.
    reported: Option<(u64, &'static str)>,
}

impl Claim {
    pub fn new(storage: Result<Storage, NotCollectable>) -> Self {
        Self { storage, owner: None, is_ours: false, reported: None }
    }

    /// Signs the directory, and says in the ledger how things stand, if that is news.
    ///
    /// # Errors
    /// When the API server does not answer. What the storage says goes into the ledger.
    pub async fn beat(&mut self, book: &Book, term: &Term) -> anyhow::Result<()> {
        let storage = match &self.storage {
            Ok(storage) => storage.clone(),
            Err(why) => return self.report(book, term, "NotCollectable", why.to_string()).await,
        };
        let owner = match &self.owner {
            Some(owner) => owner.clone(),
            None => owner(book).await?,
        };
        self.owner = Some(owner.clone());
        let others = sign(&storage, &owner, &book.pointers).await;
        self.is_ours = others.as_ref().is_ok_and(Vec::is_empty);
        match others.as_deref() {
            Ok([]) => self.report(book, term, "Collectable", String::new()).await,
            Ok([other, ..]) => {
                let message = format!(
                    "another cluster has signed the same directory, so nothing is removed from it; give each its own, or, if that cluster is gone for \
                     good, remove its mark {}",
                    other
                );
                self.report(book, term, "Shared", message).await
            }
            Err(error) => {
                let remedy =
                    "look at its address and credentials (spec.flinkConfiguration, or the environment in spec.jobManager.podTemplate)";
                self.report(book, term, "Unreachable", format!("{}; {remedy}", brief(&format!("{error:#}")))).await
            }
        }
    }

    async fn report(&mut self, book: &Book, term: &Term, state: &'static str, message: String) -> anyhow::Result<()> {
        if self.reported == Some((term.number, state)) {
            return Ok(());
        }
        let owner = self.owner.clone();
        book.change_ha_data(term, |ha_data| {
            // Messages of a storage may differ each time; the first tells enough.
            if ha_data.state != state {
                (ha_data.state, ha_data.message) = (state.to_owned(), message.clone());
            }
            ha_data.owner.clone_from(&owner);
        })
        .await?;
        self.reported = Some((term.number, state));
        Ok(())
    }
}

/// Signs, and tells who else has.
async fn sign(storage: &Storage, owner: &str, pointers: &Pointers) -> anyhow::Result<Vec<String>> {
    // First: two that sign at the same time both see the other.
    storage.claim(owner).await.context("failed to write the mark")?;
    let marks = storage.marks().await.context("failed to read the marks")?;
    let others = marks.into_iter().map(|mark| mark.owner).filter(|other| other != owner);
    let others = others.map(|other| storage.uri_of_mark(&other)).collect();
    match pointers {
        Pointers::ConfigMaps => Ok(others),
        Pointers::Znodes(znodes) => Ok([others, znodes.sign(owner).await?].concat()),
    }
}

/// What a storage says without the document that an object store appends: of that only its code.
fn brief(error: &str) -> String {
    let (said, document) = error.split_once("<?xml").unwrap_or((error, ""));
    let code = document.split_once("<Code>").and_then(|(_, rest)| rest.split_once("</Code>")).map_or("", |(code, _)| code);
    let said: String = said.chars().take(400).collect();
    format!("{}{code}", if code.is_empty() { said.trim_end() } else { said.as_str() })
}

/// By the ledger, which stays with retained data; else by the Kubernetes cluster's own certificate, which the same resource finds again after it
/// was deleted; else by the Lease or the ledger. Other resources of that Kubernetes cluster have directories of their own.
///
/// # Errors
/// When the API server does not answer.
pub async fn owner(book: &Book) -> anyhow::Result<String> {
    if let Some(owner) = book.ha_data().await?.owner {
        return Ok(owner);
    }
    let namespace = &book.shared.names.namespace;
    let config_maps: Api<ConfigMap> = Api::namespaced(book.client.clone(), namespace);
    let authority = config_maps.get_opt("kube-root-ca.crt").await.context("failed to read kube-root-ca.crt")?;
    if let Some(certificate) = authority.and_then(|authority| authority.data?.remove("ca.crt")) {
        let digest = digest(&SHA256, certificate.as_bytes());
        return Ok(digest.as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect());
    }
    if matches!(book.pointers, Pointers::Znodes(_)) {
        let ledger = config_maps.get(&names::ledger(&book.cluster)).await.context("failed to read the ledger")?;
        return ledger.metadata.uid.context("the ledger has no UID");
    }
    let leases: Api<Lease> = Api::namespaced(book.client.clone(), namespace);
    let lease = leases.get(&names::lease(&book.cluster)).await.context("failed to read the Lease")?;
    lease.metadata.uid.context("the Lease has no UID")
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
