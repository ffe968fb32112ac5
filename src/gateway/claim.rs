//! The mark by which a cluster signs its storage directory, so that two clusters that share one are told of it.

use std::time::Duration;

use anyhow::Context;
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use tokio::time::Instant;

use super::book::Book;
use crate::api::names;
use crate::lease::term::Term;
use crate::world::storage::reach::NotCollectable;
use crate::world::storage::{Mark, Storage};

/// A mark of another owner that does not beat for this long is an old one.
const MARK_PATIENCE: Duration = Duration::from_secs(150);

/// The storage directory and whether it is ours.
pub struct Claim {
    pub storage: Result<Storage, NotCollectable>,
    /// How this cluster signs.
    owner: Option<String>,
    foreign_mark: Option<(Mark, Instant)>,
    /// The state as last written into the ledger.
    reported: Option<&'static str>,
    /// As the last beat found it: nothing is removed from a directory that is not known to be ours.
    pub is_ours: bool,
}

impl Claim {
    pub fn new(storage: Result<Storage, NotCollectable>) -> Self {
        Self { storage, owner: None, foreign_mark: None, reported: None, is_ours: false }
    }

    /// Marks the directory as ours, unless another cluster does so too, and says in the ledger how things stand.
    ///
    /// # Errors
    /// When the storage or the API server does not answer; the storage's error is in the ledger too.
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
        let signed = self.sign(&storage, &owner).await;
        self.is_ours = matches!(signed, Ok(Some(true)));
        match signed {
            Ok(Some(true)) => self.report(book, term, "Collectable", String::new()).await,
            Ok(Some(false)) => {
                let message = "another cluster uses the same high-availability.storageDir and cluster id; give each its own";
                self.report(book, term, "Shared", message.to_owned()).await
            }
            Ok(None) => Ok(()),
            Err(error) => {
                let remedy =
                    "look at its address and credentials (spec.flinkConfiguration, or the environment in spec.jobManager.podTemplate)";
                self.report(book, term, "Unreachable", format!("{}; {remedy}", brief(&format!("{error:#}")))).await
            }
        }
    }

    /// Signs, and tells whether the directory is ours; `None` while that is not sure.
    async fn sign(&mut self, storage: &Storage, owner: &str) -> anyhow::Result<Option<bool>> {
        let foreign = storage.mark().await.context("failed to read the mark")?.filter(|mark| mark.owner != owner);
        let Some(mark) = foreign else {
            storage.claim(owner).await.context("failed to write the mark")?;
            return Ok(Some(true));
        };
        match &self.foreign_mark {
            Some((before, since)) if *before == mark && since.elapsed() >= MARK_PATIENCE => {
                storage.claim(owner).await.context("failed to write the mark")?;
                Ok(Some(true))
            }
            Some((before, _)) if *before == mark => Ok(None),
            before => {
                let living = before.is_some();
                self.foreign_mark = Some((mark, Instant::now()));
                Ok(living.then_some(false))
            }
        }
    }

    async fn report(&mut self, book: &Book, term: &Term, state: &'static str, message: String) -> anyhow::Result<()> {
        // Messages of a storage may differ each time; the first tells enough.
        if self.reported == Some(state) {
            return Ok(());
        }
        let owner = self.owner.clone();
        book.change_ha_data(term, |ha_data| {
            (ha_data.state, ha_data.message) = (state.to_owned(), message.clone());
            ha_data.owner.clone_from(&owner);
        })
        .await?;
        self.reported = Some(state);
        Ok(())
    }
}

/// What a storage says without the document that an object store appends: of that only its code.
fn brief(error: &str) -> String {
    let (said, document) = error.split_once("<?xml").unwrap_or((error, ""));
    let code = document.split_once("<Code>").and_then(|(_, rest)| rest.split_once("</Code>")).map_or("", |(code, _)| code);
    let said: String = said.chars().take(400).collect();
    format!("{}{code}", if code.is_empty() { said.trim_end() } else { said.as_str() })
}

/// By the ledger, which stays with retained data; else by the Lease's UID, which no other cluster has.
async fn owner(book: &Book) -> anyhow::Result<String> {
    if let Some(owner) = book.ha_data().await?.owner {
        return Ok(owner);
    }
    let leases: Api<Lease> = Api::namespaced(book.client.clone(), &book.shared.names.namespace);
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
